// Opens the page's one stream, with the control plane's session, through WDS's own browser client.

import { Tapeline, type Info, type State } from "tapeline";
import type { Connection } from "./freshness.ts";
import type { Listener, Options, Snap, Stream, Subscription } from "./stream.ts";

interface Session {
  wds_url: string;
  token: string;
}

const SESSION_RETRY_MS = 2000;
const SUBSCRIPTIONS_USUAL = 200; // WDS's default, until it has told its own number

export function openStream(): Stream {
  return new TapelineStream();
}

class TapelineStream implements Stream {
  subscriptionsMax = SUBSCRIPTIONS_USUAL;
  private opened = 0;
  private tape: Tapeline | null = null;
  private fresh: Session | null = null; // fetched and not used yet
  private tell: (connection: Connection, reason: string) => void = () => {};
  private readonly waiting = new Set<() => void>(); // what was subscribed before the stream's address was known

  get reconnects(): number {
    return Math.max(0, this.opened - 1);
  }

  onConnection(listener: (connection: Connection, reason: string) => void): void {
    this.tell = listener;
  }

  async start(): Promise<void> {
    try {
      this.fresh = await session();
    } catch (fault) {
      this.tell("connecting", `no session: ${(fault as Error).message}`);
      setTimeout(() => void this.start(), SESSION_RETRY_MS);
      return;
    }
    this.tape = new Tapeline(this.fresh.wds_url, {
      token: () => this.token(),
      onState: (state) => this.changed(state),
      WebSocket: listening((limit) => (this.subscriptionsMax = limit)),
    });
    for (const subscribe of this.waiting) subscribe();
    this.waiting.clear();
  }

  subscribe(channels: readonly string[], options: Options, listener: Listener): Subscription {
    const ends: (() => void)[] = [];
    const tell = (data: unknown, info: Info) => deliver(listener, data, info);
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
        this.tape.get(channels).then((snaps) => {
          done();
          if (ends.length === 0) return; // closed meanwhile
          for (const snap of snaps) if (!snap.error) listener.snapshot(snap.ch, snap.data, snap.ts);
        }, done); // the connection is gone: the resumed one asks again
      },
    };
  }

  async get(channels: readonly string[]): Promise<readonly Snap[]> {
    if (!this.tape) throw new Error("not connected");
    return this.tape.get(channels);
  }

  private async token(): Promise<string> {
    const { token } = this.fresh ?? (await session());
    this.fresh = null;
    return token;
  }

  private changed({ state, code, reason, inMs }: State): void {
    if (state === "open") {
      this.opened++;
      this.tell("open", "");
    } else if (state === "closed") {
      this.tell("refused", `the stream refused this page (${code ?? reason ?? "?"}): reload it`);
    } else if (state === "waiting") {
      const again = (inMs ?? 0) >= 1500 ? `, next try in ${Math.round((inMs ?? 0) / 1000)} s` : ", reconnecting";
      this.tell("connecting", (this.opened ? "connection lost" : reason || "the stream does not answer") + again);
    } else {
      this.tell("connecting", this.opened ? "reconnecting" : "connecting to the stream");
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
  else if (info.error) listener.refused?.(ch, info.error.code, info.error.message ?? "");
  else if (info.type === "status") listener.status?.(ch, info.state, info.reason);
  else {
    const { order, rows } = data as { order: string[]; rows: Record<string, unknown> };
    listener.rows?.(ch, order, rows, ts);
  }
}

async function session(): Promise<Session> {
  const answer = await fetch("/api/session", { cache: "no-store" });
  if (!answer.ok) throw new Error(`the control plane answered ${answer.status}`);
  return (await answer.json()) as Session;
}

/** A WebSocket that reads the limits out of the stream's greeting, which the client keeps to itself. */
function listening(limits: (subscriptions: number) => void): typeof WebSocket {
  return class extends WebSocket {
    constructor(url: string | URL, protocols?: string | string[]) {
      super(url, protocols);
      this.addEventListener("message", (event) => limits(greeted(event.data as string)), { once: true });
    }
  };
}

function greeted(text: string): number {
  const frame = JSON.parse(text) as { limits?: { subs?: number } } | { limits?: { subs?: number } }[];
  return (Array.isArray(frame) ? frame[0] : frame)?.limits?.subs ?? SUBSCRIPTIONS_USUAL;
}
