// Shows the chart's newest bars as a table: for whoever cannot see the candles, and for whoever wants the numbers.

import type { Bar } from "./bars.ts";
import { byId, el, Text } from "./dom.ts";
import { clock, price, quantity } from "./format.ts";

const ROWS_MAX = 40;
const PAINT_MS = 500;

interface Bars {
  /** The newest `n` bars, oldest first. */
  latest(n: number): readonly Bar[];
}

export class BarTable {
  private readonly button = byId<HTMLButtonElement>("chart-as");
  private readonly box = byId("chart-box");
  private readonly body = byId("bar-rows");
  private readonly rows: { element: HTMLElement; texts: Text[] }[] = [];
  private paintedAt = 0;

  constructor(
    private readonly bars: Bars,
    private readonly decimals: () => number,
  ) {
    this.button.addEventListener("click", () => this.turn());
  }

  private get shown(): boolean {
    return this.button.getAttribute("aria-pressed") === "true";
  }

  /** Paint what changed, while it is shown; called once a frame. */
  paint(now: number): void {
    if (!this.shown || now - this.paintedAt < PAINT_MS) return;
    this.paintedAt = now;
    const bars = this.bars.latest(ROWS_MAX).toReversed();
    const decimals = this.decimals();
    while (this.rows.length < bars.length) this.rows.push(this.newRow());
    this.rows.forEach(({ element, texts }, at) => {
      const bar = bars[at];
      element.hidden = !bar;
      if (!bar) return;
      const prices = [bar.open, bar.high, bar.low, bar.close].map((x) => price(x, decimals));
      [clock(bar.t), ...prices, quantity(bar.volume)].forEach((text, place) => texts[place]!.set(text));
    });
  }

  private turn(): void {
    const table = !this.shown;
    this.button.setAttribute("aria-pressed", String(table));
    this.box.toggleAttribute("data-table", table);
    this.paintedAt = 0;
  }

  private newRow(): { element: HTMLElement; texts: Text[] } {
    const cells = Array.from({ length: 6 }, (_, at) => el(at === 0 ? "th" : "td"));
    cells[0]!.setAttribute("scope", "row");
    const element = el("tr", "", ...cells);
    this.body.append(element);
    return { element, texts: cells.map((cell) => new Text(cell)) };
  }
}
