// The operators' pages: one at a time, by the address's #, brought up to date every two seconds while they are seen.
import { audit, people, tokens, type Pane } from "../account/panes.ts";
import { Api } from "../account/api.ts";
import type { Refusal } from "../api/ask.ts";
import { byId, el } from "../dom.ts";
import { letters, stores } from "./exchange.ts";
import { clients, components, queues } from "./fleet.ts";
import { keys } from "./keys.ts";
import { listeners } from "./listeners.ts";
import type { Open, Page } from "./pages.ts";
import { topology } from "./topology.ts";

const EVERY_MS = 2000;

/** Panes of the account dialog that are at home here, too: they are drawn when they are opened or changed. */
const drawn = (pane: Pane): Open => (api, again) => {
  const body = el("div");
  let asked = false;
  return {
    nodes: [body],
    update: async () => {
      if (asked) return;
      asked = true;
      body.replaceChildren(...(await pane(api, () => ((asked = false), again()))));
    },
  };
};

const PAGES: readonly { name: string; title: string; scope: string; open: Open }[] = [
  { name: "topology", title: "Topology", scope: "inspect", open: topology },
  { name: "components", title: "Components", scope: "inspect", open: components },
  { name: "listeners", title: "Listeners", scope: "inspect", open: listeners },
  { name: "queues", title: "Queues", scope: "inspect", open: queues },
  { name: "clients", title: "Clients", scope: "inspect", open: clients },
  { name: "stores", title: "Message stores", scope: "inspect", open: stores },
  { name: "letters", title: "Dead letters", scope: "inspect", open: letters },
  { name: "keys", title: "Stream keys", scope: "keys", open: keys },
  { name: "tokens", title: "Tokens", scope: "account", open: drawn(tokens) },
  { name: "people", title: "People", scope: "people", open: drawn(people) },
  { name: "audit", title: "Audit", scope: "audit", open: drawn(audit) },
];

const state = byId("state");
let shown: { name: string; page: Page } | null = null;
let asking = false;

function say(text: string): void {
  state.textContent = text;
  document.body.dataset["stale"] = text ? "yes" : "no";
}

async function update(): Promise<void> {
  const now = shown;
  if (!now || asking) return;
  asking = true;
  try {
    await now.page.update();
    say("");
  } catch (refusal) {
    const { status, detail } = refusal as Refusal;
    if (status === 401) location.replace("/sign-in");
    say(detail ?? String(refusal)); // what is shown is as old as this line; it loses its colour
  } finally {
    asking = false;
    if (shown !== now) void update();
  }
}

function open(api: Api): void {
  const allowed = PAGES.filter(({ scope }) => api.may(scope));
  const wanted = allowed.find(({ name }) => name === location.hash.slice(1)) ?? allowed[0];
  if (!wanted || shown?.name === wanted.name) return;
  for (const link of byId("pages").querySelectorAll("a")) {
    if (link.hash.slice(1) === wanted.name) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  document.title = `${wanted.title} · Tapeline`;
  shown = { name: wanted.name, page: wanted.open(api, () => void update()) };
  byId("page").replaceChildren(el("h2", "", wanted.title), ...shown.page.nodes);
  void update();
}

async function start(): Promise<void> {
  const api = await Api.open();
  byId("pages").replaceChildren(
    ...PAGES.filter(({ scope }) => api.may(scope)).map(({ name, title }) => {
      const made = el("a", "", title) as HTMLAnchorElement;
      made.href = `#${name}`;
      return made;
    }),
  );
  window.addEventListener("hashchange", () => open(api));
  document.addEventListener("visibilitychange", () => void (document.hidden || update()));
  setInterval(() => void (document.hidden || update()), EVERY_MS);
  open(api);
}

start().catch(({ status, detail }: Refusal) => (status === 401 ? location.replace("/sign-in") : say(detail)));
