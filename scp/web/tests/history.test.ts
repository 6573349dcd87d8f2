import assert from "node:assert/strict";
import { test } from "node:test";
import type { Bar } from "../src/data/bars.ts";
import { History, type OlderBars } from "../src/data/history.ts";

const STEP = 60_000;
const bar = (n: number, close = n, volume = 10): Bar => ({ t: n * STEP, open: close, high: close, low: close, close, volume });
const bars = (from: number, to: number): Bar[] => Array.from({ length: to - from }, (_, at) => bar(from + at));
const page = (from: number, to: number, more: Partial<OlderBars> = {}): OlderBars => ({
  bars: bars(from, to).map(({ t, open, high, low, close, volume }) => [t, open, high, low, close, volume, null, 1]),
  next: from > 0 ? from * STEP : null, split_ms: null, stale: false, as_of_ms: 0, ...more,
}); // prettier-ignore
const numbers = (found: readonly Bar[] | null) => found?.map(({ t }) => t / STEP);
const upTo = (from: number, to: number) => Array.from({ length: to - from }, (_, at) => from + at);

test("older bars stand before the live ones, each once", () => {
  const history = new History(STEP);
  history.snapshot(bars(100, 105));
  assert.equal(history.before(0), 100 * STEP + 1);
  assert.deepEqual(numbers(history.take(page(90, 101), 100 * STEP + 1)), upTo(90, 105));
  assert.equal(history.before(0), 90 * STEP);
  assert.deepEqual(numbers(history.take(page(80, 90), 90 * STEP)), upTo(80, 105));
  assert.equal(history.take(page(0, 80), 80 * STEP).length, 105);
  assert.deepEqual([history.ended, history.before(0)], [true, null]);
});

test("the first live bar is the whole one, others are the stream's", () => {
  const history = new History(STEP);
  history.snapshot([bar(100, 1, 3), bar(101, 2, 3)]);
  const whole = page(98, 102);
  assert.deepEqual(history.take(whole, 100 * STEP + 1).map(({ close }) => close), [98, 99, 100, 2]); // prettier-ignore
  const fuller = new History(STEP);
  fuller.snapshot([bar(100, 1, 30), bar(101, 2, 3)]);
  assert.deepEqual(fuller.take(whole, 100 * STEP + 1).map(({ close }) => close), [98, 99, 1, 2]); // prettier-ignore
});

test("what the stream lets go of stays, what it never told is no silent hole", () => {
  const history = new History(STEP);
  history.snapshot(bars(100, 105));
  history.take(page(90, 101), 100 * STEP + 1);
  assert.equal(history.update([bar(105), bar(104, 7)]), null);
  assert.deepEqual(numbers(history.snapshot(bars(103, 108))), upTo(90, 108));
  assert.deepEqual(numbers(history.snapshot(bars(120, 125))), upTo(120, 125));
  assert.equal(history.before(0), 120 * STEP + 1);
  assert.deepEqual(numbers(history.take(page(100, 121), 120 * STEP + 1)), upTo(100, 125));
});

test("a symbol that has not traded yet has its past, and is joined when it does", () => {
  const history = new History(STEP);
  history.snapshot([]);
  assert.equal(history.before(100.5 * STEP), 100.5 * STEP);
  assert.deepEqual(numbers(history.take(page(95, 100), 100.5 * STEP)), upTo(95, 100));
  assert.deepEqual(numbers(history.snapshot([bar(99)])), upTo(95, 100));
  assert.deepEqual(numbers(history.snapshot(bars(104, 106))), upTo(99, 100).concat(104, 105).slice(1), "a hole: asked again");
});

test("bars of before a split are the worked over ones", () => {
  const history = new History(STEP);
  history.snapshot(bars(100, 110).map((one) => ({ ...one, close: one.close * (one.t < 105 * STEP ? 2 : 1) })));
  const split = { split_ms: 105 * STEP };
  assert.deepEqual(numbers(history.take(page(90, 101, split), 100 * STEP + 1)), upTo(105, 110));
  assert.equal(history.before(0), 105 * STEP + 1);
  const found = history.take(page(95, 106, split), 105 * STEP + 1);
  assert.deepEqual(found.map(({ close }) => close), upTo(95, 110)); // prettier-ignore
});

test("a long day is bounded, and its older bars can be asked for again", () => {
  const history = new History(STEP);
  history.snapshot(bars(100, 105));
  history.take(page(90, 101), 100 * STEP + 1);
  let kept: Bar[] | null = null;
  for (let n = 105; kept === null; n++) kept = history.update([bar(n)]);
  assert.equal(kept.length, 2500);
  assert.equal(history.before(0), kept[0]!.t + 1);
});

test("however live and older bars come, what is drawn is the market's own series", () => {
  let seed = 7;
  const dice = (below: number) => (seed = (seed * 48271) % 2147483647) % below;
  for (let round = 0; round < 300; round++) {
    const word = new Map<number, number>(); // the market: a close for each bar, corrections included
    const market = (n: number) => bar(n, word.get(n) ?? n);
    const history = new History(STEP);
    let [from, now] = [1000, 1003 + dice(5)];
    let drawn = history.snapshot(Array.from({ length: now - from }, (_, at) => market(from + at)));
    for (let act = 0; act < 40; act++) {
      const kind = dice(5);
      if (kind === 0) {
        now++;
        const step = [market(now - 2), market(now - 1)];
        drawn = history.update(step) ?? merged(drawn, step);
      } else if (kind === 1) {
        const n = Math.max(from, now - 1 - dice(3)); // the stream corrects what it still has
        word.set(n, n + 0.5);
        drawn = history.snapshot(Array.from({ length: now - from }, (_, at) => market(from + at)));
      } else if (kind === 2) {
        if (dice(4) === 0) now += dice(30); // we were away for a while
        from = Math.max(from, now - 1 - dice(12));
        drawn = history.snapshot(Array.from({ length: now - from }, (_, at) => market(from + at)));
      } else {
        const before = history.before(now * STEP);
        if (before === null) continue;
        const first = Math.max(900, Math.ceil(before / STEP) - 1 - dice(20));
        const asked = Array.from({ length: Math.ceil(before / STEP) - first }, (_, at) => market(first + at));
        drawn = history.take({ ...page(0, 0), bars: asked.map(({ t, open, high, low, close, volume }) => [t, open, high, low, close, volume]), next: first > 900 ? first * STEP : null }, before);
      }
      const seen = numbers(drawn)!;
      assert.deepEqual(seen, upTo(seen[0]!, now), `round ${round}: a hole or a double`);
      for (const { t, close } of drawn) assert.equal(close, word.get(t / STEP) ?? t / STEP);
    }
  }
});

function merged(drawn: Bar[], step: Bar[]): Bar[] {
  const byTime = new Map([...drawn, ...step].map((one) => [one.t, one]));
  return [...byTime.values()].sort((a, b) => a.t - b.t);
}
