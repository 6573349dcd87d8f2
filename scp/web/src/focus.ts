// Follows exactly the channels of the chosen symbol and bar length; what they bring goes to chart, prints, ladder and ticket.

import { BarSeries, type BarDocument, type ChartStep } from "./bars.ts";
import type { Books } from "./books.ts";
import type { CandleChart } from "./chart.ts";
import { byId, showState, Text } from "./dom.ts";
import type { BookDocument } from "./depth.ts";
import { amount, clock, decimalsOf, price } from "./format.ts";
import type { Ladder } from "./ladder.ts";
import { BarTable } from "./bar_table.ts";
import type { QuoteTable } from "./quotes.ts";
import { Rest } from "./rest.ts";
import { radios } from "./roving.ts";
import { Roll } from "./roll.ts";
import type { Stream, Subscription } from "./stream.ts";
import type { HaltDocument, Ticket } from "./ticket.ts";

export type BarLength = "1s" | "1m";
export interface Print {
  price: number;
  size: number | null;
  ts: number;
  exchange?: number | string | null;
  conditions?: readonly (number | string)[] | null;
}

const PRINTS_SHOWN_MAX = 50;
const BAR_HZ = 4;
const PRINT_HZ = 10;
const BOOK_HZ = 10;
const ROOM_MS = 500;
const UNQUOTED_MS = 1500; // a symbol without a quote for so long is asked for by name

export class Focus {
  symbol = "";
  length: BarLength = "1s";
  prints = 0;
  private readonly roll: Roll<Print & { tone: string }>;
  private readonly chartNote = new Text(byId("chart-note"));
  private readonly chartEmpty = new Text(byId("chart-empty"));
  private readonly chartBox = byId("chart-box");
  private readonly chartElement = byId("chart");
  private readonly printsPanel = byId("prints-panel");
  private readonly printsNote = new Text(byId("prints-note"));
  private readonly switches = [...document.querySelectorAll<HTMLButtonElement>("[data-frame]")];
  private series = new BarSeries();
  private steps: ChartStep[] = []; // what the chart is to draw in the next frame: a whole series and what came after it
  private bars: Subscription | null = null;
  private rest: Subscription[] = [];
  private lastPrice = NaN;
  private sizeDecimals = 0;
  private askAt = NaN; // when to ask whether anybody quotes the symbol at all
  private unquoted = false;
  private readonly hand = new Rest(() => this.follow());
  private readonly barTable: BarTable;

  constructor(
    private readonly stream: Stream,
    private readonly table: QuoteTable,
    private readonly chart: CandleChart,
    private readonly ticket: Ticket,
    private readonly ladder: Ladder,
    private readonly books: Books,
    /** Called when the stream has no room for a chart: something else must give way. */
    private readonly makeRoom: () => void,
  ) {
    this.roll = new Roll(byId("prints"), "Recent prints", 5, PRINTS_SHOWN_MAX, (print) => this.line(print));
    for (const button of this.switches) {
      button.addEventListener("click", () => this.setLength(button.dataset["frame"] as BarLength));
    }
    radios(this.switches[0]!.parentElement!);
    this.barTable = new BarTable(this.chart, () => this.table.decimals[this.table.row(this.symbol)] ?? 2);
    this.roll.waitFor("Prints appear here once a symbol is chosen");
    this.chartEmpty.set("A chart appears here once a symbol is chosen");
  }

  /** Show `symbol` instead of the one before, and follow it when the hand rests. */
  choose(symbol: string): void {
    if (symbol === this.symbol) return;
    this.symbol = symbol;
    for (const subscription of this.rest.splice(0)) subscription.close();
    this.bars?.close();
    this.bars = null;
    this.unquoted = false;
    this.askAt = NaN;
    this.roll.clear();
    this.roll.waitFor(`Waiting for the first print of ${symbol}`);
    this.printsNote.set(symbol);
    showState(this.printsPanel, "live", "");
    this.lastPrice = NaN;
    this.sizeDecimals = 0;
    this.prints = 0;
    this.ticket.show(symbol);
    this.ladder.show(symbol, this.books.has(symbol));
    this.clearBars();
    this.hand.touch();
  }

  private follow(): void {
    const { symbol } = this;
    for (const subscription of this.rest) subscription.close();
    this.rest = [this.followPrints(symbol), this.followHalts(symbol), this.followBook(symbol)];
    this.followBars();
    this.askAt = performance.now() + UNQUOTED_MS;
  }

  setLength(length: BarLength): void {
    if (length === this.length) return;
    this.length = length;
    for (const button of this.switches) button.setAttribute("aria-checked", String(button.dataset["frame"] === length));
    if (!this.symbol) return;
    this.clearBars();
    this.hand.touch();
  }

  /** Paint what came; called once a frame. */
  paint(now: number): void {
    const row = this.table.row(this.symbol);
    if (row >= 0) this.chart.precision(this.table.decimals[row]!);
    if (row >= 0 && this.unquoted) this.sayUnquoted(false);
    if (row < 0 && now > this.askAt) this.askForQuote(now);
    this.paintChart();
    this.roll.paint();
    this.barTable.paint(now);
  }

  /** A link may name a symbol that nobody has ever quoted: better said than waited for. */
  private askForQuote(now: number): void {
    const { symbol } = this;
    this.askAt = now + UNQUOTED_MS;
    this.stream.get([`quote:${symbol}`]).then(
      ([snap]) => {
        if (symbol === this.symbol && this.table.row(symbol) < 0) this.sayUnquoted(Boolean(snap?.error));
      },
      () => {}, // not connected: the page says so, and asks again
    );
  }

  private sayUnquoted(unquoted: boolean): void {
    if (unquoted === this.unquoted) return;
    this.unquoted = unquoted;
    this.ticket.note(unquoted ? "nobody quotes this symbol" : "");
    this.roll.waitFor(unquoted ? `No prints of ${this.symbol}` : `Waiting for the first print of ${this.symbol}`);
    this.nameChart();
  }

  private clearBars(): void {
    this.series = new BarSeries();
    this.steps = [];
    if (this.chart.bars > 0) this.chart.clear();
    this.nameChart();
    showState(this.chartBox, "live", "");
  }

  private followBars(): void {
    this.bars?.close();
    this.clearBars();
    const channel = `bars:${this.length}:${this.symbol}`;
    const { symbol } = this;
    this.bars = this.stream.subscribe([channel], { hz: BAR_HZ }, {
      refused: (_, code) => this.refused(symbol, code),
      snapshot: (_, data) => this.takeBars(this.series.snapshot(data as BarDocument)),
      update: (_, __, whole) => this.takeBars(this.series.update(whole as BarDocument)),
      status: (_, state, reason) => showState(this.chartBox, state, reason),
    });
  }

  private takeBars(step: ChartStep): void {
    if (step.do === "ask") this.bars?.ask();
    else if (step.do === "reset") this.steps = [step];
    else if (step.do === "update") this.steps.push(step);
  }

  /**
   * The chart draws in a frame callback of its own. Told from here it does so first in the next frame, before anything is written;
   * told by a message it would come after our painters, and each label it measures would force the layout of what they wrote.
   */
  private paintChart(): void {
    if (this.steps.length === 0) return;
    for (const step of this.steps) this.chart.take(step);
    this.steps = [];
    this.nameChart();
  }

  private nameChart(): void {
    const bars = this.chart.bars;
    const length = this.length === "1s" ? "1-second" : "1-minute";
    this.chartNote.set(bars ? `${bars} ${length} bars, local time` : "");
    const waiting = this.unquoted ? `Nobody quotes ${this.symbol}: no trade of it is known` : `Waiting for the first ${length} bar of ${this.symbol}`;
    this.chartEmpty.set(bars ? "" : waiting);
    this.chartBox.toggleAttribute("data-empty", bars === 0);
    const label = `Candle chart of ${this.symbol}, ${length} bars`;
    if (this.chartElement.getAttribute("aria-label") !== label) this.chartElement.setAttribute("aria-label", label);
  }

  private followPrints(symbol: string): Subscription {
    return this.stream.subscribe([`trades:${symbol}`], { hz: PRINT_HZ }, {
      snapshot: (_, data) => {
        this.roll.clear();
        for (const print of data as Print[]) this.addPrint(print);
      },
      event: (_, data) => this.addPrint(data as Print),
      status: (_, state, reason) => showState(this.printsPanel, state, reason),
      lost: (_, n) => this.printsNote.set(`${symbol}, ${n} skipped`),
    });
  }

  private followHalts(symbol: string): Subscription {
    return this.stream.subscribe([`halts:${symbol}`], { hz: 1 }, {
      snapshot: (_, data) => this.ticket.halts(data as HaltDocument),
      update: (_, __, whole) => this.ticket.halts(whole as HaltDocument),
    });
  }

  private followBook(symbol: string): Subscription {
    const take = (data: unknown) => {
      this.books.learn([symbol]);
      this.ladder.take(data as BookDocument);
    };
    return this.stream.subscribe([`book:${symbol}`], { hz: BOOK_HZ }, {
      snapshot: (_, data) => take(data),
      update: (_, __, whole) => take(whole),
      status: (_, state, reason) => this.ladder.mark(state, reason),
    });
  }

  /** No room: the market makes some, and a moment later the same is asked again. */
  private refused(symbol: string, code: string): void {
    if (code !== "limit") return;
    this.makeRoom();
    setTimeout(() => this.again(symbol), ROOM_MS);
  }

  private again(symbol: string): void {
    if (symbol !== this.symbol) return;
    this.symbol = "";
    this.choose(symbol);
  }

  private addPrint(print: Print): void {
    const tone = print.price > this.lastPrice ? "up" : print.price < this.lastPrice ? "down" : "flat";
    this.lastPrice = print.price;
    this.sizeDecimals = Math.max(this.sizeDecimals, decimalsOf(print.size ?? NaN));
    this.prints++;
    this.roll.add({ ...print, tone });
  }

  private line(print: Print & { tone: string }): { texts: string[]; tone: string } {
    const row = this.table.row(this.symbol);
    const usual = row >= 0 ? this.table.decimals[row]! : 2;
    const decimals = Math.max(usual, Math.min(decimalsOf(print.price), usual + 2));
    const venue = print.exchange ? `ex ${print.exchange}` : ""; // 0 = the feed has only one
    const conditions = print.conditions?.length ? print.conditions.join(" ") : "";
    return { texts: [clock(print.ts), price(print.price, decimals), amount(print.size ?? NaN, this.sizeDecimals), venue, conditions], tone: print.tone };
  }
}
