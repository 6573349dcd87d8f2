// Message stores and trading of the exchange, and what nobody could use: bad events, dead orders.
import { action, form, when } from "../account/forms.ts";
import { el } from "../dom.ts";
import { alert, count, LiveTable, span } from "./live.ts";
import { once, type Open } from "./pages.ts";
import type { BadEvent, DeadOrder, Store, Trading } from "./shapes.ts";

export const stores: Open = (api, again) => {
  const [below, state] = [alert(), el("p")];
  const purging = el("div");
  const may = api.may("exchange");
  const table = new LiveTable<Store>(
    "Message stores",
    [
      { head: "Store", text: ({ name }) => name },
      { head: "Messages", text: ({ messages }) => count(messages), number: true },
      { head: "From", text: ({ first_index }) => count(first_index), number: true },
      { head: "To", text: ({ last_index }) => count(last_index), number: true },
      {
        head: "Oldest", text: ({ oldest_age_ms, age_ms_max }) => (age_ms_max ? `${span(oldest_age_ms)} of ${span(age_ms_max)}` : span(oldest_age_ms)), number: true,
        tone: ({ oldest_age_ms, age_ms_max }) => (age_ms_max && oldest_age_ms > age_ms_max / 2 ? "warn" : ""),
      },
      { head: "Consumers", text: ({ consumers }) => count(consumers), number: true },
      { head: "", text: ({ suspended }) => (suspended ? "suspends trading" : ""), tone: ({ suspended }) => (suspended ? "bad" : "") },
    ],
    ({ name }) => name,
    "There are no message stores.",
    (row) => {
      if (!may) return [];
      const path = () => `stores/${encodeURIComponent(row().name)}`;
      const limit = action("Limit …", async () => ask(row().name, "age in seconds at which it suspends trading, 0 = never", String(row().age_ms_max / 1000), async (text) => {
        await api.change("PUT", `${path()}/suspension`, { age_ms_max: Math.round(Number(text) * 1000) });
      }), below);
      const purge = action("Purge …", async () => confirmPurge(row()), below);
      return [limit, purge];
    },
  );
  const ask = (name: string, label: string, value: string, act: (text: string) => Promise<void>) => {
    purging.replaceChildren(el("h3", "", name), form([{ name: "text", label, value }], "Do it", async ({ text }) => {
      await act(text ?? "");
      purging.replaceChildren();
      again();
    }));
    purging.querySelector("input")?.focus();
  };
  const confirmPurge = async (store: Store) => {
    const path = `stores/${encodeURIComponent(store.name)}/purge`;
    const { messages } = await api.change<{ messages: number }>("POST", path, { dry_run: true }, once());
    ask(store.name, `${count(messages)} messages go, up to the newest; consumers that have not seen them never will. Type the store's name`, "", async (text) => {
      if (text !== store.name) throw { status: 0, detail: "That is not the store's name. Nothing was purged.", code: "" };
      await api.change("POST", path, {}, once());
    });
  };
  const trading = may
    ? [
        el("h3", "", "Trading"),
        form([{ name: "reason", label: "Reason" }], "Suspend trading", async ({ reason }) => (await api.change("POST", "trading/suspend", { reason }, once()), again())),
        form([{ name: "reason", label: "Reason" }], "Resume trading", async ({ reason }) => (await api.change("POST", "trading/resume", { reason }, once()), again())),
      ]
    : [];
  return {
    nodes: [state, below, table.element, purging, ...trading],
    update: async () => {
      const [found, now] = await Promise.all([api.get<Store[]>("stores"), api.get<Trading>("trading")]);
      table.update(found);
      state.textContent = now.suspended ? `Trading is suspended: ${[...now.reasons, now.note].filter(Boolean).join("; ")}${now.who ? ` (${now.who})` : ""}.` : "Trading is open.";
      state.dataset["tone"] = now.suspended ? "bad" : "good";
    },
  };
};

export const letters: Open = (api, again) => {
  const [below, orderBelow, away] = [alert(), alert(), el("p", "dim")];
  const events = new LiveTable<BadEvent>(
    "Bad events",
    [
      { head: "When", text: ({ ts }) => when(ts) },
      { head: "Stream", text: ({ stream, partition }) => `${stream} ${partition}` },
      { head: "Why", text: ({ reason }) => reason },
      { head: "Event", text: ({ event }) => event.slice(0, 300) },
    ],
    ({ ts, stream, partition, event }) => `${ts} ${stream} ${partition} ${event}`,
    "None: every event could be used.",
  );
  const orders = new LiveTable<DeadOrder>(
    "Dead orders",
    [
      { head: "When", text: ({ at }) => at },
      { head: "Why", text: ({ reason, detail }) => `${reason}: ${detail}` },
      { head: "Tries", text: ({ attempts }) => count(attempts), number: true },
      { head: "Order", text: ({ body }) => body.slice(0, 300) },
    ],
    ({ id }) => id,
    "None: every order was executed or refused.",
    (row) => {
      if (!api.may("exchange")) return [];
      const path = () => `dead-letters/orders/${encodeURIComponent(row().id)}`;
      return [
        action("Requeue", async () => (await api.change("POST", `${path()}/requeue`, undefined, once()), again()), orderBelow),
        action("Discard", async () => (await api.change("DELETE", path(), undefined, once()), again()), orderBelow, "Throw it away?"),
      ];
    },
  );
  const save = el("a", "", "Download") as HTMLAnchorElement;
  save.href = "/api/v1/dead-letters/events/download";
  save.download = "dead-letters.ndjson";
  const clear = api.may("operate") ? [action("Clear", async () => (await api.change("DELETE", "dead-letters/events", undefined, once()), again()), below, "Throw all of them away?")] : [];
  return {
    nodes: [el("h3", "", "Bad events"), el("p", "", "What the feed sent and nobody could use. ", save, " ", ...clear), below, events.element, el("h3", "", "Dead orders"), away, orderBelow, orders.element],
    update: async () => {
      const [bad, dead] = await Promise.allSettled([
        api.get<{ letters: BadEvent[] }>("dead-letters/events?limit=100"),
        api.get<{ letters: DeadOrder[] }>("dead-letters/orders?limit=100"),
      ]);
      if (bad.status === "rejected") throw bad.reason;
      events.update(bad.value.letters);
      orders.update(dead.status === "fulfilled" ? dead.value.letters : []);
      away.textContent = dead.status === "fulfilled" ? "Orders of the queue that could not be done." : ((dead.reason as { detail?: string }).detail ?? "");
    },
  };
};
