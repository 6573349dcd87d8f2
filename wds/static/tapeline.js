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
 *
 * Subscriptions are one model: `wanted` is what listeners ask for, `wire` what the server was told, and `#flush` sends the
 * difference, several changes in one command and no quicker than the server allows. So nothing that is refused for the
 * moment is forgotten, and a listener that leaves takes nothing from another one, however names and patterns overlap.
 */

const PATH = "/v1/stream";
const EVENTS_MAX = 500; // kept of an event channel, newest last
const BACKOFF_MS = { first: 500, most: 30_000 };
const PATIENCE_MS = { token: 10_000, signIn: 10_000, probe: 4_000, connecting: 2_000 };
const STOOD_MS = 10_000; // a connection that stood so long was a good one: the next wait begins small again
const FLUSH_MS = 50; // changes within so long travel in one command
const BEAT_MS = 1_000;
const ASLEEP_MS = 5_000; // a beat so late: the machine slept, or this process was stopped
// Until the server has told its own: `burst` commands at once, `commands_s` more a second; a command costs 1, and 1 more for
// every `channels_per_cost` channels in it.
const LIMITS = { subs: 200, bytes: 16_384, commands_s: 20, burst: 100, channels: 500, channels_per_cost: 50 };
const SHARE = 0.8; // of the announced rate: the server's clock and ours are two
const KEPT_FREE = 5; // commands that stay possible at once, for pongs and tokens
const MENDS_MAX = 50; // channels out of step that are asked for in one command
const QUESTIONS_MAX = 200; // gets that wait for their turn
const TRIES_MAX = 5;
const BAD_TOKEN = 4001;
const HOPELESS = new Set([1002, 1009, 4003]); // not WebSocket, a frame far too large, forbidden: trying again changes nothing
const DISCONNECTED = "disconnected"; // what we say of a channel by ourselves
const TIERS = ["raw", 10, 4, 1, 0.2]; // quickest first

export class Tapeline {
  /**
   * @param {string} url ws://host:port, with or without the path
   * @param {object} options
   *   token: string, or (async) function that returns a fresh one: called before each connect and when one expires
   *   hz: default rate (raw, 10, 4, 1, 0.2); pauseWhenHidden: default true
   *   form: "compact" (default: a third of the bytes, where the server has it) or "json"; you are called the same
   *   onState: called with {state: "connecting"|"open"|"waiting"|"closed", code, reason, inMs}. "closed" comes only when
   *     trying again by itself would not help; `connect()` tries all the same.
   *   WebSocket, random, document, window, clock ({now, setTimeout, clearTimeout}): for tests
   */
  constructor(url, options = {}) {
    const { protocol, host, pathname } = new URL(url);
    this.url = pathname.length > 1 ? url : `${protocol}//${host}${PATH}`;
    this.options = { hz: 4, pauseWhenHidden: true, form: "compact", onState: () => {}, random: Math.random, ...options };
    this.WebSocket = options.WebSocket || globalThis.WebSocket;
    this.document = options.document || globalThis.document;
    this.window = options.window || globalThis;
    this.clock = options.clock || {
      now: () => Date.now(), setTimeout: (...given) => setTimeout(...given), clearTimeout: (timer) => clearTimeout(timer),
    };
    this.limits = { ...LIMITS };
    this.channels = new Map(); // name → { epoch, seq, ts, data, fields, broken, state, reason: the server's word, doubt: our own }
    this.wanted = new Map(); // name or pattern → Map(listener → { hz, fields, key: the fields as text })
    this.patterns = []; // those of `wanted` that are patterns
    // name or pattern → { key: what the server was told or null, has: what it has confirmed, blocked: what it refused, tries, alone }
    this.wire = new Map();
    this.dirty = new Set(); // names whose wire may have to change
    this.crowded = new Set(); // names that found no room under the server's limit
    this.broken = new Set(); // channels out of step
    this.questions = []; // gets that were not sent yet
    this.replies = new Map(); // id → function(reply, or null when the connection ended)
    this.expander = null; // reads the compact form, when the server writes it
    this.timers = {};
    this.pace = new Pace(this.clock);
    this.nextId = 1;
    this.generation = 0;
    this.attempt = 0;
    this.badTokens = 0;
    this.notBefore = 0;
    this.state = "closed";
    this.onVisibility = () => this.#visible();
    this.onOnline = () => this.#hurry();
  }

  /** Listen to a channel or a pattern (`board:*`). Returns the function that ends it. */
  on(name, listener, { hz, fields } = {}) {
    if (!this.wanted.has(name)) {
      this.wanted.set(name, new Map());
      if (isPattern(name)) this.patterns.push(name);
    }
    const sorted = fields ? [...new Set(fields)].sort() : null;
    const wish = { hz: hz ?? this.options.hz, fields: sorted, key: String(sorted) };
    this.wanted.get(name).set(listener, wish);
    this.#changed(name);
    for (const [ch, copy] of isPattern(name) ? [...this.channels] : [[name, this.channels.get(name)]]) {
      if (copy?.data !== undefined && covers(name, ch)) this.#tell(listener, wish, copy, aboutOf("snap", ch, copy));
    }
    if (this.state === "closed" && !this.ended) this.connect();
    return () => this.off(name, listener);
  }

  /** End one listener; the last one of a channel ends its subscription. */
  off(name, listener) {
    const listeners = this.wanted.get(name);
    if (!listeners?.delete(listener)) return;
    if (listeners.size === 0) {
      this.wanted.delete(name);
      this.patterns = this.patterns.filter((pattern) => pattern !== name);
    }
    this.#changed(name);
  }

  /** Ask for snapshots without subscribing: resolves to [{ch, epoch, seq, ts, data} | {ch, error}]. */
  get(names, limit) {
    return new Promise((resolve, reject) => {
      if (!this.greeted) return reject(new Error("not connected"));
      if (this.questions.length >= QUESTIONS_MAX) return reject(new Error("too many questions are waiting"));
      this.questions.push({ ch: [].concat(names), limit, resolve, reject, tries: 0 });
      this.#soon();
    });
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

  /** Connect now; `on` does it by itself. After "closed" this is the way to try again. */
  async connect() {
    if (this.ended !== false) this.#begin();
    const generation = (this.generation += 1);
    this.#hangUp();
    this.connectingAt = this.clock.now();
    this.#report("connecting");
    const current = () => generation === this.generation && !this.ended;
    try {
      const token = await this.#token();
      if (current()) this.#open(token);
    } catch (fault) {
      if (current()) this.#again({ code: 0, reason: `no connection: ${fault.message}` });
    }
  }

  /** Say goodbye and stay closed. */
  close() {
    this.ended = true;
    this.generation += 1;
    for (const name of Object.keys(this.timers)) this.#after(name, null);
    this.document?.removeEventListener("visibilitychange", this.onVisibility);
    this.window.removeEventListener?.("online", this.onOnline);
    if (this.socket) this.socket.close(1000);
    this.#report("closed");
  }

  // ---- the connection's begin

  #begin() {
    Object.assign(this, { ended: false, attempt: 0, badTokens: 0, notBefore: 0, beatAt: this.clock.now() });
    this.document?.addEventListener("visibilitychange", this.onVisibility);
    this.window.addEventListener?.("online", this.onOnline);
    this.#beat();
  }

  // A token that does not come must not hold up everything: there is a time for it, too.
  #token() {
    const { token } = this.options;
    if (typeof token !== "function") return Promise.resolve(token);
    return new Promise((resolve, reject) => {
      const timer = this.clock.setTimeout(() => reject(new Error("no token came")), PATIENCE_MS.token);
      const done = (settle) => (value) => { this.clock.clearTimeout(timer); settle(value); };
      Promise.resolve().then(token).then(done(resolve), done(reject));
    });
  }

  #open(token) {
    const socket = (this.socket = new this.WebSocket(this.url, ["wds.v1.json"]));
    Object.assign(this, { afterMs: null, greeted: false, toldPaused: false, refused: null, openedAt: null, expander: null });
    this.wire.clear();
    this.crowded.clear();
    this.broken.clear();
    for (const name of this.wanted.keys()) this.dirty.add(name);
    this.pace.limit(this.limits, true);
    this.#after("patience", PATIENCE_MS.signIn, () => this.#drop("no answer"));
    socket.onopen = () => {
      if (socket !== this.socket) return;
      const { form } = this.options;
      this.#send({ id: 0, op: "auth", token, ...(form === "json" ? {} : { form }) });
      this.replies.set(0, (reply) => reply && this.#signedIn(reply));
    };
    socket.onmessage = (event) => socket === this.socket && this.#take(event.data);
    socket.onclose = (event) => socket === this.socket && this.#lost(event);
    socket.onerror = () => {};
  }

  #signedIn(reply) {
    if (!reply.ok) {
      this.refused = reply.error.code; // the close code follows
      return;
    }
    this.#after("patience", null);
    this.badTokens = 0;
    this.openedAt = this.clock.now();
    if (reply.kinds) this.expander = new Expander(reply);
    this.#learn(reply.limits);
    this.#report("open");
  }

  #learn(limits) {
    if (!limits) return;
    Object.assign(this.limits, limits);
    this.pace.limit(this.limits);
  }

  // ---- outgoing: what is wanted, and the difference to what the server was told

  #changed(name) {
    this.dirty.add(name);
    if (isPattern(name)) for (const other of this.wire.keys()) if (other !== name && covers(name, other)) this.dirty.add(other);
    this.#soon();
  }

  /**
   * The subscription that the server should have under this name: the quickest rate and the union of the fields of everybody
   * whom its frames reach. A name under a pattern is a subscription of its own, which the pattern's listeners hear as well;
   * once made it stays as long as the pattern does, because the server has taken it out of the pattern.
   */
  #plan(name) {
    const listeners = [...(this.wanted.get(name)?.values() ?? [])];
    if (listeners.length > 0 || this.wire.has(name)) {
      for (const pattern of this.patterns) if (pattern !== name && covers(pattern, name)) listeners.push(...this.wanted.get(pattern).values());
    }
    if (listeners.length === 0) return null;
    const hz = TIERS.find((tier) => listeners.some((one) => one.hz === tier)) ?? this.options.hz;
    const fields = listeners.some((one) => !one.fields) ? null : [...new Set(listeners.flatMap((one) => one.fields))].sort();
    return JSON.stringify([hz, fields]);
  }

  /** Send what is due soon: at once after a rest, else together with what changes within FLUSH_MS. */
  #soon(ms = 0) {
    const due = Math.max(this.clock.now() + ms, (this.flushedAt ?? 0) + FLUSH_MS);
    if (this.timers.flush !== undefined && this.flushAt <= due) return;
    this.flushAt = due;
    this.#after("flush", due - this.clock.now(), () => this.#flush());
  }

  #flush() {
    if (!this.greeted) return;
    this.flushedAt = this.clock.now();
    for (const step of [() => this.#flushPaused(), () => this.#flushNames(), () => this.#flushMends(), () => this.#flushQuestions()]) {
      if (!step()) return; // the rest waits for its turn
    }
  }

  #flushPaused() {
    const hidden = this.#hidden();
    if (hidden === this.toldPaused) return true;
    return this.#ask({ op: "set", paused: hidden }, (reply) => {
      if (!reply.ok) this.#later(reply.error, () => { this.toldPaused = null; });
    }, () => { this.toldPaused = hidden; });
  }

  #flushNames() {
    const leave = [];
    const join = new Map(); // what can go into one command → { plan, names }
    for (const name of this.dirty) {
      const plan = this.#plan(name);
      const entry = this.wire.get(name);
      if (entry?.key && entry.key !== plan) leave.push(name);
      if (!plan) {
        if (!entry?.key) this.#forget(name);
      } else if (entry?.key === plan || entry?.blocked === plan) {
        this.dirty.delete(name);
      } else {
        const company = `${plan}${entry?.alone || isPattern(name) ? name : ""}`;
        if (!join.has(company)) join.set(company, { plan, names: [] });
        join.get(company).names.push(name);
      }
    }
    // Names before patterns: the server would join them with the pattern's rate and fields, and a name is the closer wish.
    const joins = [...join.values()].sort((a, b) => isPattern(a.names[0]) - isPattern(b.names[0]));
    return chunks(leave, (name) => name.length + 3, this.#room(), this.pace.channelsMost).every((names) => this.#leave(names))
      && joins.every(({ plan, names }) => this.#join(plan, names));
  }

  #leave(names) {
    return this.#ask({ op: "unsub", ch: names }, (reply) => {
      if (!reply.ok) return this.#later(reply.error, () => names.forEach((name) => this.#stillThere(name)));
      for (const name of names) if (this.wire.has(name)) this.wire.get(name).has = null;
      this.#roomMade();
    }, () => {
      for (const name of names) {
        this.wire.get(name).key = null;
        if (!this.#plan(name)) this.#forget(name);
      }
    });
  }

  // The server did not take the goodbye: what we think of this name is not so.
  #stillThere(name) {
    const entry = this.wire.get(name) ?? { tries: 0 };
    this.wire.set(name, entry);
    entry.key ??= "something else";
    this.dirty.add(name);
  }

  #forget(name) {
    this.dirty.delete(name);
    this.wire.delete(name);
    this.crowded.delete(name);
    for (const ch of isPattern(name) ? [...this.channels.keys()] : [name]) {
      if (covers(name, ch) && !this.#isWanted(ch)) {
        this.channels.delete(ch);
        this.expander?.forget(ch);
        this.broken.delete(ch);
      }
    }
  }

  #roomMade() {
    for (const name of this.crowded) {
      const entry = this.wire.get(name);
      if (entry) entry.blocked = null;
      this.dirty.add(name);
    }
    if (this.crowded.size) this.#soon();
    this.crowded.clear();
  }

  #join(plan, names) {
    const [hz, fields] = JSON.parse(plan);
    const rest = { hz, ...(fields ? { fields } : {}) };
    const room = this.#room() - plan.length;
    const bytesOf = (name) => name.length + 3 + (isPattern(name) ? 0 : this.#bytesOfSince(name, plan));
    return chunks(names, bytesOf, room, this.pace.channelsMost).every((ch) => {
      const entries = new Map();
      const since = this.#since(ch, plan, room);
      return this.#ask({ op: "sub", ch, ...rest, since }, (reply) => this.#joined(entries, plan, reply, since), () => {
        for (const name of ch) {
          const entry = Object.assign(this.wire.get(name) ?? { tries: 0 }, { key: plan, blocked: null });
          this.wire.set(name, entry);
          entries.set(name, entry);
          this.dirty.delete(name);
        }
      });
    });
  }

  #joined(entries, plan, reply, since) {
    const ours = (name) => (entries.has(name) && this.wire.get(name) === entries.get(name) && entries.get(name).key === plan ? entries.get(name) : null);
    if (!reply.ok) {
      const again = [...entries.keys()].filter(ours);
      again.forEach((name) => { ours(name).key = null; });
      if (reply.error.retry) this.#later(reply.error, () => again.forEach((name) => this.dirty.add(name)));
      else if (entries.size > 1) again.forEach((name) => { this.wire.get(name).alone = true; this.#changed(name); }); // one of them spoils it
      else again.forEach((name) => this.#refuse(name, plan, reply.error));
      return;
    }
    for (const outcome of reply.subs || []) {
      const entry = ours(outcome.ch);
      if (entries.has(outcome.ch) && (!outcome.error || outcome.matched !== undefined)) entries.get(outcome.ch).has = plan;
      if (!outcome.error) {
        if (entry) entry.tries = 0;
        if (this.channels.has(outcome.ch)) this.#mark(outcome.ch, "live", ""); // a stale channel gets a status after this
      } else if (entry) {
        this.#outcome(outcome, entry, plan);
      }
      // A reply about thousands of channels is cut to the patterns' own lines: what had not changed is live without a word.
      if (outcome.matched > reply.subs.length) for (const ch of Object.keys(since)) if (this.channels.has(ch)) this.#mark(ch, "live", "");
    }
  }

  #outcome({ ch, error, matched }, entry, plan) {
    if (error.code === "already_subscribed" && entry.tries < TRIES_MAX) {
      entry.tries += 1; // a pattern brings it with its own rate and fields: take it out of there
      entry.key = "something else";
      return this.#changed(ch);
    }
    if (error.retry) {
      entry.key = null;
      entry.tries += 1;
      const again = this.#later({ after_ms: this.#backoff(entry.tries), ...error }, () => this.wire.get(ch) === entry && this.dirty.add(ch), false);
      this.#doubt(ch, error.code, error);
      return again;
    }
    if (matched === undefined) this.#refuse(ch, plan, error);
    else this.#doubt(ch, error.code, error); // a pattern that the limit cut is subscribed all the same
  }

  #refuse(name, plan, error) {
    const entry = this.wire.get(name);
    Object.assign(entry, { key: null, blocked: plan });
    if (error.code === "limit") this.crowded.add(name);
    this.#doubt(name, error.code, error);
  }

  // Where the named channels stand; of a pattern as many as fit into a frame: the others come as snapshots, which are as whole.
  #since(names, plan, room) {
    const since = {};
    let left = room - names[0].length;
    for (const ch of isPattern(names[0]) ? this.channels.keys() : names) {
      const bytes = covers(names[0], ch) || names.length > 1 ? this.#bytesOfSince(ch, plan) : 0;
      if (bytes === 0) continue;
      if ((left -= bytes) < 0 && isPattern(names[0])) break;
      const { epoch, seq } = this.channels.get(ch);
      since[ch] = { epoch, seq };
    }
    return since;
  }

  // 0 = there is nothing to go on from: no data of the connection before, a broken chain, or other fields than are asked for now.
  #bytesOfSince(ch, plan) {
    const copy = this.channels.get(ch);
    if (copy?.seq === undefined || copy.doubt !== DISCONNECTED || copy.broken || copy.fields !== fieldsOf(plan)) return 0;
    return ch.length + copy.epoch.length + String(copy.seq).length + 25;
  }

  #room() {
    return this.limits.bytes * 0.9 - 120;
  }

  #flushMends() {
    const names = [...this.broken].slice(0, MENDS_MAX);
    if (names.length === 0) return true;
    return this.#ask({ op: "get", ch: names }, (reply) => {
      const failed = reply.ok ? reply.snaps.filter((snap) => snap.error).map((snap) => snap.ch) : names;
      this.#adopt(reply.snaps);
      if (failed.length) this.#later({ after_ms: this.#backoff(1), ...reply.error }, () => failed.forEach((ch) => this.channels.get(ch)?.broken && this.broken.add(ch)), false);
      for (const ch of failed) this.#doubt(ch, "out of step");
    }, () => names.forEach((ch) => this.broken.delete(ch)));
  }

  #flushQuestions() {
    while (this.questions.length > 0) {
      const question = this.questions[0];
      const { ch, limit, resolve, reject } = question;
      const sent = this.#ask({ op: "get", ch, ...(limit ? { limit } : {}) }, (reply) => {
        if (reply.ok) {
          if (!limit) this.#adopt(reply.snaps);
          resolve(reply.snaps);
        } else if (reply.error.retry && (question.tries += 1) < TRIES_MAX) {
          this.#later(reply.error, () => this.questions.push(question));
        } else {
          reject(Object.assign(new Error(reply.error.message || reply.error.code), reply.error));
        }
      }, () => this.questions.shift(), reject);
      if (!sent) return false;
    }
    return true;
  }

  // Send one command when the pace allows it, else come back when it does. `sent` is called before anything is answered.
  #ask(command, take, sent, lost) {
    const cost = 1 + (command.ch?.length ?? 0) / this.limits.channels_per_cost;
    const waitMs = this.pace.wait(cost);
    if (waitMs > 0) {
      this.#soon(waitMs);
      return false;
    }
    const id = this.nextId++;
    this.replies.set(id, (reply) => (reply ? take(reply) : lost?.(new Error("connection lost"))));
    sent();
    this.#send({ id, ...command }, cost);
    return true;
  }

  #send(command, cost = 1) {
    if (this.socket?.readyState !== 1) return;
    this.pace.take(cost);
    this.socket.send(JSON.stringify(command));
  }

  // The server asked for patience: nothing is sent before, then `then` and whatever is due.
  #later({ code, after_ms: afterMs = 1000 }, then, everything = code === "rate_limited") {
    const { generation } = this;
    if (everything) this.pace.rest(afterMs);
    this.clock.setTimeout(() => {
      if (generation !== this.generation) return;
      then();
      this.#soon();
    }, afterMs);
  }

  #backoff(tries) {
    return Math.min(BACKOFF_MS.most, BACKOFF_MS.first * 2 ** tries) * (0.5 + this.options.random() / 2);
  }

  // ---- hidden, asleep, offline

  #hidden() {
    return Boolean(this.options.pauseWhenHidden && this.document?.hidden);
  }

  #visible() {
    this.#soon();
    if (!this.document.hidden) this.#hurry();
  }

  #beat() {
    const now = this.clock.now();
    const late = now - this.beatAt > BEAT_MS + ASLEEP_MS;
    this.beatAt = now;
    if (late) this.#hurry();
    this.#after("beat", BEAT_MS, () => this.#beat());
  }

  // Something has changed for the better: try at once, unless the server asked for patience; doubt a connection that is there.
  #hurry() {
    const now = this.clock.now();
    if (this.ended) return;
    if (this.state === "waiting" && now >= this.notBefore) this.connect();
    else if (this.state === "waiting") this.#after("again", this.notBefore - now, () => this.connect());
    else if (this.state === "connecting" && now - this.connectingAt > PATIENCE_MS.connecting) this.connect();
    else if (this.state === "open") this.#probe();
  }

  // A connection that survived a sleep may be dead without knowing it: any answer will do.
  #probe() {
    if (this.timers.probe !== undefined) return;
    this.#after("probe", PATIENCE_MS.probe, () => this.#drop("silent"));
    this.#send({ id: this.nextId++, op: "set", paused: (this.toldPaused = this.#hidden()) });
  }

  // ---- incoming

  #take(text) {
    this.#guard();
    this.#after("probe", null);
    const frame = JSON.parse(text);
    for (const item of Array.isArray(frame) && typeof frame[0] !== "number" ? frame : [frame]) {
      const whole = Array.isArray(item) ? this.expander?.frame(item) : item;
      if (whole) this.#takeOne(whole);
    }
  }

  #takeOne(item) {
    switch (item.t) {
      case undefined: return this.#replied(item);
      case "hello": return this.#hello(item);
      case "ping": return this.#send({ op: "pong" });
      case "bye": this.afterMs = item.after_ms ?? null; return;
      case "auth_expiring": return void this.#refresh(this.clock.now() + item.in_s * 1000, 0);
      case "num": return this.#isWanted(item.ch) && this.expander?.note(item);
      case "status": return this.#isWanted(item.ch) && this.#mark(item.ch, item.state, item.reason);
      case "snap": return this.#reset(item);
      default: return this.#advance(item);
    }
  }

  #hello(item) {
    this.pingS = item.ping_s;
    this.greeted = true;
    this.#learn(item.limits);
    this.#guard();
    this.flushedAt = undefined;
    this.#flush();
  }

  #replied(reply) {
    const take = this.replies.get(reply.id);
    this.replies.delete(reply.id);
    take?.(reply);
  }

  // A token that does not come now comes a moment later: the one in force still holds for a while.
  async #refresh(until, tries) {
    if (typeof this.options.token !== "function") return;
    const { generation } = this;
    const again = (after_ms = this.#backoff(tries + 1)) => {
      if (this.clock.now() < until) this.#later({ after_ms }, () => void this.#refresh(until, tries + 1));
    };
    try {
      const token = await this.#token();
      if (generation !== this.generation) return;
      const id = this.nextId++;
      this.replies.set(id, (reply) => (reply && !reply.ok ? again(reply.error.after_ms) : this.#learn(reply?.limits)));
      this.#send({ id, op: "auth", token });
    } catch {
      if (generation === this.generation) again();
    }
  }

  #reset(snap) {
    if (!this.#isWanted(snap.ch)) return;
    if (snap.n !== undefined) this.expander?.note(snap);
    const { state, reason } = this.channels.get(snap.ch) || { state: "live", reason: "" };
    const fields = fieldsOf(this.#keyOf(snap.ch));
    const { epoch, seq, ts, data } = snap;
    const copy = { epoch, seq, ts, data, fields, broken: false, state, reason, doubt: null };
    this.channels.set(snap.ch, copy);
    this.broken.delete(snap.ch);
    this.#emit("snap", snap.ch, copy);
  }

  // The subscription that brings this channel, as the server has confirmed it: a frame on its way may still be of the one before.
  #keyOf(ch) {
    return this.wire.get(ch)?.has ?? this.patterns.map((name) => covers(name, ch) && this.wire.get(name)?.has).find(Boolean);
  }

  // The answer to a get is a position in the chain of a channel that we follow: the chain goes on from there.
  #adopt(snaps = []) {
    for (const snap of snaps) {
      const copy = this.channels.get(snap.ch);
      if (!snap.error && copy?.data !== undefined && this.#keyOf(snap.ch)) this.#reset(snap);
    }
  }

  #advance(item) {
    const copy = this.channels.get(item.ch);
    if (!copy || copy.data === undefined || copy.broken) return;
    if (item.t === "lost") {
      copy.seq += item.n;
      return this.#emit("lost", item.ch, copy, { lost: item.n });
    }
    if (item.prev !== copy.seq) { // nothing of this channel is shown until a snapshot has come
      copy.broken = true;
      this.broken.add(item.ch);
      return this.#soon();
    }
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

  // The server's word on a channel.
  #mark(ch, state, reason = "") {
    const copy = this.channels.get(ch) ?? { state: "live", reason: "", doubt: null };
    this.channels.set(ch, copy);
    if (copy.state === state && copy.reason === reason && !copy.doubt) return;
    Object.assign(copy, { state, reason, doubt: null });
    this.#emit("status", ch, copy);
  }

  // Our own word, which holds until the server has spoken of the channel again: whatever it said before is kept meanwhile.
  #doubt(ch, doubt, error) {
    const copy = this.channels.get(ch) ?? { state: "live", reason: "" };
    this.channels.set(ch, copy);
    if (doubt === DISCONNECTED) Object.assign(copy, { state: "live", reason: "" }); // the next connection begins anew
    if (copy.doubt === doubt && !error) return;
    copy.doubt = doubt;
    this.#emit("status", ch, copy, error ? { error } : {});
  }

  #emit(type, ch, copy, more) {
    const about = aboutOf(type, ch, copy, more);
    const named = this.wanted.get(ch);
    if (named) for (const [listener, wish] of named) this.#tell(listener, wish, copy, about);
    for (const pattern of this.patterns) {
      if (pattern === ch || !covers(pattern, ch)) continue;
      for (const [listener, wish] of this.wanted.get(pattern)) this.#tell(listener, wish, copy, about);
    }
  }

  // A listener sees the fields that it asked for, whatever others ask of the same channel; and its faults are its own.
  #tell(listener, { fields, key }, copy, about) {
    let { data } = copy;
    if (fields && data !== undefined && copy.fields !== key) {
      const { type, changed, event } = about;
      if (type === "upd" && !fields.some((field) => field in changed)) return;
      if (type === "upd") about = { ...about, changed: picked(changed, fields) };
      if (type === "rows") about = { ...about, changed: mapped(changed, fields) };
      if (type === "event") about = { ...about, event: picked(event, fields) };
      if (Array.isArray(data)) data = data.map((one) => picked(one, fields));
      else data = data.order ? { ...data, rows: mapped(data.rows, fields) } : picked(data, fields);
    }
    try {
      listener(data, about);
    } catch (fault) {
      (globalThis.reportError ?? console.error)(fault);
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
    if (copy?.data?.history) copy.data = { ...copy.data, history: undefined }; // the book has it
  }

  #askBars(name, book) {
    if (book.asking) return;
    book.asking = true;
    const done = () => { book.asking = false; };
    this.get([name]).then(done, done); // the answer is adopted, and comes as a snap
  }

  // ---- the connection's end

  // The socket says nothing any more, or never did: it is dead, whatever the browser thinks of it.
  #drop(reason) {
    if (!this.socket) return;
    this.#hangUp();
    this.#lost({ code: 1006, reason });
  }

  #hangUp() {
    const { socket } = this;
    this.socket = null;
    this.greeted = false;
    for (const name of ["patience", "probe", "watchdog", "again", "flush"]) this.#after(name, null);
    if (socket) {
      socket.onopen = socket.onmessage = socket.onclose = null;
      socket.close();
      this.#disconnected();
    }
  }

  #lost(event) {
    this.#hangUp();
    this.generation += 1;
    if (!this.ended) this.#again({ code: event.code, reason: event.reason });
  }

  #disconnected() {
    const waiting = [...this.replies.values()];
    this.replies.clear();
    for (const take of waiting) take(null);
    for (const { reject } of this.questions.splice(0)) reject(new Error("connection lost"));
    for (const ch of [...this.channels.keys()]) this.#doubt(ch, DISCONNECTED);
  }

  #again({ code, reason }) {
    const { afterMs = null } = this;
    const renewable = typeof this.options.token === "function";
    const expired = this.refused === "token_expired";
    const bad = code === BAD_TOKEN && !(renewable ? expired || afterMs !== null : afterMs !== null && !expired);
    if (bad) this.badTokens += 1;
    if (HOPELESS.has(code) || (bad && (!renewable || this.badTokens > 1))) return this.#stop(code, reason);
    if (this.openedAt && this.clock.now() - this.openedAt > STOOD_MS) this.attempt = 0;
    const jitterMs = Math.min(BACKOFF_MS.most, BACKOFF_MS.first * 2 ** this.attempt) * this.options.random();
    // The server has already spread those whom it sends away for a planned end (42xx); others come one by one by their jitter.
    const spread = afterMs !== null && code >= 4200 && this.attempt === 0;
    const inMs = Math.round((afterMs ?? 0) + (spread ? 0 : jitterMs));
    this.notBefore = this.clock.now() + (afterMs ?? 0);
    Object.assign(this, { attempt: this.attempt + 1, afterMs: null, openedAt: null });
    this.#report("waiting", { code, reason, inMs });
    this.#after("again", inMs, () => this.connect());
  }

  #stop(code, reason) {
    this.ended = true;
    for (const name of Object.keys(this.timers)) this.#after(name, null);
    this.#report("closed", { code, reason });
  }

  // A connection that says nothing for two and a half ping periods is dead.
  #guard() {
    if (this.pingS) this.#after("watchdog", this.pingS * 2500, () => this.#drop("silent"));
  }

  #after(name, ms, then) {
    if (this.timers[name] !== undefined) this.clock.clearTimeout(this.timers[name]);
    this.timers[name] = ms === null ? undefined : this.clock.setTimeout(() => {
      this.timers[name] = undefined;
      then();
    }, ms);
  }

  #report(state, more = {}) {
    this.state = state;
    this.options.onState({ state, ...more });
  }

  #isWanted(ch) {
    return this.wanted.has(ch) || this.patterns.some((name) => covers(name, ch));
  }
}

/** Makes of an item of the compact form the frame that it stands for. */
class Expander {
  constructor({ base_ms: base, kinds }) {
    Object.assign(this, { base, kinds, names: new Map(), numbers: new Map() });
  }

  note({ ch, n }) {
    this.forget(ch);
    this.names.set(n, ch);
    this.numbers.set(ch, n);
  }

  forget(ch) {
    this.names.delete(this.numbers.get(ch));
    this.numbers.delete(ch);
  }

  frame([n, seq, step, ms, changed, ...more]) {
    const ch = this.names.get(n);
    if (ch === undefined) return null; // on its way when the channel was left
    const [first, second] = ch.split(":", 2);
    const { t, fields } = this.kinds[first] ?? this.kinds[`${first}:${second}`];
    const ts = ms + this.base;
    const head = { t, ch, prev: seq - step, seq, ts };
    if (t !== "rows") return { ...head, data: named(fields, changed, more, ts) };
    const set = Object.fromEntries(Object.entries(changed).map(([sym, [mask, ...values]]) => [sym, named(fields, mask, values)]));
    return { ...head, set, ...(more[0] ? { del: more[0] } : {}), ...(more[1] ? { order: more[1] } : {}) };
  }
}

/** The fields whose bits are in `mask`; bit 0 = `ts` is the frame's own. */
function named(fields, mask, values, ts) {
  const data = {};
  let at = 0;
  for (let i = 0, rest = Math.floor(mask / 2); rest > 0; i += 1, rest = Math.floor(rest / 2)) if (rest % 2) data[fields[i]] = values[at++];
  if (mask % 2) data.ts = ts;
  return data;
}

/** Keeps to the server's command rate, with something to spare. */
class Pace {
  constructor(clock) {
    this.clock = clock;
    this.limit(LIMITS, true);
  }

  limit({ commands_s: rate, burst, channels, channels_per_cost: perCost }, anew = false) {
    this.rate = rate * SHARE;
    this.burst = Math.max(1, burst * SHARE);
    this.kept = Math.min(KEPT_FREE, this.burst / 4);
    this.channelsMost = Math.max(1, Math.min(channels * SHARE, Math.floor((this.burst / 2 - 1) * perCost)));
    this.tokens = anew ? this.burst : Math.min(this.tokens, this.burst);
    if (anew) Object.assign(this, { at: this.clock.now(), restUntil: 0 });
  }

  /** Milliseconds until a command of this cost may be sent; 0 = now. */
  wait(cost) {
    this.#refill();
    const needed = Math.min(cost, this.burst - this.kept) + this.kept - this.tokens;
    return Math.max(this.restUntil - this.at, needed > 0 ? Math.ceil((needed / this.rate) * 1000) : 0, 0);
  }

  take(cost) {
    this.#refill();
    this.tokens -= cost;
  }

  rest(ms) {
    this.#refill();
    this.restUntil = this.at + ms;
    this.tokens = Math.min(this.tokens, this.kept);
  }

  #refill() {
    const now = this.clock.now();
    this.tokens = Math.min(this.burst, this.tokens + (Math.max(0, now - this.at) * this.rate) / 1000);
    this.at = now;
  }
}

function aboutOf(type, ch, { epoch, seq, ts, state, reason, doubt }, more) {
  return { type, ch, epoch, seq, ts, state: doubt ? "stale" : state, reason: doubt ?? reason, ...more };
}

function isPattern(name) {
  return name.endsWith(":*");
}

function covers(name, ch) {
  return name === ch || (isPattern(name) && ch.startsWith(name.slice(0, -1)));
}

function fieldsOf(key) {
  return key?.startsWith("[") ? String(JSON.parse(key)[1]) : undefined;
}

/** `names` in pieces of at most `bytes` and `most` names. */
function chunks(names, bytesOf, bytes, most) {
  const made = [];
  let room = 0;
  for (const name of names) {
    const needed = bytesOf(name);
    if (needed > room || made.at(-1).length >= most) {
      made.push([]);
      room = bytes;
    }
    made.at(-1).push(name);
    room -= needed;
  }
  return made;
}

/** The fields of `from` that are asked for. */
function picked(from, fields) {
  return Object.fromEntries(fields.filter((field) => field in from).map((field) => [field, from[field]]));
}

function mapped(rows, fields) {
  return Object.fromEntries(Object.entries(rows).map(([sym, row]) => [sym, picked(row, fields)]));
}

function mergedBoard(board, item) {
  const rows = { ...board.rows, ...item.set };
  for (const gone of item.del || []) delete rows[gone];
  const order = item.order || board.order;
  return { order, rows: Object.fromEntries(order.filter((sym) => sym in rows).map((sym) => [sym, rows[sym]])) };
}
