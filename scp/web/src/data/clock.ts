// Tells the pipeline's time: a browser's own clock may be hours off, and ages by it would be wrong by as much.

let aheadMs = 0; // until it is known

/** This browser's clock is ahead of the pipeline's by so much, ms; negative when it is behind. */
export function learnClock(ms: number): void {
  aheadMs = ms;
}

/** Milliseconds since the epoch, as the pipeline has them. */
export function pipelineNow(): number {
  return Date.now() - aheadMs;
}
