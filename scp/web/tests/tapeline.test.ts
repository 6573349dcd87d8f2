// The browser client against a server's twin on a clock turned by hand: whatever listeners come and go, each one sees what
// the market is, in the fields that it asked for, and the server's rate is kept.
import assert from "node:assert/strict";
import { test } from "node:test";
import { HandClock, RULES, Server, type Rules } from "./stream_twin.ts";

type Listener = (data: Record<string, number>, info: { ch: string; type: string; state: string; reason: string }) => void;
interface Client {
  on(name: string, listener: Listener, options?: { hz?: number | "raw"; fields?: readonly string[] }): () => void;
  get(names: readonly string[]): Promise<{ ch: string; data?: unknown }[]>;
  connect(): Promise<void>;
  close(): void;
  state: string;
  channels: Map<string, { state: string; data?: unknown }>;
}
interface State {
  state: string;
  code?: number;
  reason?: string;
  inMs?: number;
}

const module: string = new URL("../../../../wds/static/tapeline.js", import.meta.url).href;
const { Tapeline } = (await import(module)) as { Tapeline: new (url: string, options: object) => Client };
const FIELDS = ["last", "bid", "ask", "volume"] as const;
const SYMBOLS = ["A", "B", "C", "D", "E", "F"];
const MINUTE = 60_000;
const SEEDS = 150;

class Page extends EventTarget {
  hidden = false;
}

function dice(seed: number): () => number {
  return () => {
    seed = (seed + 0x6d2b79f5) | 0;
    let t = Math.imul(seed ^ (seed >>> 15), 1 | seed);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
  };
}

function world(rules: Partial<Rules> = {}, options: object = {}) {
  const clock = new HandClock();
  const server = new Server(clock, { ...RULES, ...rules });
  const document = new Page();
  const window = new EventTarget();
  const states: State[] = [];
  const tape = new Tapeline("ws://h", {
    token: "t", WebSocket: server.WebSocket, clock, document, window, random: () => 0.5,
    onState: (state: State) => states.push(state), ...options,
  }); // prettier-ignore
  return { clock, server, document, window, states, tape };
}

/** Somebody who listens, and remembers what he was told last of each channel. */
class Widget {
  readonly seen = new Map<string, { data: Record<string, number>; state: string; calls: number }>();
  readonly off: () => void;

  constructor(tape: Client, readonly name: string, readonly hz: number | "raw", readonly fields: readonly string[] | undefined) {
    const listener: Listener = (data, { ch, state }) => {
      this.seen.set(ch, { data, state, calls: (this.seen.get(ch)?.calls ?? 0) + 1 });
    };
    this.off = tape.on(name, listener, fields ? { hz, fields } : { hz });
  }

  covers(ch: string): boolean {
    return this.name === ch || (this.name.endsWith("*") && ch.startsWith(this.name.slice(0, -1)));
  }
}

/** What a widget should show: the market in its fields. */
function expected(server: Server, widget: Widget): Record<string, Record<string, number>> {
  const covered = [...server.truth].filter(([ch]) => widget.covers(ch));
  const shown = (data: Record<string, number>) => Object.fromEntries(Object.entries(data).filter(([field]) => widget.fields?.includes(field) ?? true));
  return Object.fromEntries(covered.map(([ch, { data }]) => [ch, shown(data)]));
}

function agree(server: Server, widgets: readonly Widget[], seed: string): void {
  for (const widget of widgets) {
    const seen = Object.fromEntries([...widget.seen].filter(([ch]) => server.truth.has(ch)).map(([ch, { data }]) => [ch, data]));
    assert.deepEqual(seen, expected(server, widget), `${widget.name} [${widget.fields}] hz ${widget.hz}, ${seed}`);
    for (const [ch, { state }] of widget.seen) if (server.truth.has(ch)) assert.equal(state, "live", `${ch} of ${widget.name}, ${seed}`);
  }
  const wanted = [...server.truth.keys()].filter((ch) => widgets.some((widget) => widget.covers(ch))).sort();
  assert.deepEqual(server.connection.heard().filter((ch) => server.truth.has(ch)), wanted, `what the server sends, ${seed}`);
}

function quotes(server: Server, n = 4): void {
  for (const symbol of SYMBOLS.slice(0, n)) server.create(`quote:${symbol}`, { last: 1, bid: 2, ask: 3, volume: 4 });
}

test("a listener that leaves takes nothing from one whose pattern covers its channel", async () => {
  const { clock, server, tape } = world();
  quotes(server);
  const all = new Widget(tape, "quote:*", 1, ["last"]);
  await clock.pass(500);
  const one = new Widget(tape, "quote:A", 10, ["bid", "ask"]);
  await clock.pass(500);
  server.change("quote:A", { last: 7, bid: 8 });
  await clock.pass(500);
  assert.deepEqual(one.seen.get("quote:A")!.data, { ask: 3, bid: 8 });
  one.off();
  await clock.pass(500);
  server.change("quote:A", { last: 9 });
  await clock.pass(500);
  assert.deepEqual(all.seen.get("quote:A")!.data, { last: 9 });
  agree(server, [all], "");
  tape.close();
});

test("what comes and goes within a moment costs nothing", async () => {
  const { clock, server, tape } = world();
  quotes(server);
  const keep = new Widget(tape, "quote:A", 4, undefined);
  await clock.pass(500);
  const before = server.connection.sent.length;
  const again = new Widget(tape, "quote:A", 4, undefined);
  keep.off();
  for (let n = 0; n < 50; n++) new Widget(tape, "quote:B", 4, undefined).off();
  await clock.pass(500);
  assert.equal(server.connection.sent.length, before);
  server.change("quote:A", { last: 5 });
  await clock.pass(500);
  agree(server, [again], "");
  tape.close();
});

async function listenAtRandom(seed: number, merges: boolean): Promise<void> {
  const random = dice(seed);
  const pick = <T>(from: readonly T[]): T => from[Math.floor(random() * from.length)]!;
  const { clock, server, document, tape } = world({ merges }, { random });
  quotes(server, 3);
  let widgets: Widget[] = [new Widget(tape, "quote:A", 4, undefined)];
  for (let step = 0; step < 60; step++) {
    const roll = random();
    if (roll < 0.35) {
      const fields = random() < 0.3 ? undefined : FIELDS.filter(() => random() < 0.5);
      const name = random() < 0.3 ? "quote:*" : `quote:${pick(SYMBOLS)}`;
      widgets.push(new Widget(tape, name, pick(["raw", 10, 4, 1] as const), fields?.length ? fields : undefined));
    } else if (roll < 0.6 && widgets.length > 1) {
      const gone = pick(widgets);
      widgets = widgets.filter((widget) => widget !== gone);
      gone.off();
    } else if (roll < 0.8) server.change(pick([...server.truth.keys()]), { [pick(FIELDS)]: Math.floor(random() * 100) });
    else if (roll < 0.83) server.cut();
    else if (roll < 0.86) server.faults = Math.floor(random() * 6);
    else if (roll < 0.89 && server.truth.size < SYMBOLS.length) server.create(`quote:${SYMBOLS[server.truth.size]!}`, { last: 1, bid: 2, ask: 3, volume: 4 });
    else if (roll < 0.92) document.hidden = !document.hidden;
    else if (roll < 0.95) void tape.get([`quote:${pick(SYMBOLS)}`]).catch(() => {});
    if (random() < 0.5) await clock.pass(Math.floor(random() * 400));
  }
  document.hidden = false;
  server.faults = 0;
  await clock.pass(2 * MINUTE);
  agree(server, widgets, `seed ${seed}`);
  for (const ch of server.truth.keys()) server.change(ch, { last: 500, bid: 501, ask: 502, volume: 503 });
  await clock.pass(1000);
  agree(server, widgets, `seed ${seed}, after one more change`);
  for (const widget of widgets) widget.off();
  await clock.pass(MINUTE);
  assert.deepEqual([server.connection.heard(), tape.channels.size, server.refusals], [[], 0, 0], `nothing is left, seed ${seed}`);
  tape.close();
}

for (const merges of [false, true]) {
  test(`listeners at random agree with a plain model${merges ? ", with a server that takes a name under a pattern as it comes" : ""}`, async () => {
    for (let seed = 1; seed <= SEEDS; seed++) await listenAtRandom(seed, merges);
  });
}

for (const announces of [true, false]) {
  test(`thirty changes a second for a minute stay within the rate, which is ${announces ? "" : "not "}announced`, async () => {
    const { clock, server, states, tape } = world(announces ? { commands_s: 5, commands_burst: 20 } : {}, {});
    server.rules.announces = announces;
    quotes(server, 6);
    let widgets: Widget[] = [];
    for (let n = 0; n < 1800; n++) {
      for (const widget of widgets) widget.off();
      widgets = ["quote:", "trades:", "halts:", "book:"].map((kind) => new Widget(tape, kind + SYMBOLS[n % 6]!, 4, undefined));
      await clock.pass(33);
    }
    await clock.pass(5000);
    assert.equal(server.refusals, 0);
    assert.deepEqual(states.map(({ state }) => state), ["connecting", "open"]);
    agree(server, widgets, "");
    tape.close();
  });
}

test("a rate that nobody told is found out: what was refused is asked for again", async () => {
  const { clock, server, states, tape } = world({ commands_s: 2, commands_burst: 4, announces: false });
  quotes(server, 6);
  const widgets = SYMBOLS.map((symbol, at) => new Widget(tape, `quote:${symbol}`, ([1, 4, 10, "raw"] as const)[at % 4]!, at % 2 ? ["last"] : undefined));
  await clock.pass(MINUTE);
  assert.ok(server.refusals > 0 && server.refusals < 25, `${server.refusals} refusals`);
  assert.equal(states.at(-1)!.state, "open");
  agree(server, widgets, "");
  tape.close();
});

test("what found no room is asked for again when something has left", async () => {
  const { clock, server, tape } = world({ subs: 2 });
  quotes(server, 3);
  const [a, b, c] = ["A", "B", "C"].map((symbol) => new Widget(tape, `quote:${symbol}`, 4, undefined));
  await clock.pass(1000);
  assert.equal(c!.seen.get("quote:C")!.state, "stale");
  a!.off();
  await clock.pass(1000);
  agree(server, [b!, c!], "");
  tape.close();
});

test("a pattern of thousands resumes whole, with frames that the server takes", async () => {
  const { clock, server, tape } = world({ subs: 20_000 });
  for (let n = 0; n < 5000; n++) server.create(`quote:A-RATHER-LONG-NAME-OF-AN-INSTRUMENT-${n}`, { last: n });
  const all = new Widget(tape, "quote:*", 4, undefined);
  await clock.pass(2000);
  server.cut();
  [...server.truth.keys()].forEach((ch, n) => n % 2 && server.change(ch, { last: -1 }));
  await clock.pass(5000);
  agree(server, [all], "");
  for (const { sent } of server.sockets) for (const command of sent) assert.ok(JSON.stringify(command).length <= 16_384);
  const since = server.connection.sent.find(({ op }) => op === "sub")!.since!;
  assert.ok(Object.keys(since).length > 100, "as many as fit go on where they stood");
  tape.close();
});

const passing: [number, object | null][] = [[4008, null], [4010, null], [4029, null], [4001, { after_ms: 300 }], [4100, null], [4112, null], [1006, null]];
for (const [code, bye] of passing) {
  test(`close code ${code} passes: the client comes back, and later each time`, async () => {
    let made = 0;
    const { clock, server, states, tape } = world({}, { token: async () => `t${++made}` });
    quotes(server);
    const widget = new Widget(tape, "quote:A", 4, undefined);
    for (let n = 0; n < 12; n++) {
      await clock.pass(100);
      server.connection.end(code, bye ? { t: "bye", code, ...bye } : undefined);
      await clock.pass(20);
      while (states.at(-1)!.state !== "waiting") await clock.pass(10);
      await clock.pass(states.at(-1)!.inMs!);
    }
    const waits = states.filter(({ state }) => state === "waiting").map(({ inMs }) => inMs!);
    assert.deepEqual(waits.slice(-2), bye ? [15_300, 15_300] : [15_000, 15_000]);
    assert.ok(waits[0]! < 600 && waits[3]! > waits[0]!, String(waits));
    await clock.pass(20_000);
    agree(server, [widget], `${code}`);
    tape.close();
  });
}

test("the server's patience is honoured even when the network says that it is back", async () => {
  const { clock, server, states, window, tape } = world();
  new Widget(tape, "quote:A", 4, undefined);
  await clock.pass(500);
  server.connection.end(4029, { t: "bye", code: 4029, after_ms: 5000 });
  await clock.pass(100);
  window.dispatchEvent(new Event("online"));
  await clock.pass(4000);
  assert.equal(states.at(-1)!.state, "waiting");
  await clock.pass(2000);
  assert.equal(states.at(-1)!.state, "open");
  tape.close();
});

test("only what can never work is final, and even that can be tried again by hand", async () => {
  for (const code of [4003, 1002, 1009]) {
    const { clock, server, states, tape } = world();
    quotes(server);
    const widget = new Widget(tape, "quote:A", 4, undefined);
    await clock.pass(500);
    server.connection.end(code);
    await clock.pass(5 * MINUTE);
    assert.deepEqual([states.at(-1)!.state, states.at(-1)!.code, server.sockets.length], ["closed", code, 1]);
    void tape.connect();
    await clock.pass(1000);
    assert.equal(states.at(-1)!.state, "open");
    agree(server, [widget], `${code}`);
    tape.close();
  }
});

test("a bad token is final when a fresh one is bad as well", async () => {
  let made = 0;
  const { clock, server, states, tape } = world({}, { token: async () => `t${++made}` });
  server.badToken = "unauthorized";
  new Widget(tape, "quote:A", 4, undefined);
  await clock.pass(MINUTE);
  assert.deepEqual([states.at(-1)!.state, states.at(-1)!.code, made], ["closed", 4001, 2]);
  server.badToken = null;
  void tape.connect();
  await clock.pass(1000);
  assert.equal(states.at(-1)!.state, "open");
  tape.close();
});

test("a token that had expired on its way is no bad one: a fresh one is fetched again and again", async () => {
  let made = 0;
  const { clock, server, states, tape } = world({}, { token: async () => `t${++made}` });
  server.badToken = "token_expired";
  new Widget(tape, "quote:A", 4, undefined);
  await clock.pass(MINUTE);
  assert.ok(made > 3);
  server.badToken = null;
  await clock.pass(MINUTE);
  assert.equal(states.at(-1)!.state, "open");
  tape.close();
});

test("a token refresh that fails is tried again, and the stream goes on", async () => {
  let asked = 0;
  const token = async () => {
    asked++;
    if (asked === 2) throw new Error("the control plane is away");
    if (asked === 3) return new Promise<string>(() => {}); // never answers
    return `t${asked}`;
  };
  const { clock, server, states, tape } = world({}, { token });
  new Widget(tape, "quote:A", 4, undefined);
  await clock.pass(500);
  server.connection.say({ t: "auth_expiring", in_s: 60 });
  await clock.pass(30_000);
  assert.deepEqual(server.connection.sent.filter(({ op }) => op === "auth").map((one) => one.token), ["t1", "t4"]);
  assert.deepEqual(states.map(({ state }) => state), ["connecting", "open"]);
  tape.close();
});

test("a token that never comes, a socket that never opens and a sign-in that is never answered have their time", async () => {
  let tokens = 0;
  const { clock, server, states, tape } = world({}, { token: () => (++tokens === 1 ? new Promise<string>(() => {}) : Promise.resolve("t")) });
  const widget = new Widget(tape, "quote:A", 4, undefined);
  quotes(server);
  await clock.pass(10_300);
  assert.equal(server.sockets.length, 1);
  const opened = server.connection;
  opened.close(); // the twin's way of never answering again
  await clock.pass(9_000);
  assert.equal(server.sockets.length, 1);
  await clock.pass(4_000);
  assert.equal(states.at(-1)!.state, "open");
  agree(server, [widget], "");
  tape.close();
});

test("after a sleep or when the network is back a waiting client connects at once", async () => {
  for (const how of ["sleep", "online"]) {
    const { clock, server, states, window, tape } = world();
    new Widget(tape, "quote:A", 4, undefined);
    await clock.pass(500);
    server.up = false;
    server.cut();
    await clock.pass(5 * MINUTE);
    server.up = true;
    if (how === "sleep") clock.sleep(MINUTE);
    else window.dispatchEvent(new Event("online"));
    await clock.pass(1100);
    assert.equal(states.at(-1)!.state, "open", how);
    tape.close();
  }
});

test("a connection that died in a sleep is found out within seconds", async () => {
  const { clock, server, states, tape } = world();
  const widget = new Widget(tape, "quote:A", 4, undefined);
  quotes(server);
  await clock.pass(15_000);
  server.connection.close(); // nobody is told
  clock.sleep(MINUTE);
  await clock.pass(7_000);
  assert.deepEqual([states.at(-1)!.state, server.sockets.length], ["open", 2]);
  agree(server, [widget], "");
  tape.close();
});

test("a listener that throws harms nobody else", async () => {
  const { clock, server, tape } = world();
  quotes(server);
  const complain = console.error;
  let faults = 0;
  console.error = () => faults++;
  Object.defineProperty(globalThis, "reportError", { value: () => faults++, configurable: true });
  tape.on("quote:A", () => {
    throw new Error("a widget's own fault");
  });
  const widget = new Widget(tape, "quote:*", 4, undefined);
  await clock.pass(500);
  server.change("quote:A", { last: 5 });
  await clock.pass(500);
  console.error = complain;
  assert.ok(faults > 0);
  agree(server, [widget], "");
  tape.close();
});

test("a channel out of step is asked for again until it is mended", async () => {
  const { clock, server, tape } = world();
  quotes(server);
  const widget = new Widget(tape, "quote:A", 4, undefined);
  await clock.pass(500);
  server.faults = 7;
  server.connection.say({ t: "upd", ch: "quote:A", prev: 90, seq: 91, ts: 1, data: { last: 90 } });
  await clock.pass(20_000);
  server.change("quote:A", { last: 5 });
  await clock.pass(500);
  agree(server, [widget], "");
  tape.close();
});
