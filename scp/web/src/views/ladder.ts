// Paints the chosen symbol's book as a ladder of prices: asks above, bids below, the spread and the last price between them.
// Invariant: prices stand still while sizes change: every rung has its place, empty or not; a frame writes only what changed.

import { decimalsOfBook, depth, LEVELS_MAX, NO_DEPTH, type BookDocument, type Depth, type Measure, type Rung } from "../data/depth.ts";
import { attributes, button, el, type Ids, showState, Text } from "../dom.ts";
import { age, amount, price, priceDecimals } from "../format.ts";
import { toneOf } from "./grid.ts";
import type { QuoteTable } from "../data/quotes.ts";
import { radios } from "../roving.ts";

const ROW_PX = 20;
const LETTER_PX = 7.2; // a tabular digit of the 12 px font; points and commas are narrower
const PRICE_PX_MIN = 76;
const PRICE_PADDING_PX = 14;
const MEASURES = [["size", "Size"], ["sum", "Sum"]] as const;
const QUIET_MS = 5_000; // a book that is older than the newest market data by more says so
const ARROWS: Readonly<Record<string, string>> = { up: "▲ ", down: "▼ ", flat: "" };

interface Row {
  element: HTMLElement;
  price: Text;
  size: Text;
  at: number;
  bar: number;
  state: string;
}

export class Ladder {
  readonly element = el("section", "panel depth");
  readonly head: HTMLElement;
  readonly table = el("div", "ladder");
  private readonly note: Text;
  private readonly empty: Text;
  private readonly middle: HTMLElement;
  private readonly last: Text;
  private readonly spread: Text;
  private readonly balance: HTMLElement;
  private readonly bidShare: Text;
  private readonly askShare: Text;
  private readonly switches: HTMLButtonElement[];
  private bids: Row[] = [];
  private asks: Row[] = [];
  private readonly resized: ResizeObserver;
  private symbol = "";
  private document: BookDocument | null = null;
  private decimals = { price: 0, size: 0 };
  private dirty = false;
  private lastShown = NaN;
  private bidPercent = NaN;
  private letters = { price: 0, size: 0 }; // of the longest ones

  constructor(
    private readonly quotes: QuoteTable,
    /** Time of the newest market data, ms since the epoch. */
    private readonly newestAt: () => number,
    ids: Ids,
    /** Called when it appears or gives up its room. */
    private readonly turned: (shown: boolean) => void,
    private readonly keep: (measure: Measure) => void,
    /** Somebody clicked a rung. */
    private readonly picked: (price: number, side: "Buy" | "Sell") => void,
    private measure: Measure = "size",
    /** Whether it is there for a symbol without a book, too. */
    private readonly always = false,
  ) {
    const say = (tag: string, name: string, role = "") => ids.name(name, attributes(el(tag), role ? { role } : {}));
    this.switches = MEASURES.map(([measure, title]) => {
      const made = button("", title, () => this.setMeasure(measure));
      made.dataset["measure"] = measure;
      return attributes(made, { role: "radio", "aria-checked": String(measure === this.measure) });
    });
    const sizes = attributes(el("div", "switch", ...this.switches), { role: "radiogroup", "aria-label": "Sizes beside the prices" });
    const heading = ids.name("h-depth", el("h2", "", "Depth"));
    const note = ids.name("depth-note", el("span", "note"));
    this.head = el("div", "head", heading, sizes, note);
    const [last, spread, bids, asks, empty] = [say("b", "l-last", "rowheader"), say("span", "l-spread", "cell"), say("span", "l-bids"), say("span", "l-asks"), say("p", "depth-empty")];
    spread.setAttribute("aria-colspan", "2");
    empty.className = "empty";
    this.middle = attributes(ids.name("l-middle", el("div", "middle", last, spread)), { role: "row" });
    const titles = ["Bids", "Price", "Asks"].map((title) => attributes(el("span", "", title), { role: "columnheader" }));
    this.table.append(attributes(el("div", "rungs-head", ...titles), { role: "row" }), this.middle);
    ids.name("ladder", this.table).setAttribute("role", "table");
    this.balance = ids.name("l-balance", el("div", "balance", bids, attributes(el("i"), { "aria-hidden": "true" }), asks));
    this.balance.title = "Share of bids and asks in the sizes shown";
    ids.name("depth", this.element).append(this.head, this.table, this.balance, empty);
    attributes(this.element, { "aria-labelledby": heading.id });
    this.element.hidden = true;
    this.table.addEventListener("click", ({ target }) => this.pick(target as HTMLElement));
    [this.note, this.empty, this.last, this.spread, this.bidShare, this.askShare] = [note, empty, last, spread, bids, asks].map((one) => new Text(one)) as [Text, Text, Text, Text, Text, Text];
    radios(sizes);
    this.resized = new ResizeObserver(() => this.resize());
    this.resized.observe(this.table);
  }

  /** End: nothing is painted any more. */
  close(): void {
    this.resized.disconnect();
  }

  get shown(): boolean {
    return !this.element.hidden;
  }

  /** Show `symbol` from now on. `expected` = it is known to have a book: its place is kept free until that comes. */
  show(symbol: string, expected: boolean): void {
    this.symbol = symbol;
    this.document = null;
    this.decimals = { price: 0, size: 0 };
    this.lastShown = NaN;
    this.letters = { price: 0, size: 0 };
    this.dirty = true;
    this.table.setAttribute("aria-label", `Order book of ${symbol}: asks above, bids below`);
    this.mark("live", "");
    this.open(expected);
  }

  /** The book as it is now. */
  take(document: BookDocument): void {
    this.document = document;
    const { price, size } = decimalsOfBook(document);
    this.decimals = { price: Math.max(this.decimals.price, price), size: Math.max(this.decimals.size, size) };
    this.dirty = true;
    this.open(true);
  }

  /** The stream's word on the book. */
  mark(state: string, reason: string): void {
    showState(this.element, state, reason);
  }

  setMeasure(measure: Measure): void {
    if (measure !== this.measure) this.keep(measure);
    this.measure = measure;
    this.dirty = true;
    for (const button of this.switches) button.setAttribute("aria-checked", String(button.dataset["measure"] === measure));
  }

  private pick(target: HTMLElement): void {
    const element = target.closest(".rung");
    const row = [...this.bids, ...this.asks].find((one) => one.element === element);
    if (row && row.state !== "none") this.picked(row.at, this.bids.includes(row) ? "Buy" : "Sell");
  }

  /** The other measure. */
  turn(): void {
    this.setMeasure(this.measure === "size" ? "sum" : "size");
  }

  /** Paint what changed; called once a frame. */
  paint(): void {
    if (this.element.hidden) return;
    this.paintNote();
    const row = this.quotes.row(this.symbol);
    const last = row < 0 ? NaN : this.quotes.columns.last[row]!;
    if (!this.dirty && Object.is(last, this.lastShown)) return;
    this.dirty = false;
    this.lastShown = last;
    const tone = toneOf(row < 0 ? 0 : this.quotes.direction["last"]![row]!);
    const decimals = Math.max(priceDecimals(this.decimals.price), row < 0 ? 0 : this.quotes.decimals[row]!);
    const made = this.document ? depth(this.document, this.bids.length, this.measure) : NO_DEPTH;
    this.widen(made, decimals);
    this.bids.forEach((rung, at) => this.fill(rung, made.bids[at], decimals, last));
    this.asks.forEach((rung, at) => this.fill(rung, made.asks[at], decimals, last));
    this.last.set(Number.isNaN(last) ? "" : ARROWS[tone]! + price(last, decimals));
    if (this.middle.dataset["tone"] !== tone) this.middle.dataset["tone"] = tone;
    this.spread.set(spreadText(made.spread, made.spreadPoints, decimals));
    this.paintBalance(made.bidShare);
    this.paintEmpty(made);
  }

  private open(wanted: boolean): void {
    const shown = wanted || this.always;
    if (this.element.hidden === !shown) return;
    this.element.hidden = !shown;
    this.turned(shown);
  }

  private paintNote(): void {
    const quietMs = this.newestAt() - (this.document?.ts ?? NaN);
    this.note.set(quietMs > QUIET_MS ? `changed ${age(quietMs)} ago` : "");
  }

  private paintBalance(share: number): void {
    const percent = Math.round(100 * share);
    const known = !Number.isNaN(share);
    if (Object.is(percent, this.bidPercent)) return;
    this.bidPercent = percent;
    this.bidShare.set(known ? `${percent}% bids` : "");
    this.askShare.set(known ? `${100 - percent}% asks` : "");
    this.balance.style.setProperty("--bids", `${known ? percent : 50}%`);
  }

  private paintEmpty({ bids, asks }: Depth): void {
    if (!this.document) this.empty.set(this.symbol ? `Waiting for the book of ${this.symbol}` : "The book of a symbol appears here once one is chosen");
    else this.empty.set(bids.length + asks.length > 0 ? "" : "No orders in this book");
  }

  /** Give prices and sizes the room that the longest one needs; it never shrinks while one symbol is shown. */
  private widen({ bids, asks }: Depth, decimals: number): void {
    const prices = [bids[0], asks.at(-1)].map((rung) => (rung ? price(rung.price, decimals).length : 0));
    const sizes = asks.map((rung) => amount(rung.shown, this.decimals.size).length);
    const [priceMost, sizeMost] = [Math.max(this.letters.price, ...prices), Math.max(this.letters.size, ...sizes)];
    if (priceMost === this.letters.price && sizeMost === this.letters.size) return;
    this.letters = { price: priceMost, size: sizeMost };
    const pricePx = Math.max(PRICE_PX_MIN, Math.ceil(priceMost * LETTER_PX + PRICE_PADDING_PX));
    this.table.style.setProperty("--price-px", `${pricePx}px`);
    this.table.style.setProperty("--size-px", `${Math.ceil(sizeMost * LETTER_PX)}px`);
  }

  private fill(row: Row, rung: Rung | undefined, decimals: number, last: number): void {
    const state = rung === undefined ? "none" : rung.price === last ? "last" : "";
    if (row.state !== state) row.element.dataset["rung"] = row.state = state;
    if (rung === undefined) return;
    row.at = rung.price;
    row.price.set(price(rung.price, decimals));
    row.size.set(amount(rung.shown, this.decimals.size));
    if (row.bar !== rung.bar) {
      row.bar = rung.bar;
      row.size.element.style.backgroundSize = `${rung.bar}% 100%`;
    }
  }

  /** As many rungs as there is room for, the same number on both sides. */
  private resize(): void {
    const free = this.table.clientHeight - this.middle.offsetHeight - this.table.firstElementChild!.clientHeight;
    const levels = Math.min(LEVELS_MAX, Math.floor(free / 2 / ROW_PX));
    if (levels === this.bids.length || levels < 1) return;
    for (const row of [...this.bids, ...this.asks]) row.element.remove();
    this.bids = Array.from({ length: levels }, () => newRow("bid"));
    this.asks = Array.from({ length: levels }, () => newRow("ask"));
    this.middle.before(...this.asks.map((row) => row.element).reverse()); // the best one lowest
    this.middle.after(...this.bids.map((row) => row.element));
    this.dirty = true;
  }
}

function newRow(side: "bid" | "ask"): Row {
  const [bid, middle, ask] = [cell("cell"), cell("rowheader"), cell("cell")];
  const element = el("div", `rung ${side}`, bid, middle, ask);
  element.setAttribute("role", "row");
  element.dataset["rung"] = "none";
  return { element, price: new Text(middle), size: new Text(side === "bid" ? bid : ask), at: NaN, bar: -1, state: "none" };
}

function cell(role: string): HTMLElement {
  const made = el("span", "cell");
  made.setAttribute("role", role);
  return made;
}

function spreadText(spread: number, points: number, decimals: number): string {
  if (Number.isNaN(spread)) return "";
  return `Spread ${price(spread, decimals)} · ${points.toFixed(Math.abs(points) < 10 ? 2 : 1)} bp`;
}
