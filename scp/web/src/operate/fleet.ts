// Components, queues and clients of the stream.
import { action } from "../account/forms.ts";
import { el } from "../dom.ts";
import { alert, count, LiveTable, rate, span } from "./live.ts";
import { once, type Open } from "./pages.ts";
import type { Client, Clients, Component, Components, Queue, Queues } from "./shapes.ts";

export const TONE: Readonly<Record<string, string>> = { ready: "good", unready: "bad", stale: "warn", missing: "bad" };
const LEVELS = ["debug", "info", "warning", "error"] as const;

/** The name of a rate for people: received_events_s is received events. */
export const named = (name: string): string => name.replace(/_s$/, "").replaceAll("_", " ");

export const ratesOf = ({ rates }: Component): string =>
  Object.entries(rates).map(([name, value]) => `${named(name)} ${rate(value)}/s`).join(", ");

export const components: Open = (api, again) => {
  const below = alert();
  const table = new LiveTable<Component>(
    "Components",
    [
      { head: "Component", text: ({ id }) => id },
      { head: "State", text: ({ state, reasons, why_not }) => [state, ...reasons, why_not].filter(Boolean).join(": "), tone: ({ state }) => TONE[state]! },
      { head: "Rates", text: ratesOf },
      { head: "Lag", text: ({ lag_ms }) => (lag_ms === null ? "" : span(lag_ms)), number: true },
      { head: "Partitions", text: ({ partitions }) => (partitions === null ? "" : shortened(partitions)) },
      { head: "Up", text: ({ started_ms }) => span(Date.now() - started_ms), number: true },
      { head: "Host", text: ({ host, version }) => `${host} · ${version}` },
    ],
    ({ id }) => id,
    "No component has told of itself yet.",
    (row) => {
      if (!api.may("operate")) return [];
      const path = () => `components/${encodeURIComponent(row().id)}`;
      const level = el("select") as HTMLSelectElement;
      for (const name of LEVELS) level.append(new Option(name));
      level.value = row().log_level.toLowerCase();
      level.setAttribute("aria-label", `Log level of ${row().id}`);
      const set = async () => void (await api.change("PUT", `${path()}/log-level`, { level: level.value }));
      level.addEventListener("change", () => void set().catch((refusal) => (below.textContent = refusal.detail)));
      const drain = action("Drain", async () => (await api.change("POST", `${path()}/drain`, undefined, once()), again()), below, "Hand over and end?");
      return [level, drain];
    },
  );
  return {
    nodes: [el("p", "", "Each tells of itself once a second. Draining hands over and ends it; who supervises it starts it again."), below, table.element],
    update: async () => table.update(await all(api)),
  };
};

/** Return every component, page by page. */
export async function all(api: { get: <T>(path: string) => Promise<T> }): Promise<Component[]> {
  const found: Component[] = [];
  for (let after: string | null = ""; after !== null; ) {
    const page: Components = await api.get(`components?limit=1000&after=${encodeURIComponent(after)}`);
    found.push(...page.components);
    after = page.next;
  }
  return found;
}

/** Partitions as runs: 0-3, 7. */
export function shortened(partitions: readonly number[]): string {
  const runs: [number, number][] = [];
  for (const one of partitions) {
    const last = runs.at(-1);
    if (last && one === last[1] + 1) last[1] = one;
    else runs.push([one, one]);
  }
  return runs.map(([from, to]) => (from === to ? `${from}` : `${from}-${to}`)).join(", ") || "none";
}

export const queues: Open = (api, again) => {
  const below = alert();
  const streams = el("p", "dim");
  const table = new LiveTable<Queue>(
    "Queues",
    [
      { head: "Queue", text: ({ name }) => name },
      { head: "Batches", text: ({ depth }) => count(depth), number: true, tone: ({ depth }) => (depth > 1000 ? "warn" : "") },
      {
        head: "Oldest", text: ({ age_ms, ttl_ms }) => `${span(age_ms)} of ${span(ttl_ms)}`, number: true,
        tone: ({ age_ms, ttl_ms }) => (age_ms > ttl_ms * 0.5 ? "bad" : age_ms > ttl_ms * 0.2 ? "warn" : ""),
      },
      { head: "Consumers", text: ({ consumers }) => count(consumers), number: true, tone: ({ consumers }) => (consumers ? "" : "bad") },
    ],
    ({ name }) => name,
    "There are no queues.",
    (row) =>
      api.may("operate")
        ? [action("Purge", async () => (await api.change("DELETE", `queues/${encodeURIComponent(row().name)}`, undefined, once()), again()), below, "Throw away what waits?")]
        : [],
  );
  return {
    nodes: [el("p", "", "What waits longer than its time is thrown away, counted; processors never see it."), streams, below, table.element],
    update: async () => {
      const found = await api.get<Queues>("queues?limit=1000");
      table.update(found.queues);
      streams.textContent = found.streams
        .map(({ stream, events, expired, dropped }) => `${stream}: ${count(events)} events, ${count(expired)} expired, ${count(dropped)} dropped`)
        .join(" · ");
    },
  };
};

export const clients: Open = (api, again) => {
  const below = alert();
  const away = el("p", "said");
  const table = new LiveTable<Client>(
    "Clients",
    [
      { head: "Who", text: ({ user }) => user ?? "not yet signed in" },
      { head: "From", text: ({ address, transport }) => `${address} · ${transport}` },
      { head: "Worker", text: ({ worker }) => worker },
      { head: "Since", text: ({ open_s }) => span(open_s * 1000), number: true },
      { head: "Channels", text: ({ subscriptions }) => count(subscriptions), number: true },
      { head: "Waiting", text: ({ buffered_bytes }) => `${count(buffered_bytes / 1024)} kB`, number: true, tone: ({ buffered_bytes }) => (buffered_bytes > 65_536 ? "warn" : "") },
      { head: "Pace", text: ({ pace, hidden }) => (hidden ? `${pace}, hidden` : pace), tone: ({ pace }) => (pace === "open" ? "" : "warn") },
    ],
    ({ conn }) => conn,
    "Nobody is connected.",
    (row) =>
      api.may("operate")
        ? [action("Kick", async () => (await api.change("POST", `clients/${encodeURIComponent(row().conn)}/kick`, {}, once()), again()), below, "Close the connection?")]
        : [],
  );
  return {
    nodes: [el("p", "", "Who listens to the stream, over all workers. Who is kicked does not come back by itself."), away, below, table.element],
    update: async () => {
      const found = await api.get<Clients>("clients?limit=500");
      table.update(found.clients);
      away.textContent = found.unreachable.map(({ component, detail }) => `${component}: ${detail}`).join(" · ");
    },
  };
};
