// Bar documents in, what a chart has to do out: everything anew, one or two bars, or ask for a snapshot.
// Invariant: times rise; a bar is never lost silently — when one could be missing the answer is "ask".

export interface Bar {
  t: number; // start, ms since the epoch
  open: number;
  high: number;
  low: number;
  close: number;
  volume: number;
}

/** A bar as the cache keeps closed ones: [t, open, high, low, close, volume, vwap, trades]. */
export type PackedBar = readonly number[];

export interface BarDocument {
  t?: number | null;
  open?: number | null;
  high?: number | null;
  low?: number | null;
  close?: number | null;
  volume?: number | null;
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
    const bars = (document.history ?? []).map(unpacked);
    if (document.prev) bars.push(unpacked(document.prev));
    const open = current(document);
    if (open) bars.push(open);
    return { do: "reset", bars: rising(bars) };
  }

  /** The document as it is after an update. */
  update(document: BarDocument): ChartStep {
    const open = current(document);
    const index = document.i ?? -1;
    if (!open || index < 0) return { do: "nothing" };
    if (this.index < 0 || index > this.index + 1 || index < this.index || (document.rev ?? 0) !== this.revision) {
      return { do: "ask" };
    }
    const closed = index === this.index + 1 && document.prev ? [unpacked(document.prev)] : [];
    this.index = index;
    return { do: "update", bars: [...closed, open] };
  }
}

function current(document: BarDocument): Bar | null {
  const { t, open, high, low, close, volume } = document;
  if (t == null || open == null || high == null || low == null || close == null) return null;
  return { t, open, high, low, close, volume: volume ?? 0 };
}

function unpacked(packed: PackedBar): Bar {
  const [t = 0, open = 0, high = 0, low = 0, close = 0, volume = 0] = packed;
  return { t, open, high, low, close, volume };
}

/** Sorted by time, one bar a time; the later one in the list is the newer word. */
function rising(bars: Bar[]): Bar[] {
  const byTime = new Map<number, Bar>();
  for (const bar of bars) byTime.set(bar.t, bar);
  return [...byTime.values()].sort((a, b) => a.t - b.t);
}
