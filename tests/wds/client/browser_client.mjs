// Scenes for wds/static/tapeline.js against a socket made by hand. `node browser_client.mjs <module> <scene> <form>`: prints OK or throws.
// In the form "compact" the socket writes every change as the server would: the scenes must not notice.
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { pathToFileURL } from "node:url";

const { Tapeline } = await import(pathToFileURL(process.argv[2]).href);
const sockets = [];
const form = process.argv[4] ?? "compact";
const BASE_MS = 1_700_000_000_000;
const KINDS = {
  quote: { t: "upd", fields: ["last", "bid", "ask", "ts"] }, board: { t: "rows", fields: ["sym", "last"] },
  trades: { t: "event", fields: ["price", "size", "ts"] },
  "bars:1m": { t: "upd", fields: ["t", "open", "high", "low", "close", "volume", "vwap", "trades", "i", "prev", "rev"] },
};

/** [mask, …values], or null when a field has no place. */
function packed(fields, data, ts) {
  if (data === null || typeof data !== "object" || Array.isArray(data)) return null;
  const own = "ts" in data && data.ts === ts;
  const names = fields.filter((name) => name in data && !(own && name === "ts"));
  if (names.length + own !== Object.keys(data).length) return null;
  return [names.reduce((mask, name) => mask + 2 ** (fields.indexOf(name) + 1), own ? 1 : 0), ...names.map((name) => data[name])];
}

/** The items that stand for a frame in the compact form; `numbers` = what the client was told on this socket. */
function compacted(item, numbers) {
  const known = numbers.has(item.ch);
  if (item.ch && !known) numbers.set(item.ch, numbers.size + 1);
  const n = numbers.get(item.ch);
  if (item.t === "snap") return [{ ...item, n }];
  if (!["upd", "rows", "event"].includes(item.t)) return [item];
  const { t, fields } = KINDS[item.ch.split(":")[0]] ?? KINDS[item.ch.split(":").slice(0, 2).join(":")];
  const head = [n, item.seq, item.seq - item.prev, item.ts - BASE_MS];
  const introduced = known ? [] : [{ t: "num", ch: item.ch, n }];
  if (t !== "rows") {
    const tail = packed(fields, item.data, item.ts);
    return [...introduced, tail ? [...head, ...tail] : item];
  }
  const set = Object.entries(item.set).map(([sym, row]) => [sym, packed(fields, row)]);
  const more = item.order ? [item.del ?? 0, item.order] : item.del ? [item.del] : [];
  return [...introduced, set.every(([, row]) => row) ? [...head, Object.fromEntries(set), ...more] : item];
}

class FakeSocket {
  constructor(url, protocols) {
    Object.assign(this, { url, protocols, readyState: 0, sent: [], numbers: new Map() });
    sockets.push(this);
  }
  send(text) { this.sent.push(JSON.parse(text)); }
  close(code) { this.closedWith = code; this.end(code); }
  open() { this.readyState = 1; this.onopen(); }
  say(...items) { for (const item of items) this.hear(form === "json" ? item : this.pack(item)); }
  pack(item) {
    const items = [item].flat().flatMap((one) => compacted(one, this.numbers));
    return items.length === 1 ? items[0] : items;
  }
  hear(payload) { this.onmessage({ data: JSON.stringify(payload) }); }
  end(code = 1006, reason = "") { this.readyState = 3; if (this.onclose) this.onclose({ code, reason }); }
  count(op) { return this.sent.filter((command) => command.op === op).length; }
  last(op) { return this.sent.filter((command) => command.op === op).at(-1); }
}

const page = new EventTarget();
page.hidden = false;
const turn = () => new Promise((resolve) => setTimeout(resolve, 5));
async function until(condition) {
  for (const deadline = Date.now() + 5000; !condition(); await turn()) assert.ok(Date.now() < deadline, String(condition));
}
const states = [];
const make = (more = {}) => new Tapeline("ws://h:8400", {
  token: "t", form, WebSocket: FakeSocket, document: page, random: () => 0, onState: (state) => states.push(state), ...more,
});
async function opened(tape) {
  await until(() => sockets.at(-1)?.readyState === 0);
  const socket = sockets.at(-1);
  socket.open();
  socket.say({ t: "hello", v: 1, ping_s: 20 }, { id: 0, ok: true, ...(form === "json" ? {} : { form, base_ms: BASE_MS, kinds: KINDS }) });
  return socket;
}
const snap = (ch, seq, data, epoch = "e") => ({ t: "snap", ch, epoch, seq, ts: 1, data });

const scenes = {
  async follows_a_channel() {
    const seen = [];
    const tape = make();
    tape.on("quote:A", (data, about) => seen.push([data, about.type, about.seq]), { hz: 1, fields: ["last"] });
    tape.on("board:x", () => {});
    const socket = await opened(tape);
    assert.equal(socket.url, "ws://h:8400/v1/stream");
    assert.deepEqual(socket.sent[0], { id: 0, op: "auth", token: "t", ...(form === "json" ? {} : { form }) });
    const subs = socket.sent.filter((command) => command.op === "sub");
    assert.deepEqual(subs.map((sub) => [sub.ch, sub.hz, sub.fields]), [[["quote:A"], 1, ["last"]], [["board:x"], 4, undefined]]);
    socket.say(snap("quote:A", 1, { last: 1 }), { t: "upd", ch: "quote:A", prev: 1, seq: 3, ts: 2, data: { last: 5 } });
    assert.deepEqual(seen, [[{ last: 1 }, "snap", 1], [{ last: 5 }, "upd", 3]]);
    socket.say({ t: "ping", ts: 1 });
    assert.deepEqual(socket.sent.at(-1), { op: "pong" });
    tape.close();
  },
  async merges_boards_and_events() {
    const tape = make();
    let board, events, lost;
    tape.on("board:*", (data) => { board = data; });
    tape.on("trades:A", (data, about) => { events = data; if (about.lost) lost = about.lost; });
    const socket = await opened(tape);
    socket.say(snap("board:g", 1, { order: ["A", "B"], rows: { A: 1, B: 2 } }));
    socket.say({ t: "rows", ch: "board:g", prev: 1, seq: 2, ts: 1, set: { C: 3 }, del: ["A"], order: ["C", "B"] });
    assert.deepEqual(board, { order: ["C", "B"], rows: { C: 3, B: 2 } });
    socket.say(snap("trades:A", 2, [1, 2]), [{ t: "event", ch: "trades:A", prev: 2, seq: 3, ts: 1, data: 3 }, { t: "lost", ch: "trades:A", n: 4 }]);
    socket.say({ t: "event", ch: "trades:A", prev: 7, seq: 8, ts: 1, data: 8 });
    assert.deepEqual(events, [1, 2, 3, 8]);
    assert.equal(lost, 4);
    tape.close();
  },
  async asks_get_when_the_chain_breaks() {
    const tape = make();
    const seen = [];
    tape.on("quote:A", (data) => seen.push(data.last));
    const socket = await opened(tape);
    socket.say({ id: socket.last("sub").id, ok: true, subs: [{ ch: "quote:A", hz: 4 }] });
    socket.say(snap("quote:A", 1, { last: 1 }), { t: "upd", ch: "quote:A", prev: 5, seq: 6, ts: 1, data: { last: 6 } });
    await until(() => socket.last("get"));
    const ask = socket.last("get");
    assert.deepEqual(ask.ch, ["quote:A"]);
    socket.say({ t: "upd", ch: "quote:A", prev: 6, seq: 7, ts: 1, data: { last: 7 } });
    socket.say({ id: ask.id, ok: true, snaps: [{ ch: "quote:A", epoch: "e", seq: 7, ts: 1, data: { last: 7 } }] });
    await turn();
    socket.say({ t: "upd", ch: "quote:A", prev: 7, seq: 8, ts: 1, data: { last: 8 } });
    assert.deepEqual(seen, [1, 7, 8]);
    tape.close();
  },
  async resumes_after_a_loss() {
    const tape = make();
    const seen = [];
    tape.on("quote:A", (data, about) => seen.push([about.type, about.state, about.reason]));
    let socket = await opened(tape);
    socket.say({ id: socket.last("sub").id, ok: true, subs: [{ ch: "quote:A", hz: 4 }] });
    socket.say(snap("quote:A", 9, { last: 1 }));
    socket.end(1006);
    assert.deepEqual(seen.at(-1), ["status", "stale", "disconnected"]);
    assert.deepEqual(states.at(-1), { state: "waiting", code: 1006, reason: "", inMs: 0 });
    socket = await opened(tape);
    const sub = socket.last("sub");
    assert.deepEqual(sub.ch, ["quote:A"]);
    assert.deepEqual(sub.since, { "quote:A": { epoch: "e", seq: 9 } });
    socket.say({ id: sub.id, ok: true, subs: [{ ch: "quote:A", hz: 4, recovered: true }] });
    assert.deepEqual(seen.at(-1), ["status", "live", ""]);
    socket.say({ t: "upd", ch: "quote:A", prev: 9, seq: 12, ts: 1, data: { last: 2 } });
    assert.equal(seen.at(-1)[0], "upd");
    tape.close();
  },
  async is_live_again_when_a_pattern_brings_a_channel_late() {
    const seen = [];
    const tape = make();
    tape.on("quote:*", (data, about) => seen.push([about.ch, about.type, about.state]));
    let socket = await opened(tape);
    socket.say(snap("quote:A", 9, {}), snap("quote:B", 9, {}));
    socket.end(1006);
    socket = await opened(tape);
    socket.say({ id: socket.last("sub").id, ok: true, subs: [{ ch: "quote:*", hz: 4, matched: 0 }] });
    socket.say(snap("quote:A", 1, {}, "f"), snap("quote:B", 1, {}, "f"), { t: "status", ch: "quote:B", state: "stale", reason: "x" });
    assert.deepEqual(seen.slice(-3), [["quote:A", "snap", "live"], ["quote:B", "snap", "live"], ["quote:B", "status", "stale"]]);
    socket.say(snap("quote:B", 1, {}, "g"));
    assert.deepEqual(seen.at(-1), ["quote:B", "snap", "stale"]);
    tape.close();
  },
  async obeys_close_codes_and_backs_off() {
    const tape = make({ random: () => 0.5 });
    tape.on("quote:A", () => {});
    await turn();
    for (const wait of [250, 500, 1000]) {
      sockets.at(-1).end(4100);
      assert.equal(states.at(-1).inMs, wait);
      await tape.connect();
    }
    const socket = await opened(tape);
    socket.say({ t: "bye", code: 4200, after_ms: 17 });
    socket.end(4200);
    assert.equal(states.at(-1).inMs, 17 + 2000); // no first try any more: the server's patience and our own
    await tape.connect();
    sockets.at(-1).end(4003, "forbidden");
    assert.deepEqual(states.at(-1), { state: "closed", code: 4003, reason: "forbidden" });
    const count = sockets.length;
    await turn();
    assert.equal(sockets.length, count);
    tape.close();
  },
  async pauses_while_hidden() {
    const tape = make();
    tape.on("quote:A", () => {});
    const socket = await opened(tape);
    page.hidden = true;
    page.dispatchEvent(new Event("visibilitychange"));
    await until(() => socket.last("set")?.paused === true);
    socket.say({ id: socket.last("set").id, ok: true });
    page.hidden = false;
    page.dispatchEvent(new Event("visibilitychange"));
    await until(() => socket.last("set").paused === false);
    tape.close();
  },
  async marks_stale_and_reports_refusals() {
    const tape = make();
    const seen = [];
    tape.on("quote:A", (data, about) => seen.push([about.state, about.reason]));
    const socket = await opened(tape);
    socket.say(snap("quote:A", 1, {}), { t: "status", ch: "quote:A", state: "stale", reason: "cache unavailable" });
    assert.deepEqual(seen, [["live", ""], ["stale", "cache unavailable"]]);
    let fault;
    tape.on("board:vip", (data, about) => { fault = about.error; });
    await until(() => socket.last("sub").ch[0] === "board:vip");
    const sub = socket.last("sub");
    socket.say({ id: sub.id, ok: true, subs: [{ ch: "board:vip", error: { code: "forbidden", retry: false } }] });
    assert.equal(fault.code, "forbidden");
    tape.close();
  },
  async refreshes_its_token() {
    let made = 0;
    const tape = make({ token: async () => `t${++made}` });
    tape.on("quote:A", () => {});
    const socket = await opened(tape);
    socket.say({ t: "auth_expiring", in_s: 60 });
    await until(() => socket.last("auth").token === "t2");
    tape.close();
  },
  async shares_one_subscription() {
    const tape = make();
    const a = tape.on("quote:A", () => {}, { hz: 1, fields: ["last"] });
    const socket = await opened(tape);
    const b = tape.on("quote:A", () => {}, { hz: 10, fields: ["bid"] });
    await until(() => socket.count("sub") === 2);
    const sub = socket.last("sub");
    assert.deepEqual([sub.hz, sub.fields], [10, ["bid", "last"]]);
    assert.equal(socket.count("unsub"), 1);
    socket.say({ id: sub.id, ok: true, subs: [{ ch: "quote:A", hz: 10 }] }, snap("quote:A", 1, { bid: 1, last: 2 }));
    a();
    b();
    await until(() => socket.count("unsub") === 2);
    assert.deepEqual(socket.last("unsub").ch, ["quote:A"]);
    assert.equal(tape.channels.size, 0);
    tape.close();
  },
  async keeps_bars() {
    const tape = make();
    let bars;
    tape.bars("bars:1m:A", (rows) => { bars = rows; });
    const socket = await opened(tape);
    socket.say({ id: socket.last("sub").id, ok: true, subs: [{ ch: "bars:1m:A", hz: 4 }] });
    const bar = (t, i, close, more = {}) => ({ t, open: 1, high: 1, low: 1, close, volume: 1, vwap: 1, trades: 1, i, prev: null, rev: 0, ...more });
    socket.say(snap("bars:1m:A", 1, bar(3, 3, 30, { history: [[1, 0, 0, 0, 10], [2, 0, 0, 0, 20]] })));
    assert.deepEqual(bars.map((row) => [row[0], row[4]]), [[1, 10], [2, 20], [3, 30]]);
    socket.say({ t: "upd", ch: "bars:1m:A", prev: 1, seq: 2, ts: 1, data: { t: 4, i: 4, close: 40, prev: [3, 0, 0, 0, 33] } });
    assert.deepEqual(bars.map((row) => [row[0], row[4]]), [[1, 10], [2, 20], [3, 33], [4, 40]]);
    socket.say({ t: "upd", ch: "bars:1m:A", prev: 2, seq: 3, ts: 1, data: { t: 7, i: 7, close: 70, prev: [6, 0, 0, 0, 60] } });
    await until(() => socket.last("get"));
    const ask = socket.last("get");
    socket.say({ id: ask.id, ok: true, snaps: [{ ch: "bars:1m:A", epoch: "e", seq: 4, ts: 1, data: bar(7, 7, 71, { history: [[5, 0, 0, 0, 50], [6, 0, 0, 0, 60]] }) }] });
    await turn();
    assert.deepEqual(bars.map((row) => [row[0], row[4]]), [[5, 50], [6, 60], [7, 71]]);
    tape.close();
  },
};

/** Play what one server wrote in both forms (a JSON line each: {json: […], compact: […]}); all callbacks must be the same. */
async function compare(path) {
  const { reply, payloads } = JSON.parse(readFileSync(path, "utf8"));
  const heard = [];
  for (const one of ["json", "compact"]) {
    const seen = [];
    const tape = make({ form: one });
    for (const name of ["quote:*", "quote:A", "board:*", "trades:A", "bars:1m:A"]) {
      tape.on(name, (data, about) => seen.push(structuredClone([name, data, about])));
    }
    tape.on("quote:A", (data, about) => seen.push(structuredClone(["fields", data, about])), { fields: ["bid", "ts"] });
    await until(() => sockets.at(-1)?.readyState === 0);
    const socket = sockets.at(-1);
    socket.open();
    socket.hear({ t: "hello", v: 1, ping_s: 20 });
    socket.hear(one === "json" ? { id: 0, ok: true } : { id: 0, ok: true, ...reply });
    for (const payload of payloads[one]) socket.hear(payload);
    tape.close();
    heard.push(seen);
  }
  assert.ok(heard[0].length > 100, "something was heard");
  assert.ok(JSON.stringify(payloads.compact).length < JSON.stringify(payloads.json).length);
  assert.deepEqual(heard[1], heard[0]);
}

if (process.argv[3] === "--compare") {
  await compare(process.argv[4]);
  console.log("OK");
  process.exit(0);
} else if (process.argv[3] === "--list") {
  console.log(Object.keys(scenes).join("\n"));
} else {
  await scenes[process.argv[3]]();
  console.log("OK");
  process.exit(0);
}
