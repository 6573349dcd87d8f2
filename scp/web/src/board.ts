// Paints a board's rows in their order as one ranked table.

import { el, Text } from "./dom.ts";
import { Flashes } from "./flash.ts";
import { decimalsOf, percent, price, priceDecimals, quantity, short } from "./format.ts";
import { toneOf } from "./grid.ts";
import { join, roving } from "./roving.ts";

export interface BoardRow {
  sym?: string;
  last?: number | null;
  change?: number | null;
  change_pct?: number | null;
  gap_pct?: number | null;
  volume?: number | null;
}

export interface BoardDocument {
  order: readonly string[];
  rows: Readonly<Record<string, BoardRow>>;
}

const ROWS_SHOWN_MAX = 25;
const NAME_LETTERS_MAX = 10;
const PRICE_LETTERS_USUAL = 8;

interface Line {
  element: HTMLElement;
  texts: Text[];
  symbol: string;
  tone: string;
}

export class Board {
  readonly element: HTMLElement;
  private readonly list = el("ol", "board-list");
  private readonly empty = el("p", "empty");
  private readonly note = new Text(el("span", "note"));
  private readonly lines: Line[] = [];
  private readonly flashes = new Flashes();
  private ranks = new Map<string, number>();
  private document: BoardDocument = { order: [], rows: {} };
  private dirty = false;

  constructor(
    readonly name: string,
    title: string,
    private readonly measure: "gap_pct" | "change_pct",
    private readonly decimals: (symbol: string, last: number) => number,
    choose: (symbol: string) => void,
  ) {
    const heading = el("h2", "", title);
    heading.id = `h-${name}`;
    this.element = el("section", "panel board", el("div", "head", heading, this.note.element), this.list, this.empty);
    this.element.dataset["board"] = name;
    this.element.setAttribute("aria-labelledby", heading.id);
    roving(this.list);
    this.list.addEventListener("click", (event) => {
      const button = (event.target as HTMLElement).closest("button");
      const line = this.lines.find((candidate) => candidate.element.firstChild === button);
      if (button && line) choose(line.symbol);
    });
  }

  waitFor(text: string): void {
    if (this.empty.textContent !== text) this.empty.textContent = text;
  }

  set(document: BoardDocument): void {
    this.document = document;
    this.dirty = true;
  }

  /** Paint what changed; called once a frame. */
  paint(now: number): void {
    this.flashes.expire(now);
    if (!this.dirty) return;
    this.dirty = false;
    const { order, rows } = this.document;
    const shown = Math.min(order.length, ROWS_SHOWN_MAX);
    while (this.lines.length < shown) this.lines.push(this.newLine());
    this.lines.forEach((line, at) => {
      line.element.hidden = at >= shown;
      if (at < shown) this.fill(line, at, order[at]!, rows[order[at]!] ?? {}, now);
    });
    this.ranks = new Map(order.slice(0, shown).map((symbol, at) => [symbol, at]));
    this.note.set(order.length ? String(order.length) : "");
    this.empty.hidden = order.length > 0;
  }

  private fill(line: Line, at: number, symbol: string, row: BoardRow, now: number): void {
    const last = row.last ?? NaN;
    const change = row[this.measure] ?? row.change_pct ?? NaN;
    const before = this.ranks.get(symbol);
    line.symbol = symbol;
    line.texts[0]!.set(short(symbol, NAME_LETTERS_MAX));
    const shown = price(last, this.decimals(symbol, last));
    if (shown.length > PRICE_LETTERS_USUAL) this.element.dataset["wide"] = ""; // then there is room for three columns only
    line.texts[1]!.set(shown);
    line.texts[2]!.set(percent(change));
    line.texts[3]!.set(quantity(row.volume ?? NaN));
    const tone = toneOf(change);
    if (tone !== line.tone) line.element.dataset["tone"] = line.tone = tone;
    if (this.ranks.size > 0 && before !== at) this.flashes.light(line.element, before === undefined || before > at ? 1 : -1, now);
    else if (this.ranks.size > 0) this.flashes.dark(line.element);
  }

  private newLine(): Line {
    const cells = ["sym", "num", "num tint", "num dim"].map((kind) => el("span", `cell ${kind}`));
    const button = el("button", "board-row", ...cells) as HTMLButtonElement;
    button.type = "button";
    join(this.list, button);
    const element = el("li", "", button);
    this.list.append(element);
    return { element, texts: cells.map((cell) => new Text(cell)), symbol: "", tone: "" };
  }
}

/** Decimals for a price on a board: those of the quote table when it knows the symbol, else the price's own. */
export function boardDecimals(known: number | undefined, last: number): number {
  return known ?? Math.min(priceDecimals(decimalsOf(last)), Math.abs(last) >= 1 ? 4 : 10);
}
