// Computes lines over bars: exponential moving average and volume-weighted average price. Pure.

import type { Bar } from "./bars.ts";

/** The exponential moving average of the closes over `length` bars, one value a bar; the first bar begins it. */
export function ema(bars: readonly Bar[], length: number): number[] {
  const share = 2 / (length + 1);
  const values: number[] = [];
  for (const { close } of bars) values.push(values.length ? values.at(-1)! + share * (close - values.at(-1)!) : close);
  return values;
}

/** The average price of everything traded since the first bar, weighted by volume; the close while nothing was traded. */
export function vwap(bars: readonly Bar[]): number[] {
  let [paid, volume] = [0, 0];
  return bars.map((bar) => {
    paid += (bar.vwap ?? (bar.high + bar.low + bar.close) / 3) * bar.volume;
    volume += bar.volume;
    return volume > 0 ? paid / volume : bar.close;
  });
}
