// Plays the stream's part for the browser client's tests: a clock that is turned by hand, and a server that keeps WDS's rules.

interface Timer {
  at: number;
  run: () => void;
}

/** Time that passes only when a test lets it. */
export class HandClock {
  private at = 1_000_000;
  private next = 1;
  private readonly timers = new Map<number, Timer>();

  now = (): number => this.at;

  setTimeout = (run: () => void, ms = 0): number => {
    this.timers.set(this.next, { at: this.at + Math.max(0, ms), run });
    return this.next++;
  };

  clearTimeout = (id: number): void => void this.timers.delete(id);

  /** Let `ms` pass; everything that falls due in it is done, in order. */
  async pass(ms: number): Promise<void> {
    const until = this.at + ms;
    for (;;) {
      await new Promise((resolve) => setImmediate(resolve)); // promises first: they take no time
      const due = [...this.timers].filter(([, timer]) => timer.at <= until).sort((a, b) => a[1].at - b[1].at || a[0] - b[0])[0];
      if (!due) break;
      this.timers.delete(due[0]);
      this.at = Math.max(this.at, due[1].at);
      due[1].run();
    }
    this.at = until;
  }

  /** The machine sleeps: time passes, and nothing is done in it. */
  sleep(ms: number): void {
    this.at += ms;
  }
}

type Fields = readonly string[] | null;
type Document = Record<string, number>;
export interface Command {
  id?: number;
  op: string;
  ch?: string[];
  hz?: number | "raw";
  fields?: string[];
  since?: Record<string, { epoch: string; seq: number }>;
  paused?: boolean;
  token?: string;
}

interface Held {
  hz: unknown;
  fields: Fields;
}

interface Pattern extends Held {
  joined: Set<string>;
  excluded: Set<string>;
}

const LATENCY_MS = 20;

export interface Rules {
  commands_s: number;
  commands_burst: number;
  violations_max: number;
  /** Whether the greeting says the rate, or leaves it to the client to find out. */
  announces: boolean;
  /** Whether a name under a pattern is taken as a wish of its own, or refused as already subscribed. */
  merges: boolean;
  /** Channels a connection may follow. */
  subs: number;
}

export const RULES: Rules = { commands_s: 20, commands_burst: 100, violations_max: 50, announces: true, merges: false, subs: 1000 };

/** The market and all connections to it. */
export class Server {
  readonly truth = new Map<string, { seq: number; data: Document }>();
  readonly sockets: Socket[] = [];
  up = true;
  /** Refuse the next so many commands or channels with an error that passes. */
  faults = 0;
  refusals = 0; // over the rate
  /** The error code that every token is refused with. */
  badToken: string | null = null;
  constructor(
    readonly clock: HandClock,
    readonly rules: Rules = RULES,
  ) {}

  /** The class that the client opens its connections with. */
  get WebSocket(): new (url: string) => Socket {
    const server = this;
    return class extends Socket {
      constructor(url: string) {
        super(server, url);
      }
    };
  }

  get connection(): Socket {
    return this.sockets.at(-1)!;
  }

  create(ch: string, data: Document): void {
    this.truth.set(ch, { seq: 1, data });
    for (const socket of this.sockets) socket.widen(ch);
  }

  change(ch: string, changed: Document): void {
    const document = this.truth.get(ch)!;
    document.seq++;
    document.data = { ...document.data, ...changed };
    for (const socket of this.sockets) socket.update(ch, changed);
  }

  /** Every connection is lost without a word. */
  cut(code = 1006): void {
    for (const socket of [...this.sockets]) if (socket.readyState === 1) socket.end(code);
  }
}

export class Socket {
  readyState = 0;
  onopen: (() => void) | null = null;
  onmessage: ((event: { data: string }) => void) | null = null;
  onclose: ((event: { code: number; reason: string }) => void) | null = null;
  readonly sent: Command[] = [];
  readonly held = new Map<string, Held>(); // by name
  readonly patterns = new Map<string, Pattern>();
  private readonly seqs = new Map<string, number>(); // of the channels that this client hears
  private tokens: number;
  private violations = 0;
  private at: number;

  constructor(
    readonly server: Server,
    readonly url: string,
  ) {
    server.sockets.push(this);
    this.tokens = server.rules.commands_burst;
    this.at = server.clock.now();
    server.clock.setTimeout(() => (server.up ? this.open() : this.end(1006)), LATENCY_MS);
  }

  send(text: string): void {
    const command = JSON.parse(text) as Command;
    this.sent.push(command);
    this.server.clock.setTimeout(() => this.take(command), LATENCY_MS);
  }

  close(): void {
    this.readyState = 3;
  }

  end(code: number, bye?: object): void {
    if (bye) this.say(bye);
    this.server.clock.setTimeout(() => {
      if (this.readyState === 3) return;
      this.readyState = 3;
      this.onclose?.({ code, reason: "" });
    }, LATENCY_MS);
  }

  /** Everything that this client hears, as the server sees it. */
  heard(): string[] {
    return [...this.seqs.keys()].sort();
  }

  say(...items: object[]): void {
    this.server.clock.setTimeout(() => this.readyState === 1 && this.onmessage?.({ data: JSON.stringify(items) }), LATENCY_MS);
  }

  widen(ch: string): void {
    for (const [name, pattern] of this.patterns) {
      if (!covers(name, ch) || this.seqs.has(ch) || pattern.excluded.has(ch)) continue;
      pattern.joined.add(ch);
      this.say(this.snap(ch));
    }
  }

  update(ch: string, changed: Document): void {
    const prev = this.seqs.get(ch);
    if (prev === undefined || this.readyState !== 1) return;
    const { seq } = this.server.truth.get(ch)!;
    const data = this.shown(ch, changed);
    if (Object.keys(data).length === 0) return; // the next one says prev = what was sent last
    this.seqs.set(ch, seq);
    this.say({ t: "upd", ch, prev, seq, ts: 1, data });
  }

  private open(): void {
    if (this.readyState === 3) return;
    this.readyState = 1;
    const { subs, commands_s, commands_burst, announces } = this.server.rules;
    this.onopen?.();
    this.say({ t: "hello", v: 1, ping_s: 20, limits: { subs, bytes: 16384, ...(announces ? { commands_s, burst: commands_burst, channels: 500, channels_per_cost: 50 } : {}) } });
  }

  private take(command: Command): void {
    if (this.readyState !== 1) return;
    const { rules, clock } = this.server;
    this.tokens = Math.min(rules.commands_burst, this.tokens + ((clock.now() - this.at) * rules.commands_s) / 1000);
    this.at = clock.now();
    const cost = 1 + (command.ch?.length ?? 0) / 50;
    if (this.tokens < cost || (this.server.faults > 0 && command.op !== "auth" && this.server.faults-- % 2 === 1)) {
      if (this.tokens < cost) this.server.refusals++;
      this.say({ id: command.id, ok: false, error: { code: "rate_limited", retry: true, after_ms: 500 } });
      if (++this.violations > rules.violations_max) this.end(4029, { t: "bye", code: 4029 });
      return;
    }
    this.tokens -= cost;
    this.answer(command);
  }

  private answer(command: Command): void {
    const { id, op, ch = [] } = command;
    if (op === "auth" && this.server.badToken) {
      this.say({ id, ok: false, error: { code: this.server.badToken } });
      return this.end(4001, { t: "bye", code: 4001 });
    }
    if (op === "sub") return this.sub(command);
    if (op === "unsub") {
      const frames = ch.flatMap((name) => this.leave(name));
      return this.say({ id, ok: true, subs: ch.map((name) => ({ ch: name })) }, ...frames);
    }
    if (op === "get") {
      const snaps = ch.map((name) => (this.server.truth.has(name) ? { ...this.snap(name, this.seqs.has(name)), t: undefined } : { ch: name, error: { code: "unavailable", retry: true } }));
      return this.say({ id, ok: true, snaps });
    }
    this.say({ id, ok: true });
  }

  private sub({ id, ch = [], hz, fields = [], since = {} }: Command): void {
    const held = { hz, fields: fields.length ? fields : null };
    const outcomes: object[] = [];
    const frames: object[] = [];
    for (const name of ch) {
      if (this.server.faults > 0 && this.server.faults-- % 3 === 0) {
        outcomes.push({ ch: name, error: { code: "unavailable", retry: true } });
      } else if (name.endsWith(":*")) {
        this.subPattern(name, held, since, outcomes, frames);
      } else if (this.held.has(name) || (this.seqs.has(name) && !this.server.rules.merges)) {
        outcomes.push({ ch: name, error: { code: "already_subscribed" } });
      } else if (this.seqs.size >= this.server.rules.subs) {
        outcomes.push({ ch: name, error: { code: "limit" } });
      } else {
        this.held.set(name, held);
        outcomes.push({ ch: name, hz, recovered: false });
        frames.push(...this.begin(name, since));
      }
    }
    this.say({ id, ok: true, subs: outcomes }, ...frames);
  }

  private subPattern(name: string, held: Held, since: NonNullable<Command["since"]>, outcomes: object[], frames: object[]): void {
    if (this.patterns.has(name)) return void outcomes.push({ ch: name, error: { code: "already_subscribed" } });
    const pattern: Pattern = { ...held, joined: new Set(), excluded: new Set() };
    this.patterns.set(name, pattern);
    for (const ch of this.server.truth.keys()) {
      if (!covers(name, ch) || this.seqs.has(ch)) continue;
      pattern.joined.add(ch);
      outcomes.push({ ch, hz: held.hz });
      frames.push(...this.begin(ch, since));
    }
    if (outcomes.length > 1000) outcomes.length = 0; // as WDS does when the reply grows too large
    outcomes.push({ ch: name, hz: held.hz, matched: pattern.joined.size });
  }

  private begin(ch: string, since: NonNullable<Command["since"]>): object[] {
    const document = this.server.truth.get(ch);
    const from = since[ch];
    if (!document) {
      this.seqs.set(ch, 0);
      return [];
    }
    if (!from) return [this.snap(ch)];
    this.seqs.set(ch, document.seq);
    if (from.seq === document.seq) return [];
    return [{ t: "upd", ch, prev: from.seq, seq: document.seq, ts: 1, data: this.shown(ch, document.data) }];
  }

  /** Returns the snapshots of what goes on in other fields than before. */
  private leave(name: string): object[] {
    const pattern = this.patterns.get(name);
    this.patterns.delete(name);
    if (pattern) {
      const kept = [...pattern.joined].filter((ch) => this.held.has(ch));
      for (const ch of pattern.joined) if (!this.held.has(ch)) this.seqs.delete(ch);
      return this.server.rules.merges ? kept.map((ch) => this.snap(ch)) : [];
    }
    this.held.delete(name);
    const under = [...this.patterns].filter(([other]) => covers(other, name));
    if (this.server.rules.merges && under.some(([, { joined }]) => joined.has(name))) return [this.snap(name)];
    this.seqs.delete(name);
    for (const [, { joined, excluded }] of under) if (joined.delete(name)) excluded.add(name);
    return [];
  }

  private snap(ch: string, heard = true): object {
    const { seq, data } = this.server.truth.get(ch)!;
    if (heard) this.seqs.set(ch, seq);
    return { t: "snap", ch, epoch: "e", seq, ts: 1, data: heard ? this.shown(ch, data) : data };
  }

  private shown(ch: string, data: Document): Document {
    const held = [this.held.get(ch), ...[...this.patterns].filter(([, { joined }]) => joined.has(ch)).map(([, pattern]) => pattern)];
    const some = (this.server.rules.merges ? held : held.slice(this.held.has(ch) ? 0 : 1, this.held.has(ch) ? 1 : 2)).filter((one) => one !== undefined);
    if (some.some(({ fields }) => fields === null)) return data;
    return Object.fromEntries(Object.entries(data).filter(([field]) => some.some(({ fields }) => fields!.includes(field))));
  }
}

function covers(name: string, ch: string): boolean {
  return name === ch || (name.endsWith(":*") && ch.startsWith(name.slice(0, -1)));
}
