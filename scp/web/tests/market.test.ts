import assert from "node:assert/strict";
import { test } from "node:test";
import { Market } from "../src/data/market.ts";
import { QuoteTable, STATES } from "../src/data/quotes.ts";
import type { Listener, Stream } from "../src/data/stream.ts";

class FakeStream implements Stream {
  readonly reconnects = 0;
  readonly followed = new Map<string, Listener>();
  constructor(readonly subscriptionsMax: number) {}
  subscribe(channels: readonly string[], _: object, listener: Listener) {
    for (const channel of channels) this.followed.set(channel, listener);
    return { close: () => channels.forEach((channel) => this.followed.delete(channel)), ask: () => {} };
  }
  get() {
    return Promise.resolve([]);
  }
  onConnection() {}
  start() {}
  retry() {}
}

function made(subscriptionsMax: number) {
  const stream = new FakeStream(subscriptionsMax);
  const table = new QuoteTable();
  const view: string[] = [];
  const market = new Market(stream, table, () => {}, () => view);
  market.start();
  const names = () => [...stream.followed.keys()].join(" ");
  return { stream, table, view, market, names };
}

const row = { last: 10, change: 1, change_pct: 11, volume: 500 };

test("one pattern brings everything as long as the stream allows it", () => {
  const { stream, table, market, names } = made(5000);
  stream.followed.get("quote:*")!.snapshot("quote:AAPL", { last: 10 }, 1);
  stream.followed.get("quote:*")!.update!("quote:AAPL", { last: 11 }, {}, 2);
  market.learn({ AAPL: row }, 1000);
  market.paint(2000);
  assert.equal(names(), "quote:*");
  assert.equal(table.columns.last[table.row("AAPL")], 11);
});

test("over the limit only what is in view is followed, and the rest is known from the boards", () => {
  const { stream, table, view, market, names } = made(200);
  stream.followed.get("quote:*")!.refused!("quote:*", "limit", "300 more channels match");
  assert.equal(names(), "");
  market.learn({ AAPL: row, MSFT: row }, 0);
  view.push("AAPL");
  market.paint(1000);
  assert.equal(names(), "quote:AAPL");
  market.learn({ AAPL: { ...row, last: 99 }, MSFT: { ...row, last: 99 } }, 1100);
  assert.ok(table.columns.last[table.row("AAPL")] !== 99, "what is followed is not overwritten by a slower board");
  assert.equal(table.columns.last[table.row("MSFT")], 99);
});

test("a stale channel makes its own row stale, and what comes into view again has the newest word", () => {
  const { stream, table, view, market } = made(34);
  const state = (symbol: string) => STATES[table.states[table.row(symbol)]!];
  const all = stream.followed.get("quote:*")!;
  for (const symbol of ["AAPL", "MSFT"]) all.snapshot(`quote:${symbol}`, { last: 10 }, 1);
  all.status!("quote:AAPL", "stale", "processors do not read partition 3");
  assert.deepEqual([state("AAPL"), state("MSFT")], ["stale", "live"]);
  market.narrow();
  view.push("MSFT");
  market.paint(1000);
  assert.equal(state("AAPL"), "waiting", "what it shows may be old by now");
  view.push("AAPL");
  market.paint(2000);
  stream.followed.get("quote:AAPL")!.status!("quote:AAPL", "live", "");
  assert.equal(state("AAPL"), "live");
});

test("what left the view goes when its room is needed, and the limit is never passed", () => {
  const { view, market, stream } = made(34); // 24 are kept free
  market.narrow();
  for (let page = 0; page < 5; page++) {
    view.splice(0, view.length, ...Array.from({ length: 8 }, (_, at) => `S${page}${at}`));
    market.paint(1000 * (page + 1));
    assert.ok(stream.followed.size <= 10);
    for (const symbol of view) assert.ok(stream.followed.has(`quote:${symbol}`));
  }
  view.splice(0, view.length, ...Array.from({ length: 50 }, (_, at) => `T${at}`));
  market.paint(9000);
  assert.equal(stream.followed.size, 10);
});

test("what only passes by is not asked for, and a hand that never rests gets its quotes every second", () => {
  const { stream, view, market } = made(200);
  market.narrow();
  let asked = "";
  for (let now = 1000; now < 1900; now += 10) {
    view.splice(0, view.length, `S${now}`);
    market.paint(now);
    if (now === 1000) asked = [...stream.followed.keys()].join();
  }
  assert.equal([...stream.followed.keys()].join(), asked);
  market.paint(1950);
  market.paint(1995);
  assert.ok(stream.followed.has("quote:S1890"), "rest");
  for (let now = 2000; now < 4500; now += 10) {
    view.splice(0, view.length, `T${now}`);
    market.paint(now);
  }
  assert.equal([...stream.followed.keys()].filter((name) => name.startsWith("quote:T")).length, 2);
});

test("a pattern that silently got full is noticed by the boards", () => {
  const { market, names } = made(200);
  market.learn({ NEW: row }, 1000);
  market.learn({ NEW: row }, 4000);
  assert.equal(names(), "quote:*");
  market.learn({ NEW: row }, 6500);
  assert.equal(names(), "");
});
