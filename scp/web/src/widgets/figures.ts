// Key figures of one symbol: the day before, the usual volume, the float, how far it has moved since the open.

import { count, decimalsOf, NONE, percent, price, priceDecimals, quantity, signed } from "../format.ts";
import type { Row } from "../views/listing.ts";
import { Followed } from "./followed.ts";
import type { Kind, Place } from "./widget.ts";

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

class Figures extends Followed<Quote> {
  constructor(place: Place) {
    super(place, {
      name: "figures", title: "Key figures", label: "Key figures", heads: ["Figure", "Value"], kind: "quote", options: { hz: 1, fields: FIELDS },
      unchosen: "The figures of a symbol appear here once one is chosen",
      waiting: (symbol, unquoted) => (unquoted ? `Nobody quotes ${symbol}` : `Waiting for the quote of ${symbol}`),
    }); // prettier-ignore
  }

  protected rows(quote: Quote): Row[] {
    const { table } = this.place.market;
    const row = table.row(this.symbol);
    const decimals = row < 0 ? priceDecimals(decimalsOf(quote.prev_close ?? NaN)) : table.decimals[row]!;
    return LINES.map(([name, text]) => ({ texts: [name, text(quote, decimals)], tone: "" }));
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
