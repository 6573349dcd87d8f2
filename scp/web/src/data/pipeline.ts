// Reads the status:pipeline document: the few numbers that a desk watches, and how much of the market flows.
// Invariant: "live" is said only while every source that has not ended is live and heard in every partition.

import type { Freshness } from "./freshness.ts";

/** What the processors say of one source, and `listener`: what it last said of itself. */
export interface Source {
  state?: string;
  reason?: string;
  stale_partitions?: readonly number[];
  expired_events?: number;
  dropped_events?: number;
  fenced_events?: number;
  listener?: Readonly<Record<string, unknown>> | null;
}

/** What the processors say of a plug-in of theirs; `off`: the partitions in which it does not run. */
export interface PlugIn {
  state?: string;
  off?: readonly number[];
  error?: string;
  missed_events?: number;
}

export interface Processors {
  plugins?: Readonly<Record<string, PlugIn>>;
  stale_partitions?: readonly number[];
  partitions_expected?: number;
  events_s?: number;
  lag_ms?: number;
  bad_events?: number;
}

export interface PipelineDocument {
  sources?: Readonly<Record<string, Source>> | null;
  processors?: Processors | null;
}

export interface PipelineReport {
  freshness: Freshness;
  /** The names of the sources that are live. */
  feeds: string;
  eventsPerSecond: number;
  lagMs: number;
  /** Events that were received and never shown: dropped, expired, fenced, bad. */
  lost: number;
  /** The parts of `lost` that are not zero, in words. */
  losses: string;
}

const LOSSES: readonly [string, (source: Source) => unknown][] = [
  ["dropped at the listener", ({ listener }) => listener?.["dropped_events"]],
  ["malformed", ({ listener }) => listener?.["malformed"]],
  ["expired in the queue", ({ expired_events }) => expired_events],
  ["dropped in the queue", ({ dropped_events }) => dropped_events],
  ["of a replaced listener", ({ fenced_events }) => fenced_events],
];

/** Read a status:pipeline document; a number that it lacks is NaN. */
export function report(document: PipelineDocument): PipelineReport {
  const sources = Object.entries(document.sources ?? {});
  const processors = document.processors ?? {};
  const lost = LOSSES.map(([name, of]) => ({ name, n: sources.reduce((sum, [, source]) => sum + (number(of(source)) || 0), 0) }));
  lost.push({ name: "bad", n: number(processors.bad_events) || 0 });
  return {
    freshness: judged(sources, processors),
    feeds: sources.filter(([, { state }]) => state === "live").map(([name]) => name).join(", "),
    eventsPerSecond: number(processors.events_s),
    lagMs: number(processors.lag_ms),
    lost: lost.reduce((sum, { n }) => sum + n, 0),
    losses: lost.filter(({ n }) => n > 0).map(({ name, n }) => `${n} ${name}`).join(", "),
  }; // prettier-ignore
}

function judged(sources: readonly [string, Source][], { stale_partitions: unread = [], partitions_expected: all = 0 }: Processors): Freshness {
  if (sources.length === 0) return { verdict: "stale", reason: "no feed is known" };
  if (unread.length > 0 && unread.length >= all) return { verdict: "stale", reason: "no partition is read" };
  const running = sources.filter(([, { state }]) => state !== "ended");
  if (running.length === 0) return { verdict: "closed", reason: "replay ended" };
  const live = running.filter(([, { state }]) => state === "live");
  const faults = running.filter(([, { state }]) => state !== "live").map(([name, source]) => fault(name, source));
  if (live.length === 0) return { verdict: "stale", reason: faults.join("; ") };
  if (unread.length > 0) faults.push(`${unread.length} of ${all} partitions not read`);
  for (const [name, { stale_partitions = [] }] of live) {
    const unheard = stale_partitions.filter((partition) => !unread.includes(partition)).length;
    if (unheard > 0) faults.push(`${name} not heard in ${unheard} of ${all} partitions`);
  }
  return faults.length > 0 ? { verdict: "partly", reason: faults.join("; ") } : { verdict: "live", reason: "" };
}

/** A silent source's reason counts the seconds: it is left out, or a screen reader would read it out each second. */
function fault(name: string, { state = "unknown", reason = "" }: Source): string {
  return reason && state !== "silent" ? `${name} ${state}: ${reason}` : `${name} ${state}`;
}

function number(value: unknown): number {
  return typeof value === "number" ? value : NaN;
}
