// Computes the rungs of a price ladder from a book's document: the size beside each price and the length of its bar. Pure.

import { decimalsOf } from "../format.ts";

export const LEVELS_MAX = 20; // as the channel catalogue has it

type Level = readonly [price: number, size: number];

export interface BookDocument {
  /** Best first: bids fall, asks rise. */
  bids?: readonly Level[] | null;
  asks?: readonly Level[] | null;
  spread?: number | null;
  ts?: number | null;
}

/** What stands beside a price: each level's own size, or everything from the best price down to it. */
export type Measure = "size" | "sum";

export interface Rung {
  price: number;
  shown: number;
  /** Length of the bar in whole percent of the longest one of both sides, at least 1. */
  bar: number;
}

export interface Depth {
  /** Best first, like the document. */
  bids: Rung[];
  asks: Rung[];
  /** Share of the bids in everything shown, 0 to 1; NaN without orders. */
  bidShare: number;
  spread: number;
  /** The spread in hundredths of a percent of the middle price. */
  spreadPoints: number;
}

export const NO_DEPTH: Depth = { bids: [], asks: [], bidShare: NaN, spread: NaN, spreadPoints: NaN };

/** The best `levels` of each side of a book. */
export function depth({ bids, asks, spread }: BookDocument, levels: number, measure: Measure): Depth {
  const both = [bids, asks].map((side) => measured((side ?? []).slice(0, levels), measure));
  const longest = Math.max(...both.flatMap((side) => side.map(([, shown]) => shown)));
  const [bidRungs, askRungs] = both.map((side) => side.map(([price, shown]) => ({ price, shown, bar: percentOf(shown, longest) })));
  const [bidTotal, askTotal] = [total(bids, levels), total(asks, levels)];
  const middle = ((bids?.[0]?.[0] ?? NaN) + (asks?.[0]?.[0] ?? NaN)) / 2;
  return {
    bids: bidRungs!,
    asks: askRungs!,
    bidShare: bidTotal / (bidTotal + askTotal),
    spread: spread ?? NaN,
    spreadPoints: ((spread ?? NaN) / middle) * 10_000,
  };
}

/** The decimals that every price and every size of a book can be written with. */
export function decimalsOfBook({ bids, asks }: BookDocument): { price: number; size: number } {
  let [price, size] = [0, 0];
  for (const side of [bids, asks]) {
    for (const level of side ?? []) {
      price = Math.max(price, decimalsOf(level[0]));
      size = Math.max(size, decimalsOf(level[1]));
    }
  }
  return { price, size };
}

function measured(side: readonly Level[], measure: Measure): Level[] {
  if (measure === "size") return side.slice();
  let sum = 0;
  return side.map(([price, size]) => [price, (sum += size)] as const);
}

function total(side: readonly Level[] | null | undefined, levels: number): number {
  return (side ?? []).slice(0, levels).reduce((sum, [, size]) => sum + size, 0);
}

function percentOf(part: number, whole: number): number {
  return Math.max(1, Math.round((100 * part) / whole));
}
