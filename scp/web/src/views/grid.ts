// Paints the quote table as a scrolling grid of any length. Only the rows in view exist as elements, and they are reused.
// Invariant: one frame writes only cells whose text changed; sorting never happens while somebody scrolls.

import { el, showState, Text } from "../dom.ts";
import { Flashes } from "./flash.ts";
import { ageOf } from "./newspaper.ts";
import { pipelineNow } from "../data/clock.ts";
import { count, percent, price, quantity, short, signed } from "../format.ts";
import { ordered, type Sorting } from "../data/order.ts";
import { BITS, EVERYTHING, STATES, type Field, type QuoteTable } from "../data/quotes.ts";
import { join, roving } from "../roving.ts";

export const ROW_PX = 24;
const OVERSCAN = 4;
const SORT_MS = 1500; // re-sorting faster makes rows unreadable
const SCROLL_QUIET_MS = 400;
const NAME_LETTERS_MAX = 21; // an option's name
const MARGIN_PX = 8; // left and right of a row
const [CELL_PX, DIGIT_PX, MARK_PX, SIGN_PX] = [9, 7.4, 3, 7]; // measured: padding, a tabular digit, a point or comma, a sign

export interface Column {
  key: "symbol" | Field;
  title: string;
  about: string;
  /** Width in pixels at the narrowest; of prices and symbols what the widest one needs, when that is more. */
  px: number;
  show?: (x: number, decimals: number) => string;
  flashes?: boolean;
  tinted?: boolean;
  /** What a click on it opens of the symbol. */
  opens?: "news";
}

const AGE_MS = 20_000; // how often ages are written anew

export const COLUMNS: readonly Column[] = [
  { key: "symbol", title: "Symbol", about: "Symbol", px: 62 },
  { key: "last", title: "Last", about: "Last trade", px: 62, show: price, flashes: true },
  { key: "change", title: "Chg", about: "Change since the previous close", px: 56, show: signed, tinted: true },
  { key: "change_pct", title: "Chg %", about: "Change in percent", px: 60, show: (x) => percent(x), tinted: true },
  { key: "news_ts", title: "News", about: "Age of the newest news", px: 52, show: newsAge, opens: "news" },
  { key: "bid_size", title: "Bid sz", about: "Size at the bid", px: 46, show: (x) => quantity(x) },
  { key: "bid", title: "Bid", about: "Best bid", px: 62, show: price, flashes: true },
  { key: "ask", title: "Ask", about: "Best ask", px: 62, show: price, flashes: true },
  { key: "ask_size", title: "Ask sz", about: "Size at the ask", px: 46, show: (x) => quantity(x) },
  { key: "volume", title: "Volume", about: "Volume of the session", px: 54, show: (x) => quantity(x) },
  { key: "vwap", title: "VWAP", about: "Volume-weighted average price", px: 62, show: price },
  { key: "high", title: "High", about: "High of the session", px: 62, show: price },
  { key: "low", title: "Low", about: "Low of the session", px: 62, show: price },
  { key: "trades", title: "Trades", about: "Number of trades", px: 54, show: count },
];

interface Slot {
  element: HTMLElement;
  cells: HTMLElement[];
  texts: Text[];
  row: number;
  place: number;
  tone: string;
  state: number;
  chosen: boolean;
}

export class Grid {
  private readonly scroller = el("div", "grid-scroll");
  private readonly spacer = el("div", "grid-spacer");
  private readonly empty = el("p", "empty");
  private readonly resized = new ResizeObserver(() => this.resize());
  private readonly slots: Slot[] = [];
  private slotOf = new Int32Array(64).fill(-1);
  private order: Uint32Array = new Uint32Array(0);
  private readonly flashes = new Flashes();
  private readonly heads: HTMLElement[] = [];
  private readonly ages: boolean;
  private sortedAt = 0;
  private scrolledAt = 0;
  private sortNow = true;
  private rebind = true;
  private selectedSymbol = "";
  private selected = -1; // its row, once it is quoted
  private active = ""; // the id of the chosen row's element, while it is in view
  private viewRows = 0;
  private viewPx = 0;
  private aside = 0; // pixels scrolled to the right
  private asideMoves = false;
  private scrollTop = 0; // as the scroller last said: asking it in between would force a layout
  private version = -1;
  private agedAt = 0;
  private widths: readonly [number, number, number] = [0, 0, 0]; // of symbol, price, change

  constructor(
    private readonly root: HTMLElement,
    private readonly table: QuoteTable,
    private readonly choose: (symbol: string) => void,
    /** Called instead when somebody points at a row. */
    private readonly open: (symbol: string) => void = choose,
    private readonly columns: readonly Column[] = COLUMNS,
    private sorting: Sorting = { by: "volume", descending: true },
    /** The symbols to show; null = all. */
    private readonly only: ReadonlySet<string> | null = null,
    private readonly keepSorting: (sorting: Sorting) => void = () => {},
    /** Somebody clicked a cell that opens something else of the symbol than its chart. */
    private readonly openCell: (symbol: string, what: "news") => void = open,
  ) {
    this.ages = columns.some(({ key }) => key === "news_ts");
    root.setAttribute("role", "grid");
    root.setAttribute("aria-label", "Quotes");
    root.setAttribute("aria-keyshortcuts", this.ages ? "Enter N" : "Enter");
    root.setAttribute("aria-colcount", String(this.columns.length));
    root.tabIndex = 0;
    this.setWidths(0, 0, 0);
    this.scroller.append(this.headRow(), this.spacer);
    root.append(this.scroller, this.empty);
    this.scroller.addEventListener("scroll", () => this.onScroll(), { passive: true });
    this.spacer.addEventListener("click", (event) => this.onClick(event));
    root.addEventListener("keydown", (event) => this.onKey(event));
    this.resized.observe(this.scroller);
  }

  /** End: nothing is painted any more. */
  close(): void {
    this.resized.disconnect();
  }

  /** How many rows there are. */
  get size(): number {
    return this.order.length;
  }

  /** Text shown while there is no row. */
  waitFor(text: string): void {
    if (this.empty.textContent !== text) this.empty.textContent = text;
  }

  /** The symbol on top, if there is one. */
  get first(): string | undefined {
    return this.order.length > 0 ? this.table.symbols[this.order[0]!] : undefined;
  }

  /** Mark `symbol` as the chosen one. */
  select(symbol: string): void {
    this.selectedSymbol = symbol;
    this.rebind = true;
  }

  /** The symbols of the rows in view, and of a few above and below. */
  *inView(): Iterable<string> {
    for (const { row } of this.slots) if (row >= 0) yield this.table.symbols[row]!;
  }

  /** Paint what the hand did; called each frame. */
  paint(now: number): void {
    if (this.sortNow) this.sort(now);
    if (this.asideMoves && now - this.scrolledAt > SCROLL_QUIET_MS) this.restAside();
    if (this.rebind) this.bindAll();
  }

  /** Paint what the market did; called in turn with the other views of it. A new order is bound by the frame after. */
  paintChanges(now: number): void {
    if (this.version !== this.table.version) this.onNewSymbols(now);
    if (this.sortDue(now)) this.sort(now);
    this.flashes.expire(now);
    if (this.ages && now - this.agedAt > AGE_MS) this.growOld(now);
  }

  /** Ages grow by themselves. */
  private growOld(now: number): void {
    this.agedAt = now;
    for (const slot of this.slots) if (slot.row >= 0) this.fill(slot, 0, BITS.news_ts);
  }

  /** These fields of a row have changed. */
  changed(row: number, bits: number, now: number): void {
    const at = this.slotOf[row] ?? -1;
    if (at >= 0) this.fill(this.slots[at]!, now, bits);
  }

  private onNewSymbols(now: number): void {
    this.version = this.table.version;
    if (this.slotOf.length < this.table.size) {
      const larger = new Int32Array(this.table.size * 2).fill(-1);
      larger.set(this.slotOf);
      this.slotOf = larger;
    }
    if (now - this.sortedAt > 250) this.sortNow = true;
    else this.version = -1; // a burst of new symbols: look again next frame, sort a few times a second
      }

  private sortDue(now: number): boolean {
    if (this.sorting.by === "symbol" || now - this.scrolledAt < SCROLL_QUIET_MS) return false;
    return now - this.sortedAt > SORT_MS;
  }

  private sort(now: number): void {
    this.sortNow = false;
    this.sortedAt = now;
    const order = ordered(this.table, this.sorting, this.only);
    const same = sameOrder(order, this.order);
    this.order = order;
    this.widen();
    this.empty.hidden = order.length > 0;
    if (same) return;
    this.spacer.style.height = `${order.length * ROW_PX}px`;
    this.root.setAttribute("aria-rowcount", String(order.length + 1));
    this.rebind = true;
  }

  /** Give symbols, prices and changes the room that the widest one needs: a cut price is a wrong price. */
  private widen(): void {
    const { symbols, columns, decimals } = this.table;
    let [symbolPx, pricePx, changePx] = this.widths;
    for (let at = 0; at < (this.only ? this.order.length : symbols.length); at++) {
      const row = this.only ? this.order[at]! : at;
      const places = decimals[row]!;
      symbolPx = Math.max(symbolPx, Math.min(symbols[row]!.length, NAME_LETTERS_MAX) * 8.2 + 8);
      pricePx = Math.max(pricePx, widthOf(columns.ask[row]!, places), widthOf(columns.last[row]!, places));
      changePx = Math.max(changePx, widthOf(columns.change[row]!, places) + SIGN_PX);
    }
    if (symbolPx + pricePx + changePx > this.widths[0] + this.widths[1] + this.widths[2]) this.setWidths(symbolPx, pricePx, changePx);
  }

  private setWidths(symbolPx: number, pricePx: number, changePx: number): void {
    this.widths = [symbolPx, pricePx, changePx];
    const widths = this.columns.map((column) => {
      const needs = column.key === "symbol" ? symbolPx : column.show === price ? pricePx : column.show === signed ? changePx : 0;
      return Math.ceil(Math.max(column.px, needs)) + (column.key === "symbol" ? MARGIN_PX : 0);
    });
    this.root.style.setProperty("--columns", widths.map((px) => `minmax(${px}px, ${px}fr)`).join(" "));
    this.root.style.setProperty("--grid-width", `${widths.reduce((sum, px) => sum + px, 0) + MARGIN_PX}px`);
  }

  private bindAll(): void {
    this.rebind = false;
    this.selected = this.table.row(this.selectedSymbol);
    const first = Math.max(0, Math.floor(this.scrollTop / ROW_PX) - OVERSCAN);
    const wanted = Math.min(this.viewRows + 2 * OVERSCAN, this.order.length);
    while (this.slots.length < wanted) this.slots.push(this.newSlot());
    for (const slot of this.slots) if (slot.row >= 0) this.slotOf[slot.row] = -1;
    // Place p always lives in slot p mod n: scrolling by one row rebinds one element, not all of them.
    const n = Math.max(1, this.slots.length);
    const before = this.active;
    this.active = "";
    for (let place = first; place < first + this.slots.length; place++) this.bind(this.slots[place % n]!, place % n, place);
    if (this.active !== before) this.root.setAttribute("aria-activedescendant", this.active);
  }

  private bind(slot: Slot, at: number, place: number): void {
    const row = place < this.order.length ? this.order[place]! : -1;
    if (slot.place !== place) {
      slot.place = place;
      slot.element.style.top = `${place * ROW_PX}px`;
      slot.element.setAttribute("aria-rowindex", String(place + 2));
    }
    const other = slot.row !== row;
    if (other) {
      slot.row = row;
      slot.element.hidden = row < 0;
      for (const cell of slot.cells) this.flashes.dark(cell);
    }
    if (row < 0) return;
    this.slotOf[row] = at;
    const chosen = row === this.selected;
    if (chosen !== slot.chosen) slot.element.setAttribute("aria-selected", String((slot.chosen = chosen)));
    if (chosen) this.active = slot.element.id;
    if (other) this.fill(slot, 0, EVERYTHING);
  }

  private fill(slot: Slot, now: number, bits: number): void {
    const { row, cells, texts } = slot;
    const { table } = this;
    const decimals = table.decimals[row]!;
    if (bits === EVERYTHING) texts[0]!.set(short(table.symbols[row]!, NAME_LETTERS_MAX));
    for (let at = 1; at < this.columns.length; at++) {
      const column = this.columns[at]!;
      const key = column.key as Field;
      if ((bits & BITS[key]) === 0) continue;
      texts[at]!.set(column.show!(table.columns[key][row]!, decimals));
      if (column.flashes && now > 0 && now - table.movedAt[key]![row]! < 120) {
        this.flashes.light(cells[at]!, table.direction[key]![row]!, now);
      }
    }
    const state = table.states[row]!;
    if (state !== slot.state || state !== 0) {
      slot.state = state;
      showState(slot.element, STATES[state]!, table.reason(row));
    }
    const tone = toneOf(table.columns.change[row]!);
    if (tone !== slot.tone) {
      slot.tone = tone;
      slot.element.dataset["tone"] = tone;
    }
  }

  private newSlot(): Slot {
    const cells = this.columns.map((column) => {
      const cell = el("span", column.opens ? "cell opens" : column.tinted ? "cell tint" : column.flashes ? "cell lights" : "cell");
      cell.setAttribute("role", column.key === "symbol" ? "rowheader" : "gridcell");
      return cell;
    });
    const element = el("div", "grid-row", ...cells);
    element.setAttribute("role", "row");
    element.setAttribute("aria-selected", "false");
    element.id = `${this.root.id}-row-${this.slots.length}`;
    this.spacer.append(element);
    return { element, cells, texts: cells.map((cell) => new Text(cell)), row: -1, place: -1, tone: "", state: 0, chosen: false };
  }

  private headRow(): HTMLElement {
    const row = el("div", "grid-head");
    row.setAttribute("role", "row");
    for (const column of this.columns) {
      const button = el("button", "", column.title) as HTMLButtonElement;
      button.type = "button";
      button.title = `${column.about}: sort${column.opens ? "; the key N opens that of the chosen row" : ""}`;
      join(row, button);
      const head = el("span", "cell", button);
      head.setAttribute("role", "columnheader");
      button.addEventListener("click", () => this.sortBy(column.key));
      this.heads.push(head);
      row.append(head);
    }
    roving(row, true);
    this.markSorting();
    return row;
  }

  private sortBy(by: Sorting["by"]): void {
    const descending = this.sorting.by === by ? !this.sorting.descending : by !== "symbol";
    this.sorting = { by, descending };
    this.keepSorting(this.sorting);
    this.sortNow = true;
    this.scrollTo(0);
    this.markSorting();
  }

  private markSorting(): void {
    this.columns.forEach((column, at) => {
      const sorted = column.key === this.sorting.by ? (this.sorting.descending ? "descending" : "ascending") : "none";
      this.heads[at]!.setAttribute("aria-sort", sorted);
    });
  }

  private onScroll(): void {
    this.scrolledAt = performance.now();
    const { scrollTop, scrollLeft } = this.scroller;
    this.scrollTop = scrollTop;
    if (scrollLeft !== this.aside) this.moveAside(scrollLeft);
    this.rebind = true;
  }

  /**
   * The symbols stay in view when somebody scrolls to the right. They are `sticky` only while that moves: each sticky cell is a
   * paint chunk of its own (measured: 550 ms/s of Layerize instead of 130). At rest they are shifted, which looks the same.
   */
  private moveAside(px: number): void {
    this.aside = px;
    this.asideMoves = px > 0;
    if (px > 0) this.root.dataset["aside"] = "moves";
    else delete this.root.dataset["aside"];
  }

  private restAside(): void {
    this.asideMoves = false;
    this.root.style.setProperty("--aside", `${this.aside}px`);
    this.root.dataset["aside"] = "rests";
  }

  private resize(): void {
    const { clientHeight } = this.scroller;
    this.viewPx = clientHeight;
    this.viewRows = Math.ceil(clientHeight / ROW_PX);
    this.rebind = true;
  }

  private onClick(event: Event): void {
    const element = (event.target as HTMLElement).closest(".grid-row");
    const slot = this.slots.find((candidate) => candidate.element === element);
    if (!slot || slot.row < 0) return;
    const at = slot.cells.findIndex((cell) => cell.contains(event.target as Node));
    const symbol = this.table.symbols[slot.row]!;
    const opens = this.columns[at]?.opens;
    if (opens && !Number.isNaN(this.table.columns.news_ts[slot.row]!)) this.openCell(symbol, opens);
    else this.open(symbol);
  }

  private onKey(event: KeyboardEvent): void {
    if (event.target === this.root && !event.ctrlKey && !event.metaKey && !event.altKey) this.openByKey(event);
    const step = { ArrowDown: 1, ArrowUp: -1, PageDown: this.viewRows - 2, PageUp: 2 - this.viewRows }[event.key];
    if (step === undefined || this.order.length === 0) return;
    event.preventDefault();
    const from = this.order.indexOf(this.table.row(this.selectedSymbol));
    const place = Math.min(Math.max(from + step, 0), this.order.length - 1);
    this.choose(this.table.symbols[this.order[place]!]!);
    this.reveal(place);
  }

  /** What a click does: Enter opens the chosen symbol, N its news, where the column is shown and there are some. */
  private openByKey({ key }: KeyboardEvent): void {
    const row = this.table.row(this.selectedSymbol);
    if (row < 0) return;
    if (key === "Enter") this.open(this.selectedSymbol);
    else if (key.toLowerCase() === "n" && this.ages && !Number.isNaN(this.table.columns.news_ts[row]!)) this.openCell(this.selectedSymbol, "news");
  }

  private reveal(place: number): void {
    const top = place * ROW_PX;
    const shown = this.viewPx - 2 * ROW_PX; // the header row and one more
    if (top < this.scrollTop) this.scrollTo(top);
    else if (top > this.scrollTop + shown) this.scrollTo(top - shown);
  }

  private scrollTo(top: number): void {
    this.scrollTop = top;
    this.scroller.scrollTop = top;
    this.rebind = true;
  }
}

/** How old news are that were published then. */
function newsAge(ms: number): string {
  return Number.isNaN(ms) ? "" : ageOf(pipelineNow() - ms);
}

/** "up", "down" or "flat": the colour of a change. */
export function toneOf(change: number): string {
  return change > 0 ? "up" : change < 0 ? "down" : "flat";
}

/** Pixels that a number takes in a cell of the 12 px font, without its sign: it is asked for every row, so nothing is formatted. */
function widthOf(x: number, decimals: number): number {
  if (Number.isNaN(x)) return CELL_PX;
  let digits = 1;
  for (let whole = Math.abs(x) + 0.5 * 10 ** -decimals; whole >= 10; whole /= 10) digits++;
  const marks = Math.floor((digits - 1) / 3) + (decimals > 0 ? 1 : 0);
  return CELL_PX + (digits + decimals) * DIGIT_PX + marks * MARK_PX;
}

function sameOrder(a: Uint32Array, b: Uint32Array): boolean {
  if (a.length !== b.length) return false;
  for (let at = 0; at < a.length; at++) if (a[at] !== b[at]) return false;
  return true;
}
