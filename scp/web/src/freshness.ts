// Connection, channel states and the pipeline's own report in; one verdict out: may these numbers be believed?
// Invariant: "live" is said only while the stream is open and the pipeline has reported within SILENCE_MS_MAX.

export type Connection = "connecting" | "open" | "refused";
export type Verdict = "live" | "waiting" | "stale" | "closed";

export interface Freshness {
  verdict: Verdict;
  /** Why, in words for people; empty when live. */
  reason: string;
}

export const SILENCE_MS_MAX = 6000; // the pipeline reports each second and the server itself calls 5 s silent

export class FreshnessJudge {
  private connection: Connection = "connecting";
  private connectionReason = "connecting to the stream";
  private everOpen = false;
  private state: { state: string; reason: string } | null = null;
  private heardAt = 0;

  connected(connection: Connection, reason = ""): void {
    this.connection = connection;
    this.connectionReason = reason;
    if (connection === "open") this.everOpen = true;
    else this.state = null;
  }

  /** The server's word on a channel: live, stale or closed. It says the same of all channels, so the last one counts. */
  channel(state: string, reason: string): void {
    this.state = { state, reason };
  }

  /** The pipeline reported at `now` (milliseconds of the page's clock). */
  heard(now: number): void {
    this.heardAt = now;
  }

  verdict(now: number): Freshness {
    if (this.connection !== "open") {
      return { verdict: this.everOpen ? "stale" : "waiting", reason: this.connectionReason };
    }
    if (this.state?.state === "closed") return { verdict: "closed", reason: this.state.reason || "feed ended" };
    if (this.state?.state === "stale") return { verdict: "stale", reason: this.state.reason || "feed stale" };
    if (this.heardAt === 0) return { verdict: "waiting", reason: "waiting for the pipeline's first report" };
    if (now - this.heardAt > SILENCE_MS_MAX) return { verdict: "stale", reason: "pipeline silent" };
    return { verdict: "live", reason: "" };
  }
}
