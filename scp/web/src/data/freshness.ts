// Judges whether the page as a whole may be believed: by its connection, the stream's word and the pipeline's report.
// Invariant: "live" is said only while the stream is open and the pipeline has reported within SILENCE_MS_MAX.

export type Connection = "connecting" | "open" | "refused";
/** `partly`: some of the channels are stale, and each of them says so itself. */
export type Verdict = "live" | "partly" | "waiting" | "stale" | "closed";

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
  private unheard: string | null = null; // why the stream has no word of the pipeline
  private heardAt = 0;
  private shownAt = -Infinity; // when the page came into view again
  private report: Freshness = { verdict: "waiting", reason: "" };

  connected(connection: Connection, reason = ""): void {
    this.connection = connection;
    this.connectionReason = reason;
    if (connection === "open") this.everOpen = true;
    else this.unheard = null;
  }

  /** The stream's word on the pipeline's own channel: anything but live means that it hears nothing of the pipeline. */
  channel(state: string, reason: string): void {
    this.unheard = state === "live" ? null : reason || "pipeline not heard";
  }

  /** The page comes into view at `now`: while it was hidden nothing was sent to it, which is nobody's fault. */
  shown(now: number): void {
    this.shownAt = now;
  }

  /** The pipeline reported at `now` (milliseconds of the page's clock) what is to be thought of it. */
  heard(now: number, report: Freshness): void {
    this.heardAt = now;
    this.report = report;
  }

  verdict(now: number): Freshness {
    if (this.connection !== "open") {
      return { verdict: this.everOpen ? "stale" : "waiting", reason: this.connectionReason };
    }
    if (this.unheard !== null) return { verdict: "stale", reason: this.unheard };
    if (this.heardAt === 0) return { verdict: "waiting", reason: "waiting for the pipeline's first report" };
    if (now - this.heardAt > SILENCE_MS_MAX) {
      return { verdict: "stale", reason: now - this.shownAt > SILENCE_MS_MAX ? "pipeline silent" : "catching up" };
    }
    return this.report;
  }
}
