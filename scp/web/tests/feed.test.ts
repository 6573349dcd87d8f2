import assert from "node:assert/strict";
import { test } from "node:test";
import { BarSeries } from "../src/bars.ts";
import { FreshnessJudge, SILENCE_MS_MAX } from "../src/freshness.ts";
import { report } from "../src/pipeline.ts";

const bar = (i: number, close: number, more: object = {}) => ({
  t: i * 1000, open: 1, high: 9, low: 1, close, volume: 10, i, rev: 0, prev: null, ...more,
}); // prettier-ignore
const packed = (i: number, close: number) => [i * 1000, 1, 9, 1, close, 10, 1, 3];

test("a snapshot is history, the previous bar and the bar in the making, each once and in order", () => {
  const step = new BarSeries().snapshot({ ...bar(5, 50), prev: packed(4, 44), history: [packed(3, 30), packed(4, 40)] });
  assert.equal(step.do, "reset");
  assert.deepEqual(step.do === "reset" && step.bars.map(({ t, close }) => [t, close]), [[3000, 30], [4000, 44], [5000, 50]]); // prettier-ignore
});

test("the next bar brings the last word on the one before", () => {
  const series = new BarSeries();
  series.snapshot(bar(5, 50));
  assert.deepEqual(series.update(bar(5, 51)), { do: "update", bars: [{ t: 5000, open: 1, high: 9, low: 1, close: 51, volume: 10 }] });
  const step = series.update(bar(6, 60, { prev: packed(5, 55) }));
  assert.deepEqual(step.do === "update" && step.bars.map(({ t, close }) => [t, close]), [[5000, 55], [6000, 60]]); // prettier-ignore
});

test("a skipped bar, a correction and a restart ask for a snapshot", () => {
  for (const next of [bar(8, 1), bar(5, 1, { rev: 1 }), bar(2, 1)]) {
    const series = new BarSeries();
    series.snapshot(bar(5, 50));
    assert.deepEqual(series.update(next), { do: "ask" });
  }
  assert.deepEqual(new BarSeries().update(bar(5, 1)), { do: "ask" });
});

test("a bar without prices is not drawn, and the bars around it are", () => {
  const odd = new BarSeries();
  const step = odd.snapshot({ ...bar(5, 50, { open: null }), history: [packed(3, 30), [4000, null, null, null, null, 7, null, 2]] });
  assert.deepEqual(step.do === "reset" && step.bars.map(({ t }) => t), [3000]);
  const next = odd.update(bar(6, 60, { open: null, prev: packed(5, 55) }));
  assert.deepEqual(next.do === "update" && next.bars.map(({ t }) => t), [5000]);
  assert.equal(odd.update(bar(7, 70, { prev: [6000, null, null, null, null, 1, null, 1] })).do, "update");
  const series = new BarSeries();
  assert.deepEqual(series.snapshot({ i: 3, t: 3000, open: null }), { do: "reset", bars: [] });
  assert.deepEqual(series.update({}), { do: "nothing" });
});

test("live is said only while the stream is open and the pipeline speaks", () => {
  const judge = new FreshnessJudge();
  assert.equal(judge.verdict(0).verdict, "waiting");
  judge.connected("open");
  assert.equal(judge.verdict(1).verdict, "waiting");
  judge.heard(10);
  assert.deepEqual(judge.verdict(20), { verdict: "live", reason: "" });
  assert.equal(judge.verdict(10 + SILENCE_MS_MAX + 1).verdict, "stale");
});

test("the server's word and a lost connection make numbers stale, with the reason", () => {
  const judge = new FreshnessJudge();
  judge.connected("open");
  judge.heard(10);
  judge.channel("stale", "processors silent");
  assert.deepEqual(judge.verdict(11), { verdict: "stale", reason: "processors silent" });
  judge.channel("closed", "replay ended");
  assert.deepEqual(judge.verdict(11), { verdict: "closed", reason: "replay ended" });
  judge.connected("connecting", "reconnecting in 2 s");
  assert.deepEqual(judge.verdict(11), { verdict: "stale", reason: "reconnecting in 2 s" });
  judge.connected("open");
  assert.equal(judge.verdict(11).verdict, "live");
});

test("losses are added up and named, and what is missing is unknown", () => {
  const made = report({
    listener: { feed: "massive", state: "live", dropped_events: 3 },
    processors: { events_s: 12.5, lag_ms: 8, expired_events: 4, bad_events: 0 },
  });
  assert.deepEqual([made.feed, made.feedState, made.eventsPerSecond, made.lagMs, made.lost], ["massive", "live", 12.5, 8, 7]);
  assert.equal(made.losses, "3 dropped at the listener, 4 expired in the queue");
  assert.ok(Number.isNaN(report({}).eventsPerSecond));
  assert.equal(report({ listener: null, processors: null }).lost, 0);
});
