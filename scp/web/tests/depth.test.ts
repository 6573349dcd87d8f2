import assert from "node:assert/strict";
import { test } from "node:test";
import { decimalsOfBook, depth } from "../src/data/depth.ts";

const book = {
  bids: [[59999.5, 0.012], [59999, 0.5], [59998, 0.003]],
  asks: [[60000.5, 0.25], [60001, 0.05]],
  spread: 1,
} as const; // prettier-ignore

test("bars are proportional to the sizes of both sides together, and the smallest can be seen", () => {
  const made = depth(book, 20, "size");
  assert.deepEqual(made.bids, [{ price: 59999.5, shown: 0.012, bar: 2 }, { price: 59999, shown: 0.5, bar: 100 }, { price: 59998, shown: 0.003, bar: 1 }]); // prettier-ignore
  assert.deepEqual(made.asks.map(({ shown, bar }) => [shown, bar]), [[0.25, 50], [0.05, 10]]); // prettier-ignore
});

test("summed up, each level has everything from the best price down to it", () => {
  const made = depth(book, 20, "sum");
  assert.deepEqual(made.bids.map(({ shown, bar }) => [Number(shown.toFixed(9)), bar]), [[0.012, 2], [0.512, 99], [0.515, 100]]); // prettier-ignore
  assert.deepEqual(made.asks.map(({ price, shown }) => [price, Number(shown.toFixed(9))]), [[60000.5, 0.25], [60001, 0.3]]); // prettier-ignore
});

test("only the levels that there is room for count", () => {
  const made = depth(book, 1, "size");
  assert.deepEqual([made.bids.length, made.asks.length, made.asks[0]!.bar], [1, 1, 100]);
  assert.equal(made.bidShare, 0.012 / 0.262);
});

test("the spread is told in basis points of the middle, and is unknown without both sides", () => {
  assert.ok(Math.abs(depth(book, 20, "size").spreadPoints - 1 / 6) < 1e-9);
  for (const half of [{ bids: book.bids, asks: [], spread: null }, { asks: book.asks }, {}]) {
    const made = depth(half, 20, "size");
    assert.ok(Number.isNaN(made.spread) && Number.isNaN(made.spreadPoints));
  }
  assert.ok(Number.isNaN(depth({}, 20, "size").bidShare));
  assert.equal(depth({ asks: book.asks }, 20, "size").bidShare, 0);
});

test("a book has the decimals of its finest price and size", () => {
  assert.deepEqual(decimalsOfBook(book), { price: 1, size: 3 });
  assert.deepEqual(decimalsOfBook({ bids: [[0.00001302, 1e6]], asks: null }), { price: 8, size: 0 });
});
