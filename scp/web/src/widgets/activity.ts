// What was traded of one symbol in the last 1, 5 and 60 minutes.

import type { Subscription } from "../data/stream.ts";
import { attributes, el, showState, Text } from "../dom.ts";
import { percent, quantity } from "../format.ts";
import { Listing } from "../views/listing.ts";
import type { Kind, Place, Widget } from "./widget.ts";

const WINDOWS = ["1m", "5m", "60m"] as const;
const TITLES = ["1 min", "5 min", "60 min"];
type Stats = Readonly<Record<string, number | null | undefined>>;
const LINES: readonly (readonly [string, (stats: Stats, window: string) => string])[] = [
  ["Trades", (stats, window) => quantity(of(stats, "trades", window))],
  ["Volume", (stats, window) => quantity(of(stats, "volume", window))],
  ["Worth", (stats, window) => quantity(of(stats, "notional", window))],
  ["Average size", (stats, window) => quantity(of(stats, "average", window))],
  ["Largest", (stats, window) => quantity(of(stats, "largest", window))],
  ["Bought − sold", (stats, window) => percent((100 * (of(stats, "bought", window) - of(stats, "sold", window))) / of(stats, "volume", window))],
];

class Activity implements Widget {
  readonly element: HTMLElement;
  readonly head: HTMLElement;
  private readonly note = new Text(el("span", "note"));
  private readonly list = new Listing("Recent activity", ["In the last", ...TITLES]);
  private subscription: Subscription | null = null;
  private symbol = "";
  private stats: Stats | null = null;
  private dirty = true;

  constructor(private readonly place: Place) {
    const heading = place.ids.name("h-activity", el("h2", "", "Activity"));
    this.head = el("div", "head", heading, this.note.element);
    this.element = attributes(el("section", "panel activity", this.head, this.list.element), { "aria-labelledby": heading.id });
    this.list.waitFor("What was traded appears here once a symbol is chosen");
  }

  show(symbol: string): void {
    this.symbol = symbol;
    this.subscription?.close();
    this.subscription = null;
    this.stats = null;
    this.dirty = true;
    this.note.set(symbol);
    this.unquoted(false);
    showState(this.element, "live", "");
  }

  follow(symbol: string): void {
    this.subscription?.close();
    this.subscription = this.place.market.stream.subscribe([`stats:${symbol}`], { hz: 2 }, {
      snapshot: (_, data) => this.take(data as Stats),
      update: (_, __, whole) => this.take(whole as Stats),
      status: (_, state, reason) => showState(this.element, state, reason),
    });
  }

  unquoted(unquoted: boolean): void {
    this.list.waitFor(unquoted ? `No trades of ${this.symbol}` : `Waiting for the first trade of ${this.symbol}`);
  }

  paint(): void {
    if (!this.dirty) return;
    this.dirty = false;
    const { stats } = this;
    this.list.set(stats ? LINES.map(([name, text]) => ({ texts: [name, ...WINDOWS.map((window) => text(stats, window))], tone: "" })) : []);
  }

  close(): void {
    this.subscription?.close();
  }

  private take(stats: Stats): void {
    this.stats = stats;
    this.dirty = true;
  }
}

function of(stats: Stats, what: string, window: string): number {
  return stats[`${what}_${window}`] ?? NaN;
}

export const activity: Kind = {
  name: "activity",
  title: "Activity",
  about: "What was traded of one symbol in the last 1, 5 and 60 minutes",
  tab: "more",
  turn: 1,
  size: [12, 7],
  least: [9, 4],
  links: true,
  fields: [],
  make: (place) => new Activity(place),
};
