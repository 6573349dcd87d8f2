// Paints a board's rows in their order as one ranked table.

import { pipelineNow } from "../data/clock.ts";
import { heat, wantedOf, type BoardRow, type Measure, type Wanted } from "../data/boards.ts";
import type { BoardDocument } from "../data/shared.ts";
import { attributes, button, el, type Ids, Text } from "../dom.ts";
import { decimalsOf, NONE, percent, price, priceDecimals, quantity, short, signed } from "../format.ts";
import { join, roving } from "../roving.ts";
import { Flashes } from "./flash.ts";
import { toneOf } from "./grid.ts";
import { ageOf } from "./newspaper.ts";

const ROWS_SHOWN_MAX = 25;
const NAME_LETTERS_MAX = 10;
const PRICE_LETTERS_USUAL = 8;
const WIDTHS: Readonly<Record<Measure, string>> = {
  last: "minmax(0, auto)", change: "58px", change_pct: "60px", gap_pct: "60px", open_change_pct: "60px", volume: "48px",
  dollar_volume: "52px", rel_volume: "48px", float: "48px", trades: "48px", news_ts: "44px",
}; // prettier-ignore
const TINTED: readonly Measure[] = ["change", "change_pct", "gap_pct", "open_change_pct"];
const PERCENTS: readonly Measure[] = ["change_pct", "gap_pct", "open_change_pct"];

interface Line {
  element: HTMLElement;
  texts: Text[];
  symbol: string;
  tone: string;
  heat: number;
}

export interface Look {
  /** The board's name in its channel: volume, gainers … */
  name: string;
  title: string;
  /** What stands beside the symbol, from left to right. */
  columns: readonly Measure[];
  /** The one whose sign gives a row its colour. */
  measure: Measure;
  /** The column that goes first where there is little room. */
  minor: Measure;
  wanted: Wanted;
  /** Whether rows are the warmer the larger their change is. */
  heat: boolean;
}

export class Board {
  readonly element: HTMLElement;
  readonly head: HTMLElement;
  private readonly list = el("ol", "board-list");
  private readonly empty = el("p", "empty");
  private readonly note = new Text(el("span", "note"));
  private readonly lines: Line[] = [];
  private readonly flashes = new Flashes();
  private ranks = new Map<string, number>();
  private document: BoardDocument = { order: [], rows: {} };
  private dirty = false;

  constructor(
    private readonly look: Look,
    ids: Ids,
    private readonly decimals: (symbol: string, last: number) => number,
    choose: (symbol: string) => void,
  ) {
    const heading = ids.name(`h-${look.name}`, el("h2", "", look.title));
    this.head = el("div", "head", heading, this.note.element);
    this.element = attributes(el("section", "panel board", this.head, this.list, this.empty), { "aria-labelledby": heading.id });
    this.element.dataset["board"] = look.name;
    const least = look.columns.map((column) => WIDTHS[column]);
    this.element.style.setProperty("--cells", ["minmax(0, 1fr)", ...least].join(" "));
    this.element.style.setProperty("--major", ["minmax(0, 1fr)", ...least.filter((_, at) => look.columns[at] !== look.minor)].join(" "));
    roving(this.list);
    this.list.addEventListener("click", (event) => {
      const pressed = (event.target as HTMLElement).closest("button");
      const line = this.lines.find((candidate) => candidate.element.firstChild === pressed);
      if (pressed && line) choose(line.symbol);
    });
  }

  waitFor(text: string): void {
    if (this.empty.textContent !== text) this.empty.textContent = text;
  }

  set(document: BoardDocument): void {
    this.document = document;
    this.dirty = true;
  }

  /** Paint what changed; called in turn with other lists. */
  paint(now: number): void {
    this.flashes.expire(now);
    if (!this.dirty) return;
    this.dirty = false;
    const { rows } = this.document;
    const order = wantedOf(this.document.order, rows, this.look.wanted);
    const shown = Math.min(order.length, ROWS_SHOWN_MAX);
    while (this.lines.length < shown) this.lines.push(this.newLine());
    this.lines.forEach((line, at) => {
      line.element.hidden = at >= shown;
      if (at < shown) this.fill(line, at, order[at]!, rows[order[at]!] ?? {}, now);
    });
    this.ranks = new Map(order.slice(0, shown).map((symbol, at) => [symbol, at]));
    const all = this.document.order.length;
    this.note.set(order.length < all ? `${order.length} of ${all}` : all ? String(all) : "");
    this.empty.hidden = order.length > 0;
    if (all > 0) this.waitFor("None of the board's symbols is within the filter");
  }

  private fill(line: Line, at: number, symbol: string, row: BoardRow, now: number): void {
    const before = this.ranks.get(symbol);
    const change = row[this.look.measure] ?? row.change_pct ?? NaN;
    line.symbol = symbol;
    line.texts[0]!.set(short(symbol, NAME_LETTERS_MAX));
    this.look.columns.forEach((column, place) => line.texts[place + 1]!.set(this.text(column, symbol, row)));
    const tone = toneOf(change);
    if (tone !== line.tone) line.element.dataset["tone"] = line.tone = tone;
    const warmth = this.look.heat ? heat(change) : 0;
    if (warmth !== line.heat) line.element.dataset["heat"] = String((line.heat = warmth));
    if (this.ranks.size > 0 && before !== at) this.flashes.light(line.element, before === undefined || before > at ? 1 : -1, now);
    else if (this.ranks.size > 0) this.flashes.dark(line.element);
  }

  private text(column: Measure, symbol: string, row: BoardRow): string {
    const value = row[column] ?? (column === "gap_pct" ? row.change_pct : undefined) ?? NaN;
    if (column === "news_ts") return Number.isNaN(value) ? NONE : ageOf(pipelineNow() - value);
    if (PERCENTS.includes(column)) return percent(value);
    if (column === "rel_volume") return Number.isNaN(value) ? NONE : `${quantity(Number(value.toPrecision(3)))}×`;
    if (column !== "last" && column !== "change") return quantity(value);
    const places = this.decimals(symbol, row.last ?? NaN);
    if (column === "change") return signed(value, places);
    const shown = price(value, places);
    if (shown.length > PRICE_LETTERS_USUAL) this.element.dataset["wide"] = ""; // then there is room for one column less
    return shown;
  }

  private newLine(): Line {
    const { columns, minor } = this.look;
    const kinds = ["sym", ...columns.map((column) => kindOf(column) + (column === minor ? " minor" : ""))];
    const cells = kinds.map((kind) => el("span", `cell ${kind}`));
    const row = button("board-row", "");
    row.append(...cells);
    join(this.list, row);
    const element = el("li", "", row);
    this.list.append(element);
    return { element, texts: cells.map((cell) => new Text(cell)), symbol: "", tone: "", heat: 0 };
  }
}

function kindOf(column: Measure): string {
  return column === "last" ? "num" : TINTED.includes(column) ? "num tint" : "num dim";
}

/** Decimals for a price on a board: those of the quote table when it knows the symbol, else the price's own. */
export function boardDecimals(known: number | undefined, last: number): number {
  return known ?? Math.min(priceDecimals(decimalsOf(last)), Math.abs(last) >= 1 ? 4 : 10);
}
