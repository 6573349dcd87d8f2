// Opens the page's one stream, with the control plane's session, through WDS's own browser client.

import { Tapeline, type Info, type State } from "tapeline";
import { learnClock } from "./clock.ts";
import { learnReference } from "./reference.ts";
import { learn } from "./rights.ts";
import type { Connection } from "./freshness.ts";
import type { Listener, Options, Snap, Stream, Subscription } from "./stream.ts";

interface Session {
  wds_url: string;
  token: string;
  now_ms: number;
  /** The scopes of who is signed in. */
  may: readonly string[];
  /** Company data and older bars can be asked for. */
  reference?: boolean;
}

const SESSION_RETRY_MS = 2000;
const SESSION_MS_MAX = 8000;
const SUBSCRIPTIONS_USUAL = 200; // WDS's default, until it has told its own number

/** Why the stream sends a page away, and what to do where it is for good. */
const REASONS: Readonly<Record<number, string>> = {
  1002: "the stream does not speak with this page: reload it",
  1009: "the stream does not speak with this page: reload it",
  4001: "the stream does not take this page's sign-in: sign in again, or reload the page",
  4003: "this account may not open the stream: ask whoever runs it",
  4008: "the sign-in came too late",
  4010: "too many pages are open from here: close one",
  4029: "the stream was asked too often",
  4100: "the stream is busy",
  4108: "this device or its network is too slow",
  4200: "the stream restarts",
};

/** `told` is called for whatever the stream says of the market; not for the pipeline's report, which comes each second. */
export function openStream(told: () => void): Stream {
  return new TapelineStream(told);
}

class TapelineStream implements Stream {
  private opened = 0;
  private starting: ReturnType<typeof setTimeout> | undefined; // the timer of the next attempt to get a session
  private open = false;
  private tape: Tapeline | null = null;
  private fresh: Session | null = null; // fetched and not used yet
  private tell: (connection: Connection, reason: string, waitMs: number) => void = () => {};
  private readonly waiting = new Set<() => void>(); // what was subscribed before the stream's address was known

  constructor(private readonly told: () => void) {
    addEventListener("online", () => this.tape ?? this.retry());
  }

  get reconnects(): number {
    return Math.max(0, this.opened - 1);
  }

  get subscriptionsMax(): number {
    return this.tape?.limits.subs ?? SUBSCRIPTIONS_USUAL;
  }

  onConnection(listener: (connection: Connection, reason: string, waitMs: number) => void): void {
    this.tell = listener;
  }

  async start(): Promise<void> {
    try {
      this.fresh = await this.session();
    } catch (fault) {
      const waitMs = SESSION_RETRY_MS * (0.5 + Math.random());
      this.tell("connecting", `no session: ${(fault as Error).message}`, waitMs);
      this.starting = setTimeout(() => void this.start(), waitMs);
      return;
    }
    this.tape = new Tapeline(this.fresh.wds_url, {
      token: () => this.token(),
      onState: (state) => this.changed(state),
    });
    for (const subscribe of this.waiting) subscribe();
    this.waiting.clear();
  }

  retry(): void {
    clearTimeout(this.starting);
    if (!this.tape) void this.start();
    else if (!this.open) void this.tape.connect();
  }

  subscribe(channels: readonly string[], options: Options, listener: Listener): Subscription {
    const ends: (() => void)[] = [];
    const tell = (data: unknown, info: Info) => {
      deliver(listener, data, info);
      if (!info.ch.startsWith("status:")) this.told();
    };
    const begin = () => channels.forEach((channel) => ends.push(this.tape!.on(channel, tell, options)));
    if (this.tape) begin();
    else this.waiting.add(begin);
    let asking = false;
    return {
      close: () => {
        this.waiting.delete(begin);
        for (const end of ends) end();
        ends.length = 0;
      },
      ask: () => {
        if (asking || !this.tape) return;
        asking = true;
        const done = () => (asking = false);
        this.tape.get(channels).then(done, done); // the answer comes as a snapshot; a new connection brings one by itself
      },
    };
  }

  async get(channels: readonly string[]): Promise<readonly Snap[]> {
    if (!this.tape) throw new Error("not connected");
    return this.tape.get(channels);
  }

  private async token(): Promise<string> {
    const { token } = this.fresh ?? (await this.session());
    this.fresh = null;
    return token;
  }

  private async session(): Promise<Session> {
    const askedAt = Date.now();
    const made = await session();
    const onTheWayMs = Date.now() - askedAt;
    const aheadMs = askedAt + onTheWayMs / 2 - made.now_ms;
    learn(made.may);
    learnReference(made.reference ?? false);
    learnClock(Math.abs(aheadMs) > onTheWayMs ? aheadMs : 0); // less cannot be told from a slow answer; NaN is none
    return made;
  }

  private changed({ state, code, reason, inMs }: State): void {
    this.open = state === "open";
    if (state === "open") {
      this.opened++;
      this.tell("open", "", NaN);
    } else if (state === "closed") {
      this.tell("refused", REASONS[code ?? 0] ?? `the stream refused this page (${code ?? reason ?? "?"})`, NaN);
    } else if (state === "waiting") {
      const why = REASONS[code ?? 0] ?? (this.opened ? "connection lost" : reason || "the stream does not answer");
      const waitMs = inMs ?? 0;
      this.tell("connecting", why + (waitMs >= 1500 ? `, next try in ${Math.round(waitMs / 1000)} s` : ", reconnecting"), waitMs);
    } else {
      this.tell("connecting", this.opened ? "reconnecting" : "connecting to the stream", NaN);
    }
  }
}

function deliver(listener: Listener, data: unknown, info: Info): void {
  const { ch, ts } = info;
  if (info.type === "upd") listener.update?.(ch, info.changed ?? {}, data as Record<string, unknown>, ts);
  else if (info.type === "snap") {
    listener.snapshot(ch, data, ts);
    listener.status?.(ch, info.state, info.reason); // a channel that is followed anew may have changed its state unseen
  } else if (info.type === "event") listener.event?.(ch, info.event, ts);
  else if (info.type === "lost") listener.lost?.(ch, info.lost ?? 0);
  else if (info.type === "status") {
    if (info.error) listener.refused?.(ch, info.error.code, info.error.message ?? "");
    listener.status?.(ch, info.state, info.reason);
  } else {
    const { order, rows } = data as { order: string[]; rows: Record<string, unknown> };
    listener.rows?.(ch, order, rows, ts);
  }
}

async function session(): Promise<Session> {
  const answer = await fetch("/api/session", { cache: "no-store", signal: AbortSignal.timeout(SESSION_MS_MAX) });
  if (answer.status === 401) location.replace("/sign-in"); // the session has ended: nothing here is shown to nobody
  if (!answer.ok) throw new Error(`the control plane answered ${answer.status}`);
  return (await answer.json()) as Session;
}
