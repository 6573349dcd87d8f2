/**
 * Subscribes to channels and keeps their current data: Tapeline's browser client. No dependencies, one file, one socket a page.
 *
 *   import { Tapeline } from "/static/tapeline.js";
 *   const tape = new Tapeline("ws://127.0.0.1:8400/v1/stream", { token: () => fetch("/token").then(r => r.text()) });
 *   const off = tape.on("quote:AAPL", (data, info) => {
 *     price.textContent = data.last;
 *     price.classList.toggle("stale", info.state !== "live");
 *   }, { hz: 4, fields: ["last"] });
 *
 * It reconnects (exponential backoff with full jitter), resumes every channel where it stood (`since`), repairs a broken
 * chain by asking `get`, pauses while the page is hidden, and says when data cannot be fresh (`info.state`).
 * What `data` shows is always the server's whole state at `info.seq`: deltas are applied before you are called.
 */

const PATH = "/v1/stream";
const EVENTS_MAX = 500; // kept of an event channel, newest last
const PER_COMMAND = 50; // channels of one sub command: with `since` it stays within a frame
const BACKOFF_MS = { first: 500, most: 30_000 };
const DISCONNECTED = "disconnected"; // what we say of a channel by ourselves
const TIERS = ["raw", 10, 4, 1, 0.2]; // quickest first

export class Tapeline {
  /**
   * @param {string} url ws://host:port, with or without the path
   * @param {object} options
   *   token: string, or (async) function that returns a fresh one: called before each connect and when one expires
   *   hz: default rate (raw, 10, 4, 1, 0.2); pauseWhenHidden: default true
   *   onState: called with {state: "connecting"|"open"|"waiting"|"closed", code, reason, inMs}
   *   WebSocket, random, document: for tests
   */
  constructor(url, options = {}) {
    const { protocol, host, pathname } = new URL(url);
    this.url = pathname.length > 1 ? url : `${protocol}//${host}${PATH}`;
    this.options = { hz: 4, pauseWhenHidden: true, onState: () => {}, random: Math.random, ...options };
    this.WebSocket = options.WebSocket || globalThis.WebSocket;
    this.document = options.document || globalThis.document;
    this.channels = new Map(); // name → { epoch, seq, ts, data, state, reason, broken }
    this.wanted = new Map(); // name or pattern → { listeners: Map(function → {hz, fields}), hz, fields, sent }
    this.replies = new Map(); // id → function(reply)
    this.nextId = 1;
    this.attempt = 0;
    this.state = "closed";
    this.onVisibility = () => this.#setPaused();
    if (this.options.pauseWhenHidden && this.document) this.document.addEventListener("visibilitychange", this.onVisibility);
  }

  /** Listen to a channel or a pattern (`board:*`). Returns the function that ends it. */
  on(name, listener, { hz, fields } = {}) {
    let want = this.wanted.get(name);
    if (!want) this.wanted.set(name, (want = { listeners: new Map(), sent: false }));
    want.listeners.set(listener, { hz: hz ?? this.options.hz, fields: fields ?? null });
    this.#retune(name, want);
    for (const [ch, copy] of this.channels) if (covers(name, ch) && copy.data !== undefined) listener(copy.data, info("snap", ch, copy));
    if (this.state === "closed" && !this.ended) this.connect();
    return () => this.off(name, listener);
  }

  /** End one listener; the last one of a channel ends its subscription. */
  off(name, listener) {
    const want = this.wanted.get(name);
    if (!want || !want.listeners.delete(listener)) return;
    if (want.listeners.size) return this.#retune(name, want);
    this.wanted.delete(name);
    if (want.sent) this.#send({ id: this.nextId++, op: "unsub", ch: [name] });
    for (const ch of this.channels.keys()) if (covers(name, ch) && !this.#isWanted(ch)) this.channels.delete(ch);
  }

  /** Ask for snapshots without subscribing: resolves to [{ch, epoch, seq, ts, data} | {ch, error}]. */
  get(names, limit) {
    const body = { op: "get", ch: [].concat(names), ...(limit ? { limit } : {}) };
    return this.#command(body).then((reply) => reply.snaps);
  }

  /**
   * Follow bars with their history: listener(bars, info), bars = [[t, open, high, low, close, volume, vwap, trades], …],
   * the last one still in the making. Missed or corrected bars are fetched again by itself.
   */
  bars(name, listener, { hz } = {}) {
    const book = { rows: new Map(), i: null, rev: null, asking: false };
    return this.on(name, (data, about) => {
      if (data && about.type !== "status") this.#keepBars(name, book, data, about);
      listener([...book.rows.values()].sort((a, b) => a[0] - b[0]), about);
    }, { hz });
  }

  /** Connect now; `on` does it by itself. */
  async connect() {
    this.ended = false;
    this.#report("connecting");
    const generation = (this.generation = (this.generation || 0) + 1);
    let token;
    try {
      token = typeof this.options.token === "function" ? await this.options.token() : this.options.token;
    } catch (fault) {
      return this.#again({ code: 0, reason: `no token: ${fault.message}` });
    }
    if (generation !== this.generation || this.ended) return;
    const socket = (this.socket = new this.WebSocket(this.url, ["wds.v1.json"]));
    this.afterMs = null;
    socket.onopen = () => {
      if (socket !== this.socket) return;
      this.#send({ id: 0, op: "auth", token });
      for (const want of this.wanted.values()) want.sent = false;
      this.paused = false;
      this.#subscribe();
      this.#setPaused();
    };
    socket.onmessage = (event) => socket === this.socket && this.#take(event.data);
    socket.onclose = (event) => socket === this.socket && this.#lost(event);
    socket.onerror = () => {};
  }

  /** Say goodbye and stay closed. */
  close() {
    this.ended = true;
    this.generation += 1;
    clearTimeout(this.timer);
    clearTimeout(this.watchdog);
    if (this.document) this.document.removeEventListener("visibilitychange", this.onVisibility);
    if (this.socket) this.socket.close(1000);
    this.#report("closed");
  }

  // ---- outgoing

  #send(command) {
    if (this.socket && this.socket.readyState === 1) this.socket.send(JSON.stringify(command));
  }

  #command(body) {
    return new Promise((resolve, reject) => {
      if (!this.socket || this.socket.readyState !== 1) return reject(new Error("not connected"));
      const id = this.nextId++;
      this.replies.set(id, (reply) => {
        if (reply && reply.ok) resolve(reply);
        else reject(Object.assign(new Error(reply ? reply.error.message || reply.error.code : "connection lost"), reply && reply.error));
      });
      this.#send({ id, ...body });
    });
  }

  // One subscription serves all listeners of a channel: the quickest rate, the union of the fields.
  #retune(name, want) {
    const all = [...want.listeners.values()];
    const hz = TIERS.find((tier) => all.some((one) => one.hz === tier)) ?? this.options.hz;
    const fields = all.some((one) => !one.fields) ? null : [...new Set(all.flatMap((one) => one.fields))].sort();
    if (want.sent && want.hz === hz && String(want.fields) === String(fields)) return;
    if (want.sent) {
      this.#send({ id: this.nextId++, op: "unsub", ch: [name] });
      for (const ch of this.channels.keys()) if (covers(name, ch)) this.channels.get(ch).seq = undefined; // other fields: start anew
    }
    Object.assign(want, { hz, fields, sent: false });
    if (!this.scheduled) {
      this.scheduled = true;
      queueMicrotask(() => { this.scheduled = false; this.#subscribe(); }); // one command for a page full of widgets
    }
  }

  #subscribe() {
    if (!this.socket || this.socket.readyState !== 1) return;
    const batches = new Map();
    for (const [name, want] of this.wanted) {
      if (want.sent) continue;
      want.sent = true;
      const key = JSON.stringify([want.hz, want.fields]);
      if (!batches.has(key)) batches.set(key, []);
      batches.get(key).push(name);
    }
    for (const [key, names] of batches) {
      const [hz, fields] = JSON.parse(key);
      for (let at = 0; at < names.length; at += PER_COMMAND) {
        const ch = names.slice(at, at + PER_COMMAND);
        const command = { id: this.nextId++, op: "sub", ch, hz, since: this.#since(ch) };
        if (fields) command.fields = fields;
        this.replies.set(command.id, (reply) => reply && this.#subscribed(reply));
        this.#send(command);
      }
    }
  }

  #since(names) {
    const since = {};
    let room = 4 * PER_COMMAND;
    for (const [ch, copy] of this.channels) {
      if (room > 0 && copy.seq !== undefined && !copy.broken && names.some((name) => covers(name, ch))) {
        since[ch] = { epoch: copy.epoch, seq: copy.seq };
        room -= 1;
      }
    }
    return since;
  }

  #subscribed(reply) {
    for (const outcome of reply.subs || []) {
      if (outcome.error) {
        if (outcome.error.code !== "already_subscribed") this.#mark(outcome.ch, "stale", outcome.error.code, outcome.error);
        if (outcome.error.retry && this.wanted.has(outcome.ch)) {
          setTimeout(() => { const want = this.wanted.get(outcome.ch); if (want) { want.sent = false; this.#subscribe(); } }, 1000);
        }
      } else if (this.channels.has(outcome.ch)) {
        this.#mark(outcome.ch, "live", ""); // a stale channel gets a status after this
      }
    }
  }

  #setPaused() {
    const hidden = Boolean(this.options.pauseWhenHidden && this.document && this.document.hidden);
    if (hidden === Boolean(this.paused)) return;
    this.paused = hidden;
    this.#send({ id: this.nextId++, op: "set", paused: hidden });
  }

  // ---- incoming

  #take(text) {
    this.#guard();
    const frame = JSON.parse(text);
    for (const item of Array.isArray(frame) ? frame : [frame]) this.#takeOne(item);
  }

  #takeOne(item) {
    switch (item.t) {
      case undefined: return this.#replied(item);
      case "hello": this.pingS = item.ping_s; return this.#guard();
      case "ping": return this.#send({ op: "pong" });
      case "bye": this.afterMs = item.after_ms ?? null; return;
      case "auth_expiring": return void this.#refresh();
      case "status": return this.#mark(item.ch, item.state, item.reason);
      case "snap": return this.#reset(this.#rejoined(item));
      default: return this.#advance(item);
    }
  }

  #replied(reply) {
    if (reply.id === 0) {
      if (reply.ok) {
        this.attempt = 0;
        this.#report("open");
      } else {
        this.refused = reply.error.code;
      }
    }
    const take = this.replies.get(reply.id);
    this.replies.delete(reply.id);
    if (take) take(reply);
  }

  async #refresh() {
    if (typeof this.options.token === "function") this.#send({ id: this.nextId++, op: "auth", token: await this.options.token() });
  }

  #reset(snap) {
    const known = this.channels.get(snap.ch) || { state: "live", reason: "" };
    const copy = { state: known.state, reason: known.reason, epoch: snap.epoch, seq: snap.seq, ts: snap.ts, data: snap.data, broken: false };
    this.channels.set(snap.ch, copy);
    this.#emit("snap", snap.ch, copy);
  }

  // A pattern may bring a channel again long after its reply to the reconnected page: only our own word on it is taken back.
  #rejoined(snap) {
    const known = this.channels.get(snap.ch);
    if (known && known.reason === DISCONNECTED) Object.assign(known, { state: "live", reason: "" });
    return snap;
  }

  #advance(item) {
    const copy = this.channels.get(item.ch);
    if (!copy || copy.broken) return;
    if (item.t === "lost") {
      copy.seq += item.n;
      return this.#emit("lost", item.ch, copy, { lost: item.n });
    }
    if (item.prev !== copy.seq) return this.#mend(item.ch, copy);
    copy.seq = item.seq;
    copy.ts = item.ts;
    if (item.t === "upd") {
      copy.data = { ...copy.data, ...item.data };
      this.#emit("upd", item.ch, copy, { changed: item.data });
    } else if (item.t === "rows") {
      copy.data = mergedBoard(copy.data, item);
      this.#emit("rows", item.ch, copy, { changed: item.set });
    } else if (item.t === "event") {
      copy.data = [...copy.data.slice(1 - EVENTS_MAX), item.data];
      this.#emit("event", item.ch, copy, { event: item.data });
    }
  }

  // The chain is broken: nothing of this channel is shown until a snapshot has come.
  #mend(ch, copy) {
    copy.broken = true;
    this.get([ch]).then(([snap]) => {
      if (snap.error) throw new Error(snap.error.code);
      this.#reset(snap);
    }).catch(() => this.#mark(ch, "stale", "out of step"));
  }

  #mark(ch, state, reason, error) {
    let copy = this.channels.get(ch);
    if (!copy) this.channels.set(ch, (copy = { state, reason }));
    if (copy.state === state && copy.reason === reason && !error) return;
    Object.assign(copy, { state, reason });
    this.#emit("status", ch, copy, error ? { error } : {});
  }

  #emit(type, ch, copy, more = {}) {
    for (const [name, want] of this.wanted) {
      if (!covers(name, ch)) continue;
      for (const listener of [...want.listeners.keys()]) listener(copy.data, { ...info(type, ch, copy), ...more });
    }
  }

  #keepBars(name, book, data, about) {
    if (Array.isArray(data.history)) {
      book.rows.clear();
      for (const bar of data.history) book.rows.set(bar[0], bar);
    }
    const missed = book.i !== null && data.i > book.i + 1;
    const corrected = book.rev !== null && data.rev !== book.rev;
    if (data.prev) book.rows.set(data.prev[0], data.prev);
    book.rows.set(data.t, [data.t, data.open, data.high, data.low, data.close, data.volume, data.vwap, data.trades]);
    book.i = data.i;
    book.rev = data.rev;
    if (about.type === "snap" ? !Array.isArray(data.history) : missed || corrected) this.#askBars(name, book);
    const copy = this.channels.get(about.ch);
    if (copy && copy.data && copy.data.history) copy.data = { ...copy.data, history: undefined }; // the book has it
  }

  #askBars(name, book) {
    if (book.asking) return;
    book.asking = true;
    this.get([name]).then(([snap]) => {
      book.asking = false;
      if (!snap.error) this.#reset({ ...snap, data: { history: [], ...snap.data } });
    }).catch(() => { book.asking = false; });
  }

  // ---- the connection's end

  #lost(event) {
    clearTimeout(this.watchdog);
    this.socket = null;
    for (const take of this.replies.values()) take(null);
    this.replies.clear();
    for (const ch of this.channels.keys()) this.#mark(ch, "stale", DISCONNECTED);
    if (!this.ended) this.#again({ code: event.code, reason: event.reason });
  }

  #again({ code, reason }) {
    // 4000–4099: reconnecting would not help. A token that had expired is the exception when we can get another one.
    const expired = this.refused === "token_expired" && typeof this.options.token === "function" && this.attempt < 3;
    this.refused = null;
    if (code >= 4000 && code < 4100 && !expired) {
      this.ended = true;
      return this.#report("closed", { code, reason });
    }
    const most = Math.min(BACKOFF_MS.most, BACKOFF_MS.first * 2 ** this.attempt);
    const inMs = this.afterMs ?? Math.round(most * this.options.random());
    this.attempt += 1;
    this.#report("waiting", { code, reason, inMs });
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.connect(), inMs);
  }

  // A connection that says nothing for two and a half ping periods is dead, whatever the browser thinks of it.
  #guard() {
    if (!this.pingS) return;
    clearTimeout(this.watchdog);
    this.watchdog = setTimeout(() => {
      const socket = this.socket;
      if (!socket) return;
      socket.onclose = null;
      socket.close();
      this.#lost({ code: 1006, reason: "silent" });
    }, this.pingS * 2500);
  }

  #report(state, more = {}) {
    this.state = state;
    this.options.onState({ state, ...more });
  }

  #isWanted(ch) {
    return [...this.wanted.keys()].some((name) => covers(name, ch));
  }
}

function covers(name, ch) {
  return name === ch || (name.endsWith(":*") && ch.startsWith(name.slice(0, -1)));
}

function info(type, ch, copy) {
  return { type, ch, epoch: copy.epoch, seq: copy.seq, ts: copy.ts, state: copy.state, reason: copy.reason };
}

function mergedBoard(board, item) {
  const rows = { ...board.rows, ...item.set };
  for (const gone of item.del || []) delete rows[gone];
  const order = item.order || board.order;
  return { order, rows: Object.fromEntries(order.filter((sym) => sym in rows).map((sym) => [sym, rows[sym]])) };
}
