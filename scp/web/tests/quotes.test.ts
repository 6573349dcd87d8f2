import assert from "node:assert/strict";
import { test } from "node:test";
import { ordered } from "../src/data/order.ts";
import { matches } from "../src/data/matches.ts";
import { QuoteTable, ROWS_MAX, STATES } from "../src/data/quotes.ts";

const drained = (table: QuoteTable) => {
  const rows: number[] = [];
  table.drain((row) => rows.push(row));
  return rows;
};

test("an update changes what it names and nothing else", () => {
  const table = new QuoteTable();
  table.apply("AAPL", { last: 10, bid: 9.99 }, 1, true);
  table.apply("AAPL", { last: 11 }, 2);
  const row = table.row("AAPL");
  assert.equal(table.columns.last[row], 11);
  assert.equal(table.columns.bid[row], 9.99);
  assert.ok(Number.isNaN(table.columns.ask[row]));
});

test("a snapshot forgets what it lacks, and null is unknown", () => {
  const table = new QuoteTable();
  const row = table.apply("AAPL", { last: 10, bid: 9 }, 1, true);
  table.apply("AAPL", { last: null }, 2);
  assert.ok(Number.isNaN(table.columns.last[row]));
  table.apply("AAPL", { last: 12 }, 3, true);
  assert.ok(Number.isNaN(table.columns.bid[row]));
});

test("a row's state is told when it or its reason changes, and survives new prices and the table's growth", () => {
  const table = new QuoteTable();
  const row = table.apply("A", { last: 1 }, 1);
  drained(table);
  table.mark("A", "live", "");
  table.mark("NEVER", "stale", "unknown symbols are not added");
  assert.deepEqual([drained(table), table.size], [[], 1]);
  table.mark("A", "stale", "feed crypto silent");
  table.mark("A", "stale", "feed crypto silent");
  assert.deepEqual([drained(table), table.reason(row)], [[0], "feed crypto silent"]);
  for (let n = 0; n < 100; n++) table.apply(`S${n}`, { last: n }, 2);
  assert.equal(STATES[table.states[row]!], "stale");
  table.mark("A", "closed", "replay ended");
  assert.deepEqual([STATES[table.states[row]!], table.reason(row)], ["closed", "replay ended"]);
  table.mark("A", "live", "");
  assert.deepEqual([STATES[table.states[row]!], table.reason(row)], ["live", ""]);
});

test("a row is told once however often it changed", () => {
  const table = new QuoteTable();
  for (let n = 0; n < 5; n++) table.apply("A", { last: n }, n);
  table.apply("B", { last: 1 }, 1);
  assert.deepEqual(drained(table), [0, 1]);
  assert.deepEqual(drained(table), []);
  assert.equal(table.updates, 6);
});

test("moves have a direction, snapshots and first values have none", () => {
  const table = new QuoteTable();
  const row = table.apply("A", { last: 10 }, 5, true);
  assert.equal(table.movedAt["last"]![row], 0);
  table.apply("A", { last: 11 }, 6);
  assert.deepEqual([table.direction["last"]![row], table.movedAt["last"]![row]], [1, 6]);
  table.apply("A", { last: 11 }, 7);
  assert.equal(table.movedAt["last"]![row], 6);
  table.apply("A", { last: 9 }, 8);
  assert.equal(table.direction["last"]![row], -1);
});

test("decimals follow the quotes, and the prints only where nobody quotes", () => {
  const table = new QuoteTable();
  const stock = table.apply("AAPL", { bid: 10.01, ask: 10.02, last: 10.0156 }, 1);
  table.apply("AAPL", { last: 10.0157 }, 2);
  const coin = table.apply("SKL-USD", { last: 0.00001302 }, 1);
  const pair = table.apply("USD/EUR", { bid: 1.08345 }, 1);
  assert.deepEqual([stock, coin, pair].map((row) => table.decimals[row]), [2, 8, 5]);
});

test("the decimals of sizes follow the lots, and never shrink", () => {
  const table = new QuoteTable();
  const perp = table.apply("BTC-PERP", { bid_size: 0.012, ask_size: 3 }, 1);
  table.apply("BTC-PERP", { bid_size: 2 }, 2);
  const stock = table.apply("AAPL", { bid_size: 100, ask_size: null }, 1);
  assert.deepEqual([perp, stock].map((row) => table.sizeDecimals[row]), [3, 0]);
});

test("the table grows past its first size and is bounded", () => {
  const table = new QuoteTable();
  for (let n = 0; n < ROWS_MAX + 3; n++) table.apply(`S${n}`, { last: n }, 1);
  assert.equal(table.size, ROWS_MAX);
  assert.equal(table.refusedSymbols, 3);
  assert.equal(table.columns.last[table.row("S777")], 777);
  assert.equal(table.row("S20001"), -1);
});

test("rows are ordered by a column, unknown values last, ties by symbol", () => {
  const table = new QuoteTable();
  for (const [symbol, volume] of [["C", 5], ["A", NaN], ["D", 9], ["B", 5]] as const) table.apply(symbol, { volume }, 1); // prettier-ignore
  const names = (by: "volume" | "symbol", descending: boolean) =>
    [...ordered(table, { by, descending })].map((row) => table.symbols[row]).join("");
  assert.equal(names("volume", true), "DBCA");
  assert.equal(names("volume", false), "BCDA");
  assert.equal(names("symbol", false), "ABCD");
  assert.equal(names("symbol", true), "DCBA");
});

test("a search finds the exact symbol first, then beginnings, then the rest by weight", () => {
  const symbols = ["BAA", "AA", "AAPL", "AAL", "ZZ"];
  const weights = [900, 1, 5, 50, 0];
  assert.deepEqual(matches(symbols, " aa ", (row) => weights[row]!, 3), ["AA", "AAL", "AAPL"]);
  assert.deepEqual(matches(symbols, "aa", (row) => weights[row]!, 9).at(-1), "BAA");
  assert.deepEqual(matches(symbols, "", () => 0, 9), []);
  assert.deepEqual(matches(["X:BTC-USD"], "usd", () => NaN, 9), ["X:BTC-USD"]);
});
