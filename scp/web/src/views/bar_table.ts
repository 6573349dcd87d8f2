// Shows the chart's newest bars as a table: for whoever cannot see the candles, and for whoever wants the numbers.

import type { Bar } from "../data/bars.ts";
import { attributes, button, el, type Ids, Text } from "../dom.ts";
import { clock, price, quantity } from "../format.ts";

const ROWS_MAX = 40;
const PAINT_MS = 500;

interface Bars {
  /** The newest `n` bars, oldest first. */
  latest(n: number): readonly Bar[];
}

export class BarTable {
  readonly element = el("div", "bar-table");
  readonly button = attributes(button("as-table", "Table", () => this.turn()), { "aria-pressed": "false" });
  private readonly body = el("tbody");
  private readonly rows: { element: HTMLElement; texts: Text[] }[] = [];
  private paintedAt = 0;

  constructor(
    /** Gets `data-table` while the table is shown. */
    private readonly box: HTMLElement,
    private readonly bars: Bars,
    private readonly decimals: () => number,
    ids: Ids,
  ) {
    ids.name("chart-as", this.button);
    ids.name("bar-rows", this.body);
    const heads = ["Time", "Open", "High", "Low", "Close", "Volume"].map((title) => attributes(el("th", "", title), { scope: "col" }));
    attributes(this.element, { tabindex: "0", role: "region", "aria-label": "Newest bars" });
    this.element.append(el("table", "", el("thead", "", el("tr", "", ...heads)), this.body));
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
