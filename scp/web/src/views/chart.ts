// Shows bars as one candle chart with volume. lightweight-charts does all drawing; this file only feeds and colours it.

import {
  CandlestickSeries, createChart, HistogramSeries, type IChartApi, type ISeriesApi, LineSeries, TickMarkType, type UTCTimestamp,
} from "lightweight-charts"; // prettier-ignore
import type { Bar, ChartStep } from "../data/bars.ts";
import { ema, vwap } from "../data/indicators.ts";
import { clock, day, price } from "../format.ts";
import { colour, onTheme } from "../head/theme.ts";

/** What is drawn beside the candles; `ema` in bars, 0 = none. */
export interface Extras {
  ema: number;
  vwap: boolean;
  volume: boolean;
}

const NEAR_BARS = 12;

interface Line {
  series: ISeriesApi<"Line">;
  colour: string;
  values(bars: readonly Bar[]): number[];
}

export class CandleChart {
  bars = 0;
  private readonly chart: IChartApi;
  private readonly candles: ISeriesApi<"Candlestick">;
  private readonly volumes: ISeriesApi<"Histogram">;
  private readonly lines: Line[] = [];
  private readonly end: () => void;
  private decimals = -1;
  private newest = 0;
  private held: Bar[] = [];
  private up = "";
  private down = "";

  constructor(
    container: HTMLElement,
    extras: Extras,
  ) {
    this.chart = createChart(container, {
      autoSize: true,
      layout: { attributionLogo: false, fontSize: 11, fontFamily: "InterVariable, system-ui, sans-serif" },
      rightPriceScale: { borderVisible: false, scaleMargins: { top: 0.08, bottom: 0.24 } },
      timeScale: {
        borderVisible: false, timeVisible: true, secondsVisible: true, rightOffset: 3, barSpacing: 7, minBarSpacing: 1,
        tickMarkFormatter: (time: number, mark: TickMarkType) => (mark < TickMarkType.Time ? day(time * 1000) : clock(time * 1000)),
      },
      localization: { timeFormatter: (time: number) => `${day(time * 1000)} ${clock(time * 1000)}` },
      crosshair: { mode: 0 },
    }); // prettier-ignore
    this.candles = this.chart.addSeries(CandlestickSeries, { borderVisible: false, priceLineStyle: 1 });
    this.volumes = this.chart.addSeries(HistogramSeries, {
      priceScaleId: "", priceFormat: { type: "volume" }, lastValueVisible: false, priceLineVisible: false,
    }); // prettier-ignore
    this.volumes.priceScale().applyOptions({ scaleMargins: { top: 0.82, bottom: 0 } });
    this.volumes.applyOptions({ visible: extras.volume });
    if (extras.vwap) this.addLine("--vwap", vwap);
    if (extras.ema > 0) this.addLine("--ema", (bars) => ema(bars, extras.ema));
    this.paintTheme();
    this.end = onTheme(() => this.paintTheme());
  }

  close(): void {
    this.end();
    this.chart.remove();
  }

  private addLine(colour: string, values: Line["values"]): void {
    const series = this.chart.addSeries(LineSeries, {
      lineWidth: 1, lastValueVisible: false, priceLineVisible: false, crosshairMarkerVisible: false, autoscaleInfoProvider: () => null,
    }); // prettier-ignore
    this.lines.push({ series, colour, values });
  }

  /** Draw the lines anew, or only their newest point. */
  private drawLines(whole: boolean): void {
    for (const { series, values } of this.lines) {
      const points = values(this.held).map((value, at) => ({ time: seconds(this.held[at]!.t), value }));
      if (whole) series.setData(points);
      else if (points.length > 0) series.update(points.at(-1)!);
    }
  }

  /** Show prices with this many decimals. */
  precision(decimals: number): void {
    if (decimals === this.decimals) return;
    this.decimals = decimals;
    const formatter = (x: number) => price(x, decimals); // with separators, like everywhere else
    this.candles.applyOptions({ priceFormat: { type: "custom", formatter, minMove: 10 ** -decimals } });
  }

  /** Do what the series says; "ask" and "nothing" change nothing. */
  take(step: ChartStep): void {
    if (step.do === "reset") this.reset(step.bars);
    else if (step.do === "update") for (const bar of step.bars) this.update(bar);
  }

  /** The newest `n` bars, oldest first. */
  latest(n: number): readonly Bar[] {
    return n >= this.held.length ? this.held : this.held.slice(-n);
  }

  clear(): void {
    this.reset([]);
  }

  /** Whether somebody looks at the first bars there are. */
  get nearStart(): boolean {
    const range = this.chart.timeScale().getVisibleLogicalRange();
    return range !== null && range.from < NEAR_BARS;
  }

  private reset(bars: Bar[]): void {
    const empty = this.bars === 0;
    this.held = bars.slice();
    this.candles.setData(bars.map(candle));
    this.volumes.setData(bars.map((bar) => this.volume(bar)));
    this.bars = bars.length;
    this.newest = bars.at(-1)?.t ?? 0;
    this.drawLines(true);
    if (empty) this.chart.timeScale().scrollToRealTime(); // else whoever has gone back stays there
  }

  private update(bar: Bar): void {
    if (bar.t > this.newest) {
      this.bars++;
      this.newest = bar.t;
      this.held.push(bar);
    } else {
      const at = this.held.findLastIndex((held) => held.t === bar.t);
      if (at < 0) return; // older than the history we have, or a bar that had no price until now: the next snapshot has it
      this.held[at] = bar;
    }
    const historical = bar.t < this.newest;
    this.drawLines(historical);
    this.candles.update(candle(bar), historical);
    this.volumes.update(this.volume(bar), historical);
  }

  private volume(bar: Bar): { time: UTCTimestamp; value: number; color: string } {
    return { time: seconds(bar.t), value: bar.volume, color: bar.close >= bar.open ? this.up : this.down };
  }

  private paintTheme(): void {
    const [up, down, line] = [colour("--up-solid"), colour("--down-solid"), colour("--chart-line")];
    this.up = colour("--up-faint");
    this.down = colour("--down-faint");
    this.chart.applyOptions({
      layout: { background: { color: "transparent" }, textColor: colour("--dim") },
      grid: { vertLines: { color: line }, horzLines: { color: line } },
    });
    this.candles.applyOptions({ upColor: up, downColor: down, wickUpColor: up, wickDownColor: down });
    for (const line of this.lines) line.series.applyOptions({ color: colour(line.colour) });
    this.volumes.setData(this.held.map((bar) => this.volume(bar)));
  }
}

function candle(bar: Bar): { time: UTCTimestamp; open: number; high: number; low: number; close: number } {
  return { time: seconds(bar.t), open: bar.open, high: bar.high, low: bar.low, close: bar.close };
}

function seconds(ms: number): UTCTimestamp {
  return Math.floor(ms / 1000) as UTCTimestamp;
}
