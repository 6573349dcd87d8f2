// What was traded of one symbol in the last 1, 5 and 60 minutes.

import { percent, quantity } from "../format.ts";
import type { Row } from "../views/listing.ts";
import { Followed } from "./followed.ts";
import type { Kind, Place } from "./widget.ts";

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

class Activity extends Followed<Stats> {
  constructor(place: Place) {
    super(place, {
      name: "activity", title: "Activity", label: "Recent activity", heads: ["In the last", ...TITLES], kind: "stats", options: { hz: 2 },
      unchosen: "What was traded appears here once a symbol is chosen",
      waiting: (symbol, unquoted) => (unquoted ? `No trades of ${symbol}` : `Waiting for the first trade of ${symbol}`),
    }); // prettier-ignore
  }

  protected rows(stats: Stats): Row[] {
    return LINES.map(([name, text]) => ({ texts: [name, ...WINDOWS.map((window) => text(stats, window))], tone: "" }));
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
