// Shows the chosen instrument's row of the quote table, its trading state, and whether the quote is fresh.

import { attributes, el, type Ids, showState, Text } from "../dom.ts";
import { Flashes } from "./flash.ts";
import { amount, count, NONE, percent, price, quantity, signed } from "../format.ts";
import { toneOf } from "./grid.ts";
import { STATES, type QuoteTable } from "../data/quotes.ts";

const PRICES = ["last", "bid", "ask", "open", "high", "low", "prev_close", "vwap"] as const;
const FACTS = [
  ["open", "Open"], ["high", "High"], ["low", "Low"], ["prev_close", "Prev close"], ["vwap", "VWAP"], ["volume", "Volume"], ["trades", "Trades"],
] as const; // prettier-ignore
const SIZES = ["bid_size", "ask_size"] as const;

export interface HaltDocument {
  state?: string | null;
  high_band?: number | null;
  low_band?: number | null;
}

export class Ticket {
  readonly element = el("div", "ticket");
  readonly heading = el("h2", "", NONE);
  private readonly texts = new Map<string, Text>();
  private readonly flashes = new Flashes();
  private halt: HaltDocument = {};
  private symbol = "";
  private noted = "";
  private revision = -1; // of the row, as it was painted last

  constructor(
    private readonly table: QuoteTable,
    ids: Ids,
  ) {
    ids.name("ticket", this.element);
    ids.name("i-symbol", this.heading);
    const named = (tag: string, name: string, className = "", known = "") => {
      const made = ids.name(`i-${name}`, el(tag, className, ...(known ? [known] : [])));
      this.texts.set(name, new Text(made));
      return made;
    };
    this.texts.set("symbol", new Text(this.heading));
    const halt = attributes(named("span", "halt", "halt"), { hidden: "" });
    const side = (name: string, title: string) =>
      el("div", `side ${name}`, el("span", "label", title), named("b", name, "", NONE), named("span", `${name}_size`, "size"));
    const facts = FACTS.map(([name, title]) => el("div", "", el("dt", "", title), named("dd", name, "", NONE)));
    this.element.append(
      el("div", "who", this.heading, halt),
      el("div", "price", named("span", "last", "i-last", NONE), named("span", "change", "i-change")),
      side("bid", "Bid"), side("ask", "Ask"), el("dl", "facts", ...facts),
    ); // prettier-ignore
  }

  show(symbol: string): void {
    this.symbol = symbol;
    this.noted = "";
    this.revision = -1;
    this.halt = {};
    this.text("symbol").set(symbol || NONE);
  }

  /** Say something of a symbol that has no quote. */
  note(text: string): void {
    this.noted = text;
  }

  /** The halt channel's word on the shown symbol. */
  halts(document: HaltDocument): void {
    this.halt = document;
    this.revision = -1;
  }

  /** Paint what changed; called once a frame. */
  paint(now: number): void {
    this.flashes.expire(now);
    const row = this.table.row(this.symbol);
    const revision = row < 0 ? -1 : this.table.revisions[row]!;
    if (revision === this.revision && revision >= 0) return;
    this.revision = revision;
    this.paintHalt();
    showState(this.element, STATES[this.table.states[row] ?? 0]!, this.table.reason(row));
    if (row < 0) {
      for (const [name, text] of this.texts) if (name !== "symbol") text.set(name === "change" || name.endsWith("_size") ? "" : NONE);
      this.text("change").set(this.noted);
      this.tint("flat"); // of the symbol before
      return;
    }
    const { columns } = this.table;
    const decimals = this.table.decimals[row]!;
    for (const field of PRICES) this.text(field).set(price(columns[field][row]!, decimals));
    const lots = this.table.sizeDecimals[row]!;
    for (const field of SIZES) this.text(field).set(Number.isNaN(columns[field][row]!) ? "" : amount(columns[field][row]!, lots));
    this.text("volume").set(quantity(columns.volume[row]!));
    this.text("trades").set(count(columns.trades[row]!));
    this.paintChange(columns.change[row]!, columns.change_pct[row]!, decimals);
    if (now - this.table.movedAt["last"]![row]! < 100) {
      this.flashes.light(this.text("last").element, this.table.direction["last"]![row]!, now);
    }
  }

  private paintChange(change: number, changePct: number, decimals: number): void {
    const known = !Number.isNaN(change);
    this.text("change").set(known ? `${signed(change, decimals)}  ${percent(changePct)}` : "no previous close");
    this.tint(toneOf(change));
  }

  private tint(tone: string): void {
    if (this.element.dataset["tone"] !== tone) this.element.dataset["tone"] = tone;
  }

  private paintHalt(): void {
    const { state, low_band: low, high_band: high } = this.halt;
    const bands = low != null && high != null ? `LULD ${low}–${high}` : "";
    const halted = state != null && state !== "trading";
    const badge = this.text("halt");
    badge.set(halted ? state.toUpperCase() : bands);
    badge.element.hidden = !halted && !bands;
    if (badge.element.classList.contains("on") !== halted) badge.element.classList.toggle("on", halted);
  }

  private text(name: string): Text {
    return this.texts.get(name)!;
  }
}
