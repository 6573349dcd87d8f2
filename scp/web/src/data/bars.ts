// Decides what the chart does with a bar document: redraw everything, update one or two bars, or ask for a snapshot.
// Invariant: times rise; a bar is never lost silently — when one could be missing the answer is "ask".

export interface Bar {
  t: number; // start, ms since the epoch
  open: number;
  high: number;
  low: number;
  close: number;
  volume: number;
  /** The bar's own volume-weighted average price, where it is known. */
  vwap?: number;
}

/**
 * A bar as the cache keeps closed ones: [t, open, high, low, close, volume, vwap, trades].
 * A bar whose trades may all not set a price (odd lots, late reports) has volume and no prices: nothing to draw.
 */
export type PackedBar = readonly (number | null)[];

export interface BarDocument {
  t?: number | null;
  open?: number | null;
  high?: number | null;
  low?: number | null;
  close?: number | null;
  volume?: number | null;
  vwap?: number | null;
  i?: number | null;
  rev?: number | null;
  prev?: PackedBar | null;
  history?: readonly PackedBar[];
}

export type ChartStep = { do: "reset"; bars: Bar[] } | { do: "update"; bars: Bar[] } | { do: "ask" } | { do: "nothing" };

export class BarSeries {
  private index = -1; // running number of the bar in the making
  private revision = 0;

  /** A snapshot: the whole series anew. */
  snapshot(document: BarDocument): ChartStep {
    this.index = document.i ?? -1;
    this.revision = document.rev ?? 0;
    const closed = document.prev ? [...(document.history ?? []), document.prev] : (document.history ?? []);
    return { do: "reset", bars: rising(drawable([...closed.map(unpacked), current(document)])) };
  }

  /** The document as it is after an update. */
  update(document: BarDocument): ChartStep {
    const index = document.i ?? -1;
    if (index < 0) return { do: "nothing" };
    if (this.index < 0 || index > this.index + 1 || index < this.index || (document.rev ?? 0) !== this.revision) {
      return { do: "ask" };
    }
    const closed = index === this.index + 1 && document.prev ? unpacked(document.prev) : null;
    this.index = index;
    const bars = drawable([closed, current(document)]);
    return bars.length > 0 ? { do: "update", bars } : { do: "nothing" };
  }
}

function current({ t, open, high, low, close, volume, vwap }: BarDocument): Bar | null {
  return unpacked([t ?? null, open ?? null, high ?? null, low ?? null, close ?? null, volume ?? null, vwap ?? null]);
}

export function unpacked([t, open, high, low, close, volume, vwap]: PackedBar): Bar | null {
  if (t == null || open == null || high == null || low == null || close == null) return null;
  return { t, open, high, low, close, volume: volume ?? 0, ...(vwap == null ? {} : { vwap }) };
}

export function drawable(bars: (Bar | null)[]): Bar[] {
  return bars.filter((bar) => bar !== null);
}

/** Sorted by time, one bar a time; the later one in the list is the newer word. */
function rising(bars: Bar[]): Bar[] {
  const byTime = new Map<number, Bar>();
  for (const bar of bars) byTime.set(bar.t, bar);
  return [...byTime.values()].sort((a, b) => a.t - b.t);
}
