// The pipeline as it runs: what flows on every hop, how old it is, and where it is broken.
import { el, Text } from "../dom.ts";
import { all, named, TONE } from "./fleet.ts";
import { count, rate, span } from "./live.ts";
import type { Open } from "./pages.ts";
import type { Component, Queues } from "./shapes.ts";

interface Hop {
  kind: string;
  title: string;
  about: string;
}

const FLOW: readonly Hop[] = [
  { kind: "mdl", title: "Listeners", about: "read the feed" },
  { kind: "queues", title: "Queues", about: "hold it for five seconds at most" },
  { kind: "mdp", title: "Processors", about: "make quotes, bars, boards" },
  { kind: "wds", title: "Data service", about: "sends them to browsers" },
];
const BESIDE: readonly Hop[] = [
  { kind: "scp", title: "Control plane", about: "signs in, administers" },
  { kind: "engine", title: "Exchange", about: "matches orders" },
  { kind: "bots", title: "Bots", about: "trade on it" },
  { kind: "oms", title: "Order records", about: "keep its messages" },
  { kind: "risk", title: "Risk", about: "judges orders" },
];

class Box {
  readonly element: HTMLElement;
  private readonly state = new Text(el("strong"));
  private readonly flow = new Text(el("span", "flow"));
  private readonly age = new Text(el("span", "age"));
  private readonly why = new Text(el("span", "why"));

  constructor(private readonly hop: Hop) {
    this.element = el("section", "hop", el("h3", "", hop.title), el("small", "", hop.about), this.state.element, this.flow.element, this.age.element, this.why.element);
    this.element.setAttribute("aria-label", hop.title);
  }

  show(found: readonly Component[]): void {
    const bad = found.filter(({ state }) => state !== "ready");
    this.tone(found.length === 0 ? "none" : bad.length === 0 ? "good" : bad.length < found.length ? "warn" : TONE[bad[0]!.state]!);
    this.state.set(found.length === 0 ? "none" : bad.length === 0 ? `${found.length} ready` : `${found.length - bad.length} of ${found.length} ready`);
    this.flow.set(summed(found));
    const lags = found.map(({ lag_ms }) => lag_ms).filter((lag) => lag !== null);
    this.age.set(lags.length ? `${span(Math.max(...lags))} behind` : extra(this.hop.kind, found));
    this.why.set(bad.flatMap(({ id, state, reasons }) => `${id}: ${reasons[0] ?? state}`).slice(0, 3).join("; "));
  }

  showQueues({ queues, streams }: Queues): void {
    const oldest = Math.max(0, ...queues.map(({ age_ms }) => age_ms));
    const unread = queues.filter(({ consumers }) => consumers === 0);
    const late = queues.some(({ age_ms, ttl_ms }) => age_ms > ttl_ms / 2);
    this.tone(late || unread.length ? "bad" : "good");
    this.state.set(`${queues.length} queues`);
    this.flow.set(`${count(queues.reduce((sum, { depth }) => sum + depth, 0))} batches wait`);
    this.age.set(`oldest ${span(oldest)}`);
    const lost = streams.reduce((sum, { expired, dropped }) => sum + expired + dropped, 0);
    this.why.set(unread.length ? `nobody reads ${unread[0]!.name}` : lost ? `${count(lost)} events lost so far` : "");
  }

  refused(why: string): void {
    this.tone("warn");
    this.state.set("not known");
    this.flow.set("");
    this.age.set("");
    this.why.set(why);
  }

  private tone(name: string): void {
    if (this.element.dataset["tone"] !== name) this.element.dataset["tone"] = name;
  }
}

/** The rates of all of a kind added up, the two that say most. A standby repeats what its leader does: that counts once. */
function summed(found: readonly Component[]): string {
  const sums = new Map<string, number>();
  for (const { rates } of found.filter(({ more }) => more["role"] !== "standby")) for (const [name, value] of Object.entries(rates)) sums.set(name, (sums.get(name) ?? 0) + value);
  return [...sums].slice(0, 2).map(([name, value]) => `${rate(value)} ${named(name)}/s`).join(" · ");
}

function extra(kind: string, found: readonly Component[]): string {
  const sum = (name: string) => found.reduce((total, { more }) => total + Number(more[name] ?? 0), 0);
  if (kind === "wds") return `${count(sum("connections"))} clients, ${count(sum("channels"))} channels`;
  if (kind === "engine") return found.map(({ more }) => `${more["role"] ?? ""}`).filter(Boolean).join(", ");
  return "";
}

export const topology: Open = (api) => {
  const boxes = new Map([...FLOW, ...BESIDE].map((hop) => [hop.kind, new Box(hop)]));
  const flow = el("div", "flow-line");
  FLOW.forEach(({ kind }, at) => {
    if (at) {
      const arrow = el("span", "arrow", "→");
      arrow.setAttribute("aria-hidden", "true");
      flow.append(arrow);
    }
    flow.append(boxes.get(kind)!.element);
  });
  const beside = el("div", "beside", ...BESIDE.map(({ kind }) => boxes.get(kind)!.element));
  const total = new Text(el("p", "total"));
  return {
    nodes: [total.element, flow, el("h3", "", "Beside it"), beside],
    update: async () => {
      const [found, waiting] = await Promise.allSettled([all(api), api.get<Queues>("queues?limit=1000")]);
      if (found.status === "rejected") throw found.reason;
      for (const { kind } of [...FLOW, ...BESIDE]) {
        const own = found.value.filter((one) => one.kind === kind);
        const box = boxes.get(kind)!;
        if (kind !== "queues") box.show(own);
        else if (waiting.status === "fulfilled") box.showQueues(waiting.value);
        else box.refused((waiting.reason as { detail?: string }).detail ?? "no answer");
        if (BESIDE.some((hop) => hop.kind === kind)) box.element.hidden = own.length === 0;
      }
      const lag = (kind: string) => Math.max(0, ...found.value.filter((one) => one.kind === kind).map(({ lag_ms }) => lag_ms ?? 0));
      const oldest = waiting.status === "fulfilled" ? Math.max(0, ...waiting.value.queues.map(({ age_ms }) => age_ms)) : 0;
      total.set(`From the feed to the cache in about ${span(lag("mdl") + Math.max(oldest, lag("mdp")))}.`);
    },
  };
};

