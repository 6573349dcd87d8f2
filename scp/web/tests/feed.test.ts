import assert from "node:assert/strict";
import { test } from "node:test";
import { BarSeries } from "../src/data/bars.ts";
import { FreshnessJudge, SILENCE_MS_MAX } from "../src/data/freshness.ts";
import { report, type Source } from "../src/data/pipeline.ts";

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

const LIVE = { verdict: "live", reason: "" } as const;

test("live is said only while the stream is open and the pipeline speaks", () => {
  const judge = new FreshnessJudge();
  assert.equal(judge.verdict(0).verdict, "waiting");
  judge.connected("open");
  assert.equal(judge.verdict(1).verdict, "waiting");
  judge.heard(10, LIVE);
  assert.deepEqual(judge.verdict(20), LIVE);
  judge.heard(11, { verdict: "partly", reason: "crypto silent" });
  assert.deepEqual(judge.verdict(20), { verdict: "partly", reason: "crypto silent" });
  assert.equal(judge.verdict(11 + SILENCE_MS_MAX + 1).verdict, "stale");
});

test("a page that comes into view again is not live before it has heard so, and blames nobody for the pause", () => {
  const judge = new FreshnessJudge();
  judge.connected("open");
  judge.heard(10, LIVE);
  judge.shown(60_000);
  assert.deepEqual(judge.verdict(60_001), { verdict: "stale", reason: "catching up" });
  assert.deepEqual(judge.verdict(60_001 + SILENCE_MS_MAX), { verdict: "stale", reason: "pipeline silent" });
  judge.heard(60_100, LIVE);
  assert.deepEqual(judge.verdict(60_101), LIVE);
});

test("the server's word and a lost connection make numbers stale, with the reason", () => {
  const judge = new FreshnessJudge();
  judge.connected("open");
  judge.heard(10, LIVE);
  judge.channel("stale", "processors silent");
  assert.deepEqual(judge.verdict(11), { verdict: "stale", reason: "processors silent" });
  judge.channel("live", "");
  assert.deepEqual(judge.verdict(11), LIVE);
  judge.channel("stale", "");
  judge.connected("connecting", "reconnecting in 2 s");
  assert.deepEqual(judge.verdict(11), { verdict: "stale", reason: "reconnecting in 2 s" });
  judge.connected("open");
  assert.equal(judge.verdict(11).verdict, "live");
});

const judged = (sources: Record<string, Source>, unread: number[] = []) =>
  report({ sources, processors: { stale_partitions: unread, partitions_expected: 8 } }).freshness;
const live: Source = { state: "live", reason: "", stale_partitions: [] };
const ended: Source = { ...live, state: "ended" };
const silent: Source = { ...live, state: "silent", reason: "nothing was heard of it for 4 s" };

test("the market is live while every source that has not ended is live in every partition", () => {
  assert.deepEqual(judged({ stocks: live, crypto: live }), LIVE);
  assert.deepEqual(judged({ stocks: live, tape: ended }), LIVE);
  assert.equal(report({ sources: { stocks: live, tape: ended, crypto: live } }).feeds, "stocks, crypto");
});

test("a source that is down and a partition that is not read make it partly live, and are named", () => {
  const partly = (reason: string) => ({ verdict: "partly", reason });
  assert.deepEqual(judged({ stocks: live, crypto: silent }), partly("crypto silent"));
  assert.deepEqual(judged({ stocks: live, crypto: { ...live, state: "stopped" } }), partly("crypto stopped"));
  assert.deepEqual(judged({ stocks: { ...live, stale_partitions: [3] } }, [3]), partly("1 of 8 partitions not read"));
  const deaf = { ...live, stale_partitions: [3, 5, 6] };
  assert.deepEqual(judged({ stocks: live, crypto: deaf }), partly("crypto not heard in 3 of 8 partitions"));
  const refused = { ...live, state: "refused", reason: "not authorized" };
  const all = "options refused: not authorized; 1 of 8 partitions not read; crypto not heard in 2 of 8 partitions";
  assert.deepEqual(judged({ crypto: deaf, options: refused }, [3]), partly(all));
});

test("nothing is live without a live source or a partition that is read, and an ended replay is closed", () => {
  assert.deepEqual(judged({ tape: ended, other: ended }), { verdict: "closed", reason: "replay ended" });
  assert.deepEqual(judged({ tape: ended, crypto: silent }), { verdict: "stale", reason: "crypto silent" });
  assert.deepEqual(judged({ stocks: live }, [0, 1, 2, 3, 4, 5, 6, 7]), { verdict: "stale", reason: "no partition is read" });
  assert.deepEqual(judged({}), { verdict: "stale", reason: "no feed is known" });
  assert.equal(report({ sources: null, processors: null }).freshness.verdict, "stale");
});

test("losses are added up over the sources and named, and what is missing is unknown", () => {
  const made = report({
    sources: {
      stocks: { ...live, expired_events: 4, fenced_events: 2, listener: { dropped_events: 3 } },
      crypto: { ...live, expired_events: 5, listener: null },
    },
    processors: { events_s: 12.5, lag_ms: 8, bad_events: 0 },
  });
  assert.deepEqual([made.feeds, made.eventsPerSecond, made.lagMs, made.lost], ["stocks, crypto", 12.5, 8, 14]);
  assert.equal(made.losses, "3 dropped at the listener, 9 expired in the queue, 2 of a replaced listener");
  assert.ok(Number.isNaN(report({}).eventsPerSecond));
  assert.equal(report({ sources: null, processors: null }).lost, 0);
});
