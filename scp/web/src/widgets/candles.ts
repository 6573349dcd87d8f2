// Candles of one symbol with the bar in the making, volume, moving average and VWAP; the quote card may stand on top.

import { BarSeries, type Bar, type BarDocument, type ChartStep } from "../data/bars.ts";
import { pipelineNow } from "../data/clock.ts";
import { History } from "../data/history.ts";
import { olderBars, type Older } from "../data/reference.ts";
import type { Subscription } from "../data/stream.ts";
import { attributes, button, el, showState, Text } from "../dom.ts";
import { radios } from "../roving.ts";
import { BarTable } from "../views/bar_table.ts";
import type { CandleChart } from "../views/chart.ts";
import { Card } from "./quote.ts";
import { flag, number, oneOf, type Kind, type Place, type Settings, type Widget } from "./widget.ts";

const LENGTHS = ["1s", "5s", "1m", "5m", "1h", "1d"] as const;
type BarLength = (typeof LENGTHS)[number];
const SAID: Readonly<Record<BarLength, string>> = {
  "1s": "1-second", "5s": "5-second", "1m": "1-minute", "5m": "5-minute", "1h": "1-hour", "1d": "1-day",
}; // prettier-ignore
const BAR_HZ = 4;
const ROOM_MS = 500;
const EMA_MAX = 200;
/** The widths of which older bars can be asked for. */
const SPANS_MS: Readonly<Partial<Record<BarLength, number>>> = { "1m": 60_000, "5m": 300_000, "1h": 3_600_000, "1d": 86_400_000 };

export class Candles implements Widget {
  readonly element: HTMLElement;
  readonly head: HTMLElement;
  private readonly box = el("div", "chart-box");
  private readonly canvas = el("div", "chart");
  private readonly note: Text;
  private readonly empty: Text;
  private readonly switches: HTMLButtonElement[];
  private readonly card: Card | null;
  private readonly table: BarTable;
  private chart: CandleChart | null = null; // its code is loaded when the first chart is placed
  private closed = false;
  private series = new BarSeries();
  private history = new History(1000);
  private older: Older = { state: "idle", said: "" };
  private steps: ChartStep[] = []; // what the chart is to draw in the next frame: a whole series and what came after it
  private subscription: Subscription | null = null;
  private symbol = "";
  private length: BarLength;
  private isUnquoted = false;
  private heard = false; // the stream has said what it has, if only that it is nothing

  constructor(private readonly place: Place) {
    const { ids, settings } = place;
    this.length = oneOf(settings, "length", LENGTHS);
    this.card = flag(settings, "card", true) ? new Card(place) : null;
    this.switches = LENGTHS.map((length) => {
      const made = button("", length, () => this.setLength(length));
      made.dataset["frame"] = length;
      return attributes(made, { role: "radio", "aria-checked": String(length === this.length) });
    });
    const choice = attributes(el("div", "switch", ...this.switches), { role: "radiogroup", "aria-label": "Bar length" });
    radios(choice);
    const [note, empty] = [ids.name("chart-note", el("span", "note")), ids.name("chart-empty", el("p", "empty"))];
    [this.note, this.empty] = [new Text(note), new Text(empty)];
    this.table = new BarTable(this.box, { latest: (n) => this.chart?.latest(n) ?? [] }, () => this.decimals() ?? 2, ids);
    this.head = el("div", "chart-head", choice, note, this.table.button);
    attributes(ids.name("chart", this.canvas), { role: "img", "aria-label": "Candle chart" });
    ids.name("chart-box", this.box).append(this.head, this.canvas, this.table.element, empty);
    this.element = el("section", "panel instrument", ...(this.card ? [this.card.ticket.element] : []), this.box);
    if (this.card) this.element.setAttribute("aria-labelledby", this.card.ticket.heading.id);
    else this.element.setAttribute("aria-label", "Chart");
    this.name();
    void this.load(settings);
  }

  /** How many bars are drawn. */
  get bars(): number {
    return this.chart?.bars ?? 0;
  }

  /** The bars that are drawn, oldest first. */
  get drawn(): readonly Bar[] {
    return this.chart?.latest(Infinity) ?? [];
  }

  show(symbol: string): void {
    this.symbol = symbol;
    this.isUnquoted = false;
    this.card?.show(symbol);
    this.subscription?.close();
    this.subscription = null;
    this.clear();
  }

  follow(symbol: string): void {
    this.card?.follow(symbol);
    this.followBars();
  }

  unquoted(unquoted: boolean): void {
    this.isUnquoted = unquoted;
    this.card?.unquoted(unquoted);
    this.name();
  }

  key(what: string): void {
    if ((LENGTHS as readonly string[]).includes(what)) this.setLength(what as BarLength);
  }

  /**
   * Drawn first in a frame, before anything else is written: told by a message the chart would draw after our painters, and each
   * label it measures would force the layout of what they wrote.
   */
  paint(now: number): void {
    this.card?.ticket.paint(now);
    const decimals = this.decimals();
    if (this.chart && decimals !== undefined) this.chart.precision(decimals);
    if (this.chart && this.steps.length > 0) {
      for (const step of this.steps) this.chart.take(step);
      this.steps = [];
      this.name();
    }
    this.askOlder(now);
    this.table.paint(now);
  }

  close(): void {
    this.closed = true;
    this.card?.close();
    this.subscription?.close();
    this.chart?.close();
  }

  private async load(settings: Settings): Promise<void> {
    const { CandleChart } = await import("../views/chart.ts");
    if (this.closed) return;
    const ema = Math.min(EMA_MAX, Math.max(0, Math.round(number(settings, "ema", 20))));
    this.chart = new CandleChart(this.canvas, { ema, vwap: flag(settings, "vwap", true), volume: flag(settings, "volume", true) });
  }

  private setLength(length: BarLength): void {
    if (length === this.length) return;
    this.length = length;
    for (const one of this.switches) one.setAttribute("aria-checked", String(one.dataset["frame"] === length));
    this.place.keep({ length });
    if (this.symbol) this.followBars();
  }

  private followBars(): void {
    this.subscription?.close();
    this.clear();
    const { symbol } = this;
    this.subscription = this.place.market.stream.subscribe([`bars:${this.length}:${symbol}`], { hz: BAR_HZ }, {
      refused: (_, code) => code === "limit" && this.refused(symbol),
      snapshot: (_, data) => {
        this.heard = true;
        this.take(this.series.snapshot(data as BarDocument));
      },
      update: (_, __, whole) => this.take(this.series.update(whole as BarDocument)),
      status: (_, state, reason) => showState(this.box, state, reason),
    });
  }

  /** No room: the market makes some, and a moment later the same is asked again. */
  private refused(symbol: string): void {
    this.place.market.makeRoom();
    setTimeout(() => symbol === this.symbol && !this.closed && this.followBars(), ROOM_MS);
  }

  private take(step: ChartStep): void {
    if (step.do === "ask") this.subscription?.ask();
    else if (step.do === "reset") this.redraw(this.history.snapshot(step.bars));
    else if (step.do === "update") {
      const all = this.history.update(step.bars);
      if (all) this.redraw(all);
      else this.steps.push(step);
    }
  }

  private redraw(bars: Bar[]): void {
    this.steps = [{ do: "reset", bars }];
  }

  /** Whoever looks at the first bars there are is shown older ones, where somebody has them. */
  private askOlder(now: number): void {
    const span = SPANS_MS[this.length];
    const { history, symbol } = this;
    if (!this.chart || !symbol || !this.subscription || span === undefined || this.older.state === "asking") return;
    if (this.older.state === "away" && now < (this.older.again ?? 0)) return;
    if (this.bars > 0 ? !this.chart.nearStart : !this.heard) return;
    const before = history.before(pipelineNow());
    if (before === null || this.older.state === "none") return;
    this.older = { state: "asking", said: "older bars are loading" };
    this.name();
    void olderBars(symbol, this.length, before).then(({ page, ...older }) => {
      if (history !== this.history || this.closed) return; // another symbol or width since
      this.older = older;
      if (page) this.redraw(history.take(page, before));
      else this.name();
    });
  }

  private clear(): void {
    this.series = new BarSeries();
    this.history = new History(SPANS_MS[this.length] ?? 1000);
    this.older = { state: "idle", said: "" };
    this.heard = false;
    this.steps = [];
    if (this.bars > 0) this.chart!.clear();
    this.name();
    showState(this.box, "live", "");
  }

  private decimals(): number | undefined {
    const { table } = this.place.market;
    const row = table.row(this.symbol);
    return row < 0 ? undefined : table.decimals[row];
  }

  private name(): void {
    const { bars, symbol } = this;
    const length = SAID[this.length];
    const of = this.card || !symbol ? "" : `${symbol}, `;
    const older = this.older.said || (this.history.ended && this.chart?.nearStart ? "nothing older is known" : "");
    this.note.set(bars ? `${of}${bars} ${length} bars, local time${older ? `; ${older}` : ""}` : older);
    const waiting = this.isUnquoted ? `Nobody quotes ${symbol}: no trade of it is known` : `Waiting for the first ${length} bar of ${symbol}`;
    this.empty.set(bars ? "" : symbol ? waiting : "A chart appears here once a symbol is chosen");
    this.box.toggleAttribute("data-empty", bars === 0);
    const label = symbol ? `Candle chart of ${symbol}, ${length} bars` : "Candle chart";
    if (this.canvas.getAttribute("aria-label") !== label) this.canvas.setAttribute("aria-label", label);
  }
}

export const candles: Kind = {
  name: "candles",
  title: "Chart",
  about: "Candles of one symbol, with the bar in the making",
  tab: "chart",
  turn: 1,
  size: [18, 12],
  least: [10, 7],
  links: true,
  fields: [
    { name: "length", label: "Bars", type: "choice", default: "1s", options: LENGTHS.map((length) => [length, `of ${SAID[length].replace("-", " ")}`] as const) },
    { name: "ema", label: "Moving average (EMA) over so many bars", type: "number", default: 20, about: "0 = none" },
    { name: "vwap", label: "Volume-weighted average price (VWAP) of the bars shown", type: "check", default: true },
    { name: "volume", label: "Volume", type: "check", default: true },
    { name: "card", label: "The symbol's quote on top", type: "check", default: true },
  ],
  make: (place) => new Candles(place),
}; // prettier-ignore
