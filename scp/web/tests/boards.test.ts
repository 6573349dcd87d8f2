import assert from "node:assert/strict";
import { test } from "node:test";
import { ALL, heat, wantedOf } from "../src/data/boards.ts";
import { ema, vwap } from "../src/data/indicators.ts";

const rows = {
  A: { last: 5, change_pct: 3, volume: 100 }, B: { last: 50, change_pct: -9, volume: 900 }, C: { last: 500, change_pct: 1, volume: 50 },
  D: { last: null, change_pct: null, volume: null },
}; // prettier-ignore
const order = ["A", "B", "C", "D"];

test("a board without a filter is as it was ranked", () => {
  assert.deepEqual(wantedOf(order, rows, ALL), order);
});

test("bounds keep what is known to be within them", () => {
  assert.deepEqual(wantedOf(order, rows, { ...ALL, priceLeast: 10 }), ["B", "C"]);
  assert.deepEqual(wantedOf(order, rows, { ...ALL, priceMost: 50 }), ["A", "B"]);
  assert.deepEqual(wantedOf(order, rows, { ...ALL, volumeLeast: 60 }), ["A", "B"]);
});

test("sorting goes both ways, and what is not known comes last in both", () => {
  assert.deepEqual(wantedOf(order, rows, { ...ALL, sort: "change_pct" }), ["A", "C", "B", "D"]);
  assert.deepEqual(wantedOf(order, rows, { ...ALL, sort: "change_pct", descending: false }), ["B", "C", "A", "D"]);
  assert.deepEqual(wantedOf(order, rows, { ...ALL, sort: "symbol" }), ["D", "C", "B", "A"]);
});

test("heat has five steps, and none for what is not known", () => {
  assert.deepEqual([NaN, 0, 0.1, -2, 4.5, -99].map(heat), [0, 0, 1, 1, 3, 5]);
});

const bar = (close: number, volume: number, own?: number) => ({ t: 0, open: close, high: close + 1, low: close - 1, close, volume, ...(own === undefined ? {} : { vwap: own }) });

test("the moving average follows the closes, and a constant price is its own", () => {
  assert.deepEqual(ema([bar(10, 1), bar(16, 1)], 2), [10, 14]);
  assert.deepEqual(new Set(ema(Array.from({ length: 50 }, () => bar(7, 1)), 20)), new Set([7]));
  assert.deepEqual(ema([], 20), []);
});

test("the weighted price counts each bar's own average by its volume, and needs no volume", () => {
  assert.deepEqual(vwap([bar(10, 0), bar(10, 1, 12), bar(30, 3, 20)]), [10, 12, 18]);
});
