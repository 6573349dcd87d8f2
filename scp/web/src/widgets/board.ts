// A ranked board: most active, gainers, losers, gappers; filtered, sorted and coloured as one likes.

import { MEASURES, type Measure } from "../data/boards.ts";
import { showState } from "../dom.ts";
import { Board, boardDecimals } from "../views/board.ts";
import { flag, number, oneOf, text, words, type Kind, type Place, type Widget } from "./widget.ts";

const BOARDS = [
  ["volume", "Most active", "Waiting for the first trades"],
  ["gainers", "Gainers", "Waiting for a symbol above its previous close"],
  ["losers", "Losers", "Waiting for a symbol below its previous close"],
  ["gappers", "Gappers", "Waiting for an open away from the previous close"],
] as const;
const NAMES = ["volume", "gainers", "losers", "gappers"] as const;
const TITLES: readonly (readonly [Measure, string])[] = [
  ["last", "Last price"], ["change", "Change"], ["change_pct", "Change in percent"], ["gap_pct", "Gap of the open in percent"], ["volume", "Volume"],
]; // prettier-ignore

class BoardWidget implements Widget {
  readonly element: HTMLElement;
  readonly head: HTMLElement;
  private readonly board: Board;
  private readonly end: () => void;

  constructor(place: Place) {
    const { market, link, settings, ids } = place;
    const name = oneOf(settings, "board", NAMES);
    const [, title, wait] = BOARDS.find(([one]) => one === name)!;
    const measure: Measure = name === "gappers" ? "gap_pct" : "change_pct";
    const chosen = words(settings, "columns").filter((word): word is Measure => (MEASURES as readonly string[]).includes(word));
    const columns: readonly Measure[] = chosen.length ? MEASURES.filter((column) => chosen.includes(column)) : ["last", measure, "volume"];
    const decimals = (symbol: string, last: number) => {
      const row = market.table.row(symbol);
      return boardDecimals(row < 0 ? undefined : market.table.decimals[row], last);
    };
    this.board = new Board(
      {
        name, title: text(settings, "title") || title, columns, measure, heat: flag(settings, "heat", false),
        minor: name === "volume" && columns.includes("volume") ? measure : "volume",
        wanted: {
          priceLeast: bound(settings["price_least"]), priceMost: bound(settings["price_most"]), volumeLeast: bound(settings["volume_least"]),
          sort: oneOf(settings, "sort", ["", "symbol", ...MEASURES]), descending: flag(settings, "descending", true),
        },
      },
      ids, decimals, (symbol) => market.open(link, symbol),
    ); // prettier-ignore
    this.board.waitFor(wait);
    this.element = this.board.element;
    this.head = this.board.head;
    this.end = market.shared.onBoard(name, {
      board: (document) => this.board.set(document),
      status: ({ state, reason }) => showState(this.element, state, reason),
    });
  }

  paint(now: number): void {
    this.board.paint(now);
  }

  close(): void {
    this.end();
  }
}

/** A bound of a filter; none and 0 are no bound. */
function bound(value: unknown): number {
  return number({ value }, "value", 0) || NaN;
}

export const board: Kind = {
  name: "board",
  title: "Board",
  about: "Most active, gainers, losers or gappers",
  tab: "boards",
  turn: 2,
  size: [9, 7],
  least: [6, 4],
  links: true,
  fields: [
    { name: "board", label: "Board", type: "choice", default: "volume", options: BOARDS.map(([name, title]) => [name, title] as const) },
    { name: "title", label: "Name", type: "text", about: "None = the board's own" },
    { name: "columns", label: "Columns", type: "columns", default: ["last", "change_pct", "volume"], options: TITLES },
    { name: "sort", label: "Sorted by", type: "choice", default: "", options: [["", "Rank"], ["symbol", "Symbol"], ...TITLES] },
    { name: "descending", label: "Largest first", type: "check", default: true },
    { name: "price_least", label: "Last price from", type: "number", about: "0 = no bound" },
    { name: "price_most", label: "Last price up to", type: "number", about: "0 = no bound" },
    { name: "volume_least", label: "Volume from", type: "number", about: "0 = no bound" },
    { name: "heat", label: "Rows are the warmer the larger their change is", type: "check", default: false },
  ],
  make: (place) => new BoardWidget(place),
};
