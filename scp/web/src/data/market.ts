// Follows quotes and their states for the table: of everything as long as the stream allows it, else of the rows in view.
// Invariant: never more subscriptions than the stream allows, with room kept for chart, prints and boards.

import type { BoardRow } from "./boards.ts";
import { FIELDS, type Quote, type QuoteTable } from "./quotes.ts";
import { REST_MS } from "../rest.ts";
import type { Listener, Stream, Subscription } from "./stream.ts";

const PREFIX = "quote:";
const HZ = 4;
const KEPT_FREE = 24; // at least: boards, alerts, status; a symbol's chart, prints, halts and book, twice while one is swapped for another
const LOOK_MS = 40;
const MOVING_MS_MAX = 1000; // somebody who scrolls on and on sees quotes, too
const NOT_FOLLOWED = "not in view";
const UNKNOWN_MS_MAX = 5000; // boards naming symbols that the pattern does not bring for so long: it is full

export class Market {
  /** True while one pattern brings every symbol; false once the stream said that these are too many. */
  everything = true;
  private all: Subscription | null = null;
  private readonly followed = new Map<string, Subscription>();
  private readonly listener: Listener;
  private lookedAt = 0;
  private view = ""; // what was in view at the last look
  private movedAt = 0;
  private followedAt = 0;
  private followedView = "";
  private unknownSince = 0;

  constructor(
    private readonly stream: Stream,
    private readonly table: QuoteTable,
    private readonly seen: (at: number) => void,
    /** The symbols to follow when not all can be: those in view, the chosen one. */
    private readonly inView: () => Iterable<string>,
    /** How many subscriptions the other widgets need. */
    private readonly others: () => number = () => KEPT_FREE,
  ) {
    this.listener = {
      snapshot: (channel, data, at) => this.apply(channel, data as Quote, at, true),
      update: (channel, changed, _, at) => this.apply(channel, changed as Quote, at, false),
      status: (channel, state, reason) => this.table.mark(channel.slice(PREFIX.length), state, reason),
      refused: (_, code) => code === "limit" && this.narrow(),
    };
  }

  start(): void {
    this.all = this.stream.subscribe(["quote:*"], { hz: HZ, fields: FIELDS }, this.listener);
  }

  /** Give up following everything: the stream has a limit that everything does not fit into. */
  narrow(): void {
    if (!this.everything) return;
    this.everything = false;
    this.all?.close();
    for (const symbol of this.table.symbols) this.table.mark(symbol, "waiting", NOT_FOLLOWED);
  }

  /** A board's rows: what is known of symbols that are not followed, and that they exist. */
  learn(rows: Readonly<Record<string, BoardRow>>, now: number): void {
    let unknown = false;
    for (const [symbol, row] of Object.entries(rows)) {
      if (this.table.row(symbol) < 0) unknown = true;
      if (this.everything || this.followed.has(symbol)) continue;
      const { last, change, change_pct, volume } = row;
      this.table.apply(symbol, { last: last ?? null, change: change ?? null, change_pct: change_pct ?? null, volume: volume ?? null }, now);
      this.table.mark(symbol, "waiting", NOT_FOLLOWED);
    }
    if (!unknown) this.unknownSince = 0;
    else if (this.unknownSince === 0) this.unknownSince = now;
    else if (now - this.unknownSince > UNKNOWN_MS_MAX) this.narrow();
  }

  /** Follow what is looked at when it has come to rest; called once a frame. */
  paint(now: number): void {
    if (this.everything || now - this.lookedAt < LOOK_MS) return;
    this.lookedAt = now;
    const room = Math.max(1, this.stream.subscriptionsMax - Math.max(KEPT_FREE, this.others()));
    const symbols = [...this.inView()].slice(0, room).sort();
    const view = symbols.join(" ");
    if (view !== this.view) this.movedAt = now;
    this.view = view;
    if (view === this.followedView) return;
    if (now - this.movedAt < REST_MS - LOOK_MS && now - this.followedAt < MOVING_MS_MAX) return;
    this.followedAt = now;
    this.followedView = view;
    this.follow(new Set(symbols), room);
  }

  private follow(wanted: ReadonlySet<string>, room: number): void {
    const fresh = [...wanted].filter((symbol) => !this.followed.has(symbol));
    this.leave(wanted, this.followed.size + fresh.length - room);
    for (const symbol of fresh) {
      this.followed.set(symbol, this.stream.subscribe([`quote:${symbol}`], { hz: HZ, fields: FIELDS }, this.listener));
    }
  }

  /** Stop following `excess` symbols that are not wanted, those first that came first into view. */
  private leave(wanted: ReadonlySet<string>, excess: number): void {
    for (const [symbol, subscription] of this.followed) {
      if (excess <= 0) return;
      if (wanted.has(symbol)) continue;
      subscription.close();
      this.table.mark(symbol, "waiting", NOT_FOLLOWED);
      this.followed.delete(symbol);
      excess--;
    }
  }

  private apply(channel: string, quote: Quote, at: number, whole: boolean): void {
    this.seen(at);
    this.table.apply(channel.slice(PREFIX.length), quote, performance.now(), whole);
  }
}
