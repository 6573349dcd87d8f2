// Time and sales of one symbol: its newest prints.

import type { Subscription } from "../data/stream.ts";
import { attributes, el, showState, Text } from "../dom.ts";
import { amount, clock, decimalsOf, price } from "../format.ts";
import { Roll } from "../views/roll.ts";
import { number, type Kind, type Place, type Widget } from "./widget.ts";

interface Print {
  price: number;
  size: number | null;
  ts: number;
  exchange?: number | string | null;
  conditions?: readonly (number | string)[] | null;
}

type Toned = Print & { tone: string };
const SHOWN_MAX = 50;
const PRINT_HZ = 10;

export class Prints implements Widget {
  readonly element: HTMLElement;
  readonly head: HTMLElement;
  count = 0;
  private readonly note: Text;
  private readonly roll: Roll<Toned>;
  private readonly sizeLeast: number;
  private subscription: Subscription | null = null;
  private symbol = "";
  private lastPrice = NaN;
  private sizeDecimals = 0;

  constructor(private readonly place: Place) {
    const { ids } = place;
    this.sizeLeast = number(place.settings, "size_least", 0);
    const heading = ids.name("h-prints", el("h2", "", "Prints"));
    const note = ids.name("prints-note", el("span", "note"));
    this.note = new Text(note);
    const box = ids.name("prints", el("div", "roll"));
    this.head = el("div", "head", heading, note);
    this.element = attributes(ids.name("prints-panel", el("section", "panel prints", this.head, box)), { "aria-labelledby": heading.id });
    this.roll = new Roll(box, "Recent prints", 5, SHOWN_MAX, (print) => this.line(print));
    this.roll.waitFor("Prints appear here once a symbol is chosen");
  }

  show(symbol: string): void {
    this.symbol = symbol;
    this.subscription?.close();
    this.subscription = null;
    this.roll.clear();
    this.unquoted(false);
    this.note.set(symbol);
    showState(this.element, "live", "");
    this.lastPrice = NaN;
    this.sizeDecimals = 0;
    this.count = 0;
  }

  follow(symbol: string): void {
    this.subscription?.close();
    this.subscription = this.place.market.stream.subscribe([`trades:${symbol}`], { hz: PRINT_HZ }, {
      snapshot: (_, data) => {
        this.roll.clear();
        for (const print of data as Print[]) this.add(print);
      },
      event: (_, data) => this.add(data as Print),
      status: (_, state, reason) => showState(this.element, state, reason),
      lost: (_, n) => this.note.set(`${symbol}, ${n} skipped`),
    });
  }

  unquoted(unquoted: boolean): void {
    const least = this.sizeLeast > 0 ? ` of at least ${this.sizeLeast}` : "";
    this.roll.waitFor(unquoted ? `No prints of ${this.symbol}` : `Waiting for the first print of ${this.symbol}${least}`);
  }

  paint(): void {
    this.roll.paint();
  }

  close(): void {
    this.subscription?.close();
  }

  private add(print: Print): void {
    const tone = print.price > this.lastPrice ? "up" : print.price < this.lastPrice ? "down" : "flat";
    this.lastPrice = print.price;
    if ((print.size ?? 0) < this.sizeLeast) return;
    this.sizeDecimals = Math.max(this.sizeDecimals, decimalsOf(print.size ?? NaN));
    this.count++;
    this.roll.add({ ...print, tone });
  }

  private line(print: Toned): { texts: string[]; tone: string } {
    const { table } = this.place.market;
    const row = table.row(this.symbol);
    const usual = row >= 0 ? table.decimals[row]! : 2;
    const decimals = Math.max(usual, Math.min(decimalsOf(print.price), usual + 2));
    const venue = print.exchange ? `ex ${print.exchange}` : ""; // 0 = the feed has only one
    const conditions = print.conditions?.length ? print.conditions.join(" ") : "";
    return { texts: [clock(print.ts), price(print.price, decimals), amount(print.size ?? NaN, this.sizeDecimals), venue, conditions], tone: print.tone };
  }
}

export const prints: Kind = {
  name: "prints",
  title: "Time and sales",
  about: "The newest prints of one symbol",
  tab: "chart",
  turn: 1,
  size: [14, 6],
  least: [8, 4],
  links: true,
  fields: [{ name: "size_least", label: "Only prints of at least this size", type: "number", default: 0, about: "0 = all" }],
  make: (place) => new Prints(place),
};
