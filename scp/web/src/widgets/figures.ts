// Key figures of one symbol: the day before, the usual volume, the float, how far it has moved since the open.

import type { Subscription } from "../data/stream.ts";
import { attributes, el, showState, Text } from "../dom.ts";
import { count, decimalsOf, NONE, percent, price, priceDecimals, quantity, signed } from "../format.ts";
import { Listing } from "../views/listing.ts";
import type { Kind, Place, Widget } from "./widget.ts";

const FIELDS = [
  "open", "prev_close", "prev_open", "prev_high", "prev_low", "prev_volume", "prev_vwap", "avg_volume", "rel_volume", "float",
  "open_change", "spread", "last_size",
] as const; // prettier-ignore
type Field = (typeof FIELDS)[number];
type Quote = Readonly<Partial<Record<Field, number | null>>>;
type Show = (quote: Quote, decimals: number) => string;

const LINES: readonly (readonly [string, Show])[] = [
  ["Since the open", (quote, decimals) => change(quote, decimals)],
  ["Spread", (quote, decimals) => price(of(quote, "spread"), decimals)],
  ["Last size", (quote) => quantity(of(quote, "last_size"))],
  ["Relative volume", (quote) => (known(quote, "rel_volume") ? `${quantity(Number(of(quote, "rel_volume").toPrecision(3)))}×` : NONE)],
  ["Usual volume", (quote) => quantity(of(quote, "avg_volume"))],
  ["Float", (quote) => quantity(of(quote, "float"))],
  ["Previous close", (quote, decimals) => price(of(quote, "prev_close"), decimals)],
  ["Previous open", (quote, decimals) => price(of(quote, "prev_open"), decimals)],
  ["Previous high", (quote, decimals) => price(of(quote, "prev_high"), decimals)],
  ["Previous low", (quote, decimals) => price(of(quote, "prev_low"), decimals)],
  ["Previous VWAP", (quote, decimals) => price(of(quote, "prev_vwap"), decimals)],
  ["Previous volume", (quote) => count(of(quote, "prev_volume"))],
];

class Figures implements Widget {
  readonly element: HTMLElement;
  readonly head: HTMLElement;
  private readonly note = new Text(el("span", "note"));
  private readonly list = new Listing("Key figures", ["Figure", "Value"]);
  private subscription: Subscription | null = null;
  private symbol = "";
  private quote: Quote | null = null;
  private dirty = true;

  constructor(private readonly place: Place) {
    const heading = place.ids.name("h-figures", el("h2", "", "Key figures"));
    this.head = el("div", "head", heading, this.note.element);
    this.element = attributes(el("section", "panel figures", this.head, this.list.element), { "aria-labelledby": heading.id });
    this.list.waitFor("The figures of a symbol appear here once one is chosen");
  }

  show(symbol: string): void {
    this.symbol = symbol;
    this.subscription?.close();
    this.subscription = null;
    this.quote = null;
    this.dirty = true;
    this.note.set(symbol);
    this.unquoted(false);
    showState(this.element, "live", "");
  }

  follow(symbol: string): void {
    this.subscription?.close();
    this.subscription = this.place.market.stream.subscribe([`quote:${symbol}`], { hz: 1, fields: FIELDS }, {
      snapshot: (_, data) => this.take(data as Quote),
      update: (_, __, whole) => this.take(whole as Quote),
      status: (_, state, reason) => showState(this.element, state, reason),
    });
  }

  unquoted(unquoted: boolean): void {
    this.list.waitFor(unquoted ? `Nobody quotes ${this.symbol}` : `Waiting for the quote of ${this.symbol}`);
  }

  paint(): void {
    if (!this.dirty) return;
    this.dirty = false;
    const { quote } = this;
    const row = this.place.market.table.row(this.symbol);
    const decimals = row < 0 ? priceDecimals(decimalsOf(quote?.prev_close ?? NaN)) : this.place.market.table.decimals[row]!;
    this.list.set(quote ? LINES.map(([name, text]) => ({ texts: [name, text(quote, decimals)], tone: "" })) : []);
  }

  close(): void {
    this.subscription?.close();
  }

  private take(quote: Quote): void {
    this.quote = quote;
    this.dirty = true;
  }
}

function of(quote: Quote, field: Field): number {
  return quote[field] ?? NaN;
}

function known(quote: Quote, field: Field): boolean {
  return quote[field] != null;
}

function change(quote: Quote, decimals: number): string {
  if (!known(quote, "open_change")) return NONE;
  const since = signed(of(quote, "open_change"), decimals);
  return known(quote, "open") ? `${since}  ${percent((100 * of(quote, "open_change")) / of(quote, "open"))}` : since;
}

export const figures: Kind = {
  name: "figures",
  title: "Key figures",
  about: "The day before, usual volume, float and the move since the open of one symbol",
  tab: "more",
  turn: 2,
  size: [8, 8],
  least: [7, 4],
  links: true,
  fields: [],
  make: (place) => new Figures(place),
};
