// The status:pipeline document in, the few numbers that a desk watches out.

export interface PipelineDocument {
  listener?: Record<string, unknown> | null;
  processors?: Record<string, unknown> | null;
}

export interface PipelineReport {
  feed: string;
  feedState: string;
  eventsPerSecond: number;
  lagMs: number;
  flushMs: number;
  /** Events that were received and never shown: dropped, expired, bad. */
  lost: number;
  /** The parts of `lost` that are not zero, in words. */
  losses: string;
}

const LOSSES: readonly [string, "listener" | "processors", string][] = [
  ["dropped at the listener", "listener", "dropped_events"],
  ["malformed", "listener", "malformed"],
  ["expired in the queue", "processors", "expired_events"],
  ["dropped in the queue", "processors", "dropped_events"],
  ["bad", "processors", "bad_events"],
];

/** Read a status:pipeline document; a number that it lacks is NaN. */
export function report(document: PipelineDocument): PipelineReport {
  const lost = LOSSES.map(([name, part, field]) => ({ name, n: number(document[part]?.[field]) || 0 }));
  return {
    feed: String(document.listener?.["feed"] ?? ""),
    feedState: String(document.listener?.["state"] ?? ""),
    eventsPerSecond: number(document.processors?.["events_s"]),
    lagMs: number(document.processors?.["lag_ms"]),
    flushMs: number(document.processors?.["flush_ms"]),
    lost: lost.reduce((sum, { n }) => sum + n, 0),
    losses: lost.filter(({ n }) => n > 0).map(({ name, n }) => `${n} ${name}`).join(", "),
  };
}

function number(value: unknown): number {
  return typeof value === "number" ? value : NaN;
}
