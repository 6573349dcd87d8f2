import assert from "node:assert/strict";
import { test } from "node:test";
import { Books } from "../src/data/books.ts";
import type { Snap, Stream } from "../src/data/stream.ts";

class FakeStream implements Stream {
  readonly reconnects = 0;
  readonly subscriptionsMax = 200;
  asked = 0;
  answer: readonly Snap[] | null = [];
  subscribe() {
    return { close: () => {}, ask: () => {} };
  }
  async get() {
    this.asked++;
    if (!this.answer) throw new Error("not connected");
    return this.answer;
  }
  onConnection() {}
  start() {}
  retry() {}
}

const settled = () => new Promise((resolve) => setImmediate(resolve));
const snaps = (...symbols: string[]) => symbols.map((symbol) => ({ ch: `book:${symbol}`, data: {} }));

function made() {
  const stream = new FakeStream();
  const told: string[] = [];
  const books = new Books(stream);
  books.onChange((symbols) => told.push(symbols.join(" ")));
  return { stream, told, books };
}

test("the stream is asked for its books, and now and then again; new ones are told once", async () => {
  const { stream, told, books } = made();
  stream.answer = snaps("ETH-PERP", "BTC-PERP");
  for (const now of [0, 16, 29_000, 30_000, 31_000]) {
    books.paint(now);
    await settled();
  }
  assert.equal(stream.asked, 2);
  assert.deepEqual(told, ["BTC-PERP ETH-PERP"]);
  assert.ok(books.has("BTC-PERP") && !books.has("AAPL"));
});

test("before the stream is connected it is asked again soon, but never twice at once", async () => {
  const { stream, books } = made();
  stream.answer = null;
  books.paint(0);
  books.paint(1);
  assert.equal(stream.asked, 1);
  await settled();
  books.paint(1999);
  assert.equal(stream.asked, 1);
  books.paint(2000);
  assert.equal(stream.asked, 2);
});

test("what was refused is no book, and a book that somebody saw is one", async () => {
  const { stream, told, books } = made();
  stream.answer = [...snaps("B"), { ch: "book:*", error: { code: "unavailable" } }];
  books.paint(0);
  await settled();
  books.learn(["A"]);
  books.learn(["A"]);
  assert.deepEqual(told, ["B", "A B"]);
});

test("a feed with very many books is not asked again", async () => {
  const { stream, books } = made();
  stream.answer = snaps(...Array.from({ length: 51 }, (_, n) => `S${n}`));
  books.paint(0);
  await settled();
  books.paint(90_000);
  assert.equal(stream.asked, 1);
});
