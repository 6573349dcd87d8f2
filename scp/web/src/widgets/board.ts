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
  ["open_gainers", "Gainers since the open", "Waiting for a symbol above its open"],
  ["rel_volume", "Relative volume", "Waiting for symbols whose usual volume is known"],
  ["dollar_volume", "Dollar volume", "Waiting for the first trades"],
  ["range", "Day's range", "Waiting for a high above a low"],
  ["trades_1m", "Trades of a minute", "Waiting for the first trades"],
  ["trades_5m", "Trades of 5 minutes", "Waiting for the first trades"],
  ["trades_60m", "Trades of an hour", "Waiting for the first trades"],
  ["unusual", "Unusual volume", "No symbol trades three times as much as in its usual minute"],
  ["halted", "Halted", "No symbol is halted"],
] as const;
const OWN_BOARD = /^[a-z][a-z0-9_]{0,31}$/;
const TITLES: readonly (readonly [Measure, string])[] = [
  ["last", "Last price"], ["change", "Change"], ["change_pct", "Change in percent"], ["gap_pct", "Gap of the open in percent"],
  ["open_change_pct", "Change since the open in percent"], ["volume", "Volume"], ["dollar_volume", "Dollar volume"],
  ["rel_volume", "Relative volume"], ["float", "Float"], ["trades", "Trades of the day"],
  ["news_ts", "Age of the newest news"],
]; // prettier-ignore
/** What a board shows beside last price and volume, where that is not the change in percent. */
const OF_BOARD: Readonly<Record<string, Measure>> = {
  gappers: "gap_pct", open_gainers: "open_change_pct", rel_volume: "rel_volume", dollar_volume: "dollar_volume",
  trades_1m: "trades", trades_5m: "trades", trades_60m: "trades",
}; // prettier-ignore

class BoardWidget implements Widget {
  readonly element: HTMLElement;
  readonly head: HTMLElement;
  private readonly board: Board;
  private readonly end: () => void;

  constructor(place: Place) {
    const { market, link, settings, ids } = place;
    const own = text(settings, "own");
    const asked = OWN_BOARD.test(own) ? own : text(settings, "board");
    const known = BOARDS.find(([one]) => one === asked);
    const name = known?.[0] ?? (asked === own && own ? own : BOARDS[0][0]);
    const [, title, wait] = known ?? (name === own ? ["", own.replaceAll("_", " "), "Waiting for symbols that fit; operators say what this board is"] : BOARDS[0]);
    const shown = OF_BOARD[name] ?? "change_pct";
    const measure: Measure = shown === "gap_pct" || shown === "open_change_pct" ? shown : "change_pct";
    const chosen = words(settings, "columns").filter((word): word is Measure => (MEASURES as readonly string[]).includes(word));
    const columns: readonly Measure[] = chosen.length ? MEASURES.filter((column) => chosen.includes(column)) : ["last", shown, "volume"];
    const decimals = (symbol: string, last: number) => {
      const row = market.table.row(symbol);
      return boardDecimals(row < 0 ? undefined : market.table.decimals[row], last);
    };
    this.board = new Board(
      {
        name, title: text(settings, "title") || title, columns, measure, heat: flag(settings, "heat", false),
        minor: name === "volume" && columns.includes("volume") ? shown : "volume",
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
  about: "Ranked symbols: most active, gainers, unusual volume, halted and others",
  tab: "boards",
  turn: 2,
  size: [9, 7],
  least: [6, 4],
  links: true,
  fields: [
    { name: "board", label: "Board", type: "choice", default: "volume", options: BOARDS.map(([name, title]) => [name, title] as const) },
    { name: "own", label: "Or a board of your operators'", type: "text", about: "Its name, as in low_float; none = the one above" },
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
