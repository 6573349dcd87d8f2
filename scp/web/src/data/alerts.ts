// Follows the channels of alerts, once for all widgets that show them.
// Invariant: whoever listens later is told at once what is known by then, in the order of its time.

import type { Stream } from "./stream.ts";
import type { ChannelState } from "./shared.ts";

/** What a widget can be asked to show, and to sound for. */
export const GROUPS = [
  ["high", "Highs"], ["low", "Lows"], ["gap", "Gaps"], ["volume", "Surges"], ["news", "News"], ["halt", "Halts"],
] as const; // prettier-ignore
export type Group = (typeof GROUPS)[number][0];

const CHANNELS = ["alerts:range", "alerts:gap", "alerts:volume", "alerts:news", "alerts:halts"];
const FIELDS = ["sym", "kind", "price", "prev", "value", "session", "note", "ts"]; // not the quote: the page has them all
const KEPT = 1000; // of a channel, as many as the cache has
const LIVE: ChannelState = { state: "live", reason: "" };

interface Known {
  group: Group;
  label: string;
  tone: "up" | "down" | "warn" | "calm";
}

/** What a kind of alert belongs to and how it is called; a kind that this page does not know is not shown. */
export const KINDS: Readonly<Record<string, Known>> = {
  new_high: { group: "high", label: "▲ High", tone: "up" },
  new_low: { group: "low", label: "▼ Low", tone: "down" },
  gap_up: { group: "gap", label: "▲ Gap", tone: "up" },
  gap_down: { group: "gap", label: "▼ Gap", tone: "down" },
  surge: { group: "volume", label: "● Surge", tone: "calm" },
  rel_volume: { group: "volume", label: "● Day vol.", tone: "calm" },
  news_high: { group: "news", label: "▲ News", tone: "up" },
  news_low: { group: "news", label: "▼ News", tone: "down" },
  news: { group: "news", label: "● News", tone: "calm" },
  halted: { group: "halt", label: "■ Halted", tone: "warn" },
  resumed: { group: "halt", label: "▶ Resumed", tone: "warn" },
};

export interface Alert {
  sym: string;
  kind: string;
  price: number | null;
  prev: number | null;
  value: number | null;
  session: string;
  note: string;
  ts: number;
}

export interface AlertListener {
  /** `fresh`: it has just happened; else it is one of those that were known. */
  alert(alert: Alert, fresh: boolean): void;
  /** What was told is not known any more; what is follows. */
  clear(): void;
  lost(n: number): void;
  status(state: ChannelState): void;
}

export class AlertChannels {
  count = 0; // told so far
  private readonly kept = new Map<string, Alert[]>(); // channel → oldest first
  private readonly states = new Map<string, ChannelState>();
  private readonly listeners = new Set<AlertListener>();

  constructor(
    private readonly stream: Stream,
    private readonly seen: (at: number) => void,
  ) {}

  start(): void {
    this.stream.subscribe(CHANNELS, { hz: 10, fields: FIELDS }, {
      snapshot: (channel, data, at) => this.begin(channel, data as Alert[], at),
      event: (channel, data, at) => {
        this.seen(at);
        this.keep(channel, data as Alert);
        for (const listener of this.listeners) listener.alert(data as Alert, true);
      },
      lost: (_, n) => this.listeners.forEach((listener) => listener.lost(n)),
      status: (channel, state, reason) => {
        this.states.set(channel, { state, reason });
        for (const listener of this.listeners) listener.status(this.state);
      },
    });
  }

  /** Listen to all alerts; returns the function that ends it. */
  listen(listener: AlertListener): () => void {
    this.listeners.add(listener);
    for (const alert of this.known()) listener.alert(alert, false);
    listener.status(this.state);
    return () => this.listeners.delete(listener);
  }

  /** All that are kept, oldest first. */
  known(): Alert[] {
    return [...this.kept.values()].flat().sort((one, other) => one.ts - other.ts);
  }

  private get state(): ChannelState {
    return [...this.states.values()].find(({ state }) => state !== "live") ?? LIVE;
  }

  private begin(channel: string, alerts: readonly Alert[], at: number): void {
    const again = this.kept.get(channel)?.length;
    if (alerts.length) this.seen(at);
    this.kept.set(channel, []);
    for (const alert of alerts) this.keep(channel, alert);
    for (const listener of this.listeners) {
      if (again) listener.clear();
      for (const alert of again ? this.known() : alerts) listener.alert(alert, false);
    }
  }

  private keep(channel: string, alert: Alert): void {
    const kept = this.kept.get(channel) ?? [];
    this.kept.set(channel, kept);
    this.count++;
    kept.push(alert);
    if (kept.length > KEPT) kept.shift();
  }
}
