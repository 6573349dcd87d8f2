// Joins older bars of the control plane to the live ones of the stream.
// Invariant: times rise and each bar is there once. `older` has no hole up to the first live bar, else it is forgotten: a hole that
// looks like the market's own silence would be believed.

import { drawable, unpacked, type Bar, type PackedBar } from "./bars.ts";

export interface OlderBars {
  bars: readonly PackedBar[];
  /** Goes into the next question; null = nothing older is known. */
  next: number | null;
  /** The stream's own bars of before it are in other shares than those after it. */
  split_ms: number | null;
  stale: boolean;
  as_of_ms: number;
}

const LIVE_MAX = 5000;
const LIVE_KEPT = 2500;
const OLDER_MAX = 10_000;

export class History {
  private older: Bar[] = [];
  private live: Bar[] = [];
  private until = NaN; // `older` has every bar of before it, back to its first
  private next: number | null | undefined; // undefined = nothing was asked yet
  private floor = -Infinity; // live bars of before it are not shown: they are in other shares
  private seam: Bar | null = null; // the first live bar as the vendor has it

  constructor(private readonly spanMs: number) {}

  /** How many older bars there are. */
  get size(): number {
    return this.older.length;
  }

  /** True once it is known that there is nothing older. */
  get ended(): boolean {
    return this.next === null;
  }

  /** Before which time to ask; null when there is nothing to ask. `now` = the pipeline's time, where nothing is live yet. */
  before(now: number): number | null {
    if (this.next !== undefined) return this.older.length < OLDER_MAX ? this.next : null;
    const first = this.live[0]?.t;
    return first === undefined ? Math.floor(now) : this.live.length > 1 ? first + 1 : first; // the first one may have begun before us
  }

  /** The stream says the whole of its bars; returns all that is to be drawn. */
  snapshot(bars: readonly Bar[]): Bar[] {
    const fresh = bars.filter(({ t }) => t >= this.floor);
    const first = fresh[0]?.t;
    if (first !== undefined && this.next !== undefined && first > this.until) {
      // What the stream lets go of is older now; what it has never told us is a hole.
      if (this.live.some(({ t }) => t >= first)) this.older = this.joined().filter(({ t }) => t < first);
      else this.forget();
      if (this.next !== undefined) this.until = first;
    }
    this.live = fresh;
    return this.joined();
  }

  /** The stream's newest bars. Returns all when bars have to go, null when these are enough. */
  update(bars: readonly Bar[]): Bar[] | null {
    for (const bar of bars) {
      const at = this.live.findLastIndex(({ t }) => t <= bar.t);
      if (at >= 0 && this.live[at]!.t === bar.t) this.live[at] = bar;
      else if (bar.t >= this.floor) this.live.splice(at + 1, 0, bar);
    }
    if (this.live.length <= LIVE_MAX) return null;
    this.live = this.live.slice(-LIVE_KEPT);
    this.forget();
    return this.joined();
  }

  /** What was asked for `before` has come; returns all that is to be drawn. */
  take(page: OlderBars, before: number): Bar[] {
    if (page.split_ms !== null && page.split_ms > this.floor) {
      this.floor = page.split_ms;
      const kept = this.live.filter(({ t }) => t >= this.floor);
      if (kept.length < this.live.length) {
        this.live = kept;
        this.forget();
        return this.joined(); // bars between the split and what was asked for are wanted first
      }
    }
    const bars = drawable(page.bars.map(unpacked));
    if (this.next === undefined) {
      const first = this.live[0]?.t;
      this.until = first ?? before - this.spanMs; // the bar in the making is not among them
      this.seam = bars.find(({ t }) => t === first) ?? null;
    }
    const oldest = this.older[0]?.t ?? Infinity;
    this.older = [...bars.filter(({ t }) => t < oldest && t < before && t !== this.live[0]?.t), ...this.older];
    this.next = page.next !== null && page.next < before ? page.next : null;
    return this.joined();
  }

  private joined(): Bar[] {
    const first = this.live[0];
    if (!first) return this.older.slice();
    const before = this.older.filter(({ t }) => t < first.t);
    // A pipeline that began within this bar has seen a part of it only.
    const partly = this.live.length > 1 && this.seam?.t === first.t && this.seam.volume > first.volume;
    return [...before, partly ? this.seam! : first, ...this.live.slice(1)];
  }

  private forget(): void {
    this.older = [];
    this.next = undefined;
    this.until = NaN;
    this.seam = null;
  }
}
