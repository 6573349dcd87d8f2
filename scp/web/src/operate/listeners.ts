// What each listener is to follow: kept with versions, tried before it is applied, put back after a restart.
import { action, form, when } from "../account/forms.ts";
import type { Api } from "../account/api.ts";
import { el } from "../dom.ts";
import { alert, LiveTable } from "./live.ts";
import { once, type Open } from "./pages.ts";
import type { Configuration, Listener, Version } from "./shapes.ts";

const FIELDS = ["feed", "market", "subscriptions", "massive_url", "tape", "speed", "symbols", "rate", "seed", "engine_url"] as const;
const NUMBERS = new Set(["symbols", "rate", "seed"]);
const SECRETS = ["api_key", "engine_token"] as const;

export const listeners: Open = (api, again) => {
  const [below, chosen] = [alert(), el("div")];
  const table = new LiveTable<Listener>(
    "Listeners",
    [
      { head: "Listener", text: ({ name }) => name },
      { head: "Wanted", text: ({ managed, version }) => (managed ? `version ${version}` : "its own environment") },
      {
        head: "Running", text: ({ running }) => running.map(({ component, state, in_force, fault }) => `${component} ${state}${in_force ? "" : ", not as wanted"}${fault ? `: ${fault}` : ""}`).join("; ") || "none",
        tone: ({ running }) => (running.every(({ in_force, fault }) => in_force && !fault) ? "good" : "warn"),
      },
    ],
    ({ name }) => name,
    "No listener has told of itself yet.",
    (row) => [action("Configuration", async () => chosen.replaceChildren(...(await configuration(api, row().name, again))), below)],
  );
  return { nodes: [below, table.element, chosen], update: async () => table.update(await api.get<Listener[]>("listeners")) };
};

async function configuration(api: Api, name: string, again: () => void): Promise<Node[]> {
  const base = `listeners/${encodeURIComponent(name)}/configuration`;
  const [now, { versions }] = await Promise.all([api.get<Configuration>(base), api.get<{ versions: Version[] }>(`${base}/versions?limit=20`)]);
  const below = alert();
  const shown = el("div");
  const match = () => ({ "If-Match": `"${now.version}"`, ...once() });
  const change = async (typed: Record<string, string>, dry: boolean) => {
    const wanted: Record<string, unknown> = { ...now.configuration };
    for (const field of FIELDS) {
      const text = typed[field]?.trim() ?? "";
      if (text) wanted[field] = NUMBERS.has(field) ? Number(text) : text;
      else delete wanted[field];
    }
    for (const secret of SECRETS) if (typed[secret]) wanted[secret] = typed[secret];
    const said = await api.change<{ changes: { field: string; before: unknown; after: unknown }[]; judged: { component: string; accepted: boolean; detail: string }[] }>(
      "PUT", dry ? `${base}?dry_run=1` : base, { ...wanted, note: typed["note"] ?? "" }, match(),
    );
    const lines = said.changes.map(({ field, before, after }) => `${field}: ${before ?? "its own"} → ${after ?? "its own"}`);
    const judged = said.judged.map(({ component, accepted, detail }) => `${component} ${accepted ? "takes it" : `refuses: ${detail}`}`);
    shown.replaceChildren(el("p", "", dry ? "Tried, nothing changed. " : "Applied. ", [...lines, ...judged].join("; ") || "No difference."));
    if (!dry) again();
  };
  const may = api.may("operate");
  const fields = [
    ...FIELDS.map((field) => ({ name: field, label: field.replaceAll("_", " "), value: String(now.configuration[field] ?? ""), optional: true })),
    ...SECRETS.map((secret) => ({ name: secret, label: `${secret.replaceAll("_", " ")} (${now.secrets.includes(secret) ? "kept; never shown" : "none kept"})`, type: "password", autocomplete: "off", optional: true })),
    { name: "note", label: "note", optional: true },
  ];
  const edit = form(fields, "Apply", (typed) => change(typed, false));
  const attempt = action("Try it", () => change(Object.fromEntries([...new FormData(edit as HTMLFormElement)].map(([key, value]) => [key, String(value)])), true), below);
  const history = new LiveTable<Version>(
    "Versions",
    [
      { head: "Version", text: ({ version }) => String(version), number: true },
      { head: "When", text: ({ at_ms }) => when(at_ms) },
      { head: "Who", text: ({ who }) => who },
      { head: "What", text: ({ configuration: what }) => Object.entries(what).map(([key, value]) => `${key}=${value}`).join(" ") || "its own environment" },
      { head: "Note", text: ({ note }) => note },
    ],
    ({ version }) => String(version),
    "Nothing was ever wanted of it: it follows its own environment.",
    (row) => (may ? [action("Roll back", async () => (await api.change("POST", `${base}/rollback`, { version: row().version }, match()), again()), below, "To this version?")] : []),
  );
  history.update(versions);
  return [el("h3", "", `Listener ${name}`), ...(may ? [el("p", "dim", "Empty = the listener's own setting."), edit, attempt] : []), below, shown, el("h3", "", "Versions"), history.element];
}
