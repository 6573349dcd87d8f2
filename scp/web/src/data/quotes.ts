// Keeps the quotes in columns, one Float64Array a field and one row a symbol, with each row's state, and lists what changed.
// Invariant: a row never moves or disappears; what is not known is NaN.

import { decimalsOf, priceDecimals } from "../format.ts";

export const FIELDS = [
  "last", "bid", "ask", "bid_size", "ask_size", "open", "high", "low", "volume", "vwap", "trades",
  "prev_close", "change", "change_pct", "ts", "news_ts",
] as const; // prettier-ignore
export type Field = (typeof FIELDS)[number];
export type Quote = Partial<Record<Field, number | null>>;

/** `waiting`: the row is not followed just now, so what it shows may be old. */
export const STATES = ["live", "stale", "closed", "waiting"] as const;

export const ROWS_MAX = 20_000; // more than any vendor lists; symbols past it are counted and not shown
/** A bit for each field, as `drain` tells what changed. */
export const BITS = Object.fromEntries(FIELDS.map((field, at) => [field, 1 << at])) as Record<Field, number>;
export const EVERYTHING = -1;
const FLASHED: readonly Field[] = ["last", "bid", "ask"];

export class QuoteTable {
  readonly symbols: string[] = [];
  readonly columns: Record<Field, Float64Array>;
  /** Decimals that a row's prices are shown with. */
  decimals = new Uint8Array(64);
  /** Decimals that the sizes of its best bid and offer need. */
  sizeDecimals = new Uint8Array(64);
  /** +1 or −1: where the field last moved to; one array for each flashed field. */
  readonly direction: Record<string, Int8Array> = {};
  /** When it moved, in the caller's milliseconds. */
  readonly movedAt: Record<string, Float64Array> = {};
  /** What the stream says of the row's channel, as an index of STATES. */
  states = new Uint8Array(64);
  /** Counts the row's changes. */
  revisions = new Uint32Array(64);
  updates = 0;
  refusedSymbols = 0;
  /** Raised when a symbol was added, so that lists of symbols are made again. */
  version = 0;

  private readonly rows = new Map<string, number>();
  private readonly reasons = new Map<number, string>(); // of the rows that are not live
  private readonly changed: number[] = [];
  private dirty = new Int32Array(64); // the bits of what changed since the last drain

  constructor() {
    this.columns = Object.fromEntries(FIELDS.map((field) => [field, blank(64)])) as Record<Field, Float64Array>;
    for (const field of FLASHED) {
      this.direction[field] = new Int8Array(64);
      this.movedAt[field] = new Float64Array(64);
    }
  }

  get size(): number {
    return this.symbols.length;
  }

  /** The row of `symbol`, or −1. */
  row(symbol: string): number {
    return this.rows.get(symbol) ?? -1;
  }

  /** Write what `quote` has. `whole` = a snapshot: what it lacks is not known any more, and nothing flashes. */
  apply(symbol: string, quote: Quote, now: number, whole = false): number {
    const row = this.rows.get(symbol) ?? this.add(symbol);
    if (row < 0) return row;
    this.updates++;
    for (const field of FIELDS) {
      const given = quote[field];
      if (given !== undefined) this.write(row, field, given ?? NaN, whole ? 0 : now);
      else if (whole) this.write(row, field, NaN, 0);
    }
    this.learnTick(row);
    return row;
  }

  /** The stream's word on the symbol's own channel. A state that is not known counts as stale. */
  mark(symbol: string, state: string, reason: string): void {
    const row = this.row(symbol);
    const known = (STATES as readonly string[]).indexOf(state);
    const code = known < 0 ? 1 : known;
    if (row < 0 || (code === this.states[row] && (code === 0 || reason === this.reason(row)))) return;
    this.states[row] = code;
    if (code === 0) this.reasons.delete(row);
    else this.reasons.set(row, reason);
    this.touch(row, EVERYTHING);
  }

  /** Why the row is not live. */
  reason(row: number): string {
    return this.reasons.get(row) ?? "";
  }

  /** Call `visit` for each row changed since the last time, with the bits of its fields that did. */
  drain(visit: (row: number, bits: number) => void): void {
    for (const row of this.changed) {
      const bits = this.dirty[row]!;
      this.dirty[row] = 0;
      visit(row, bits);
    }
    this.changed.length = 0;
  }

  private touch(row: number, bits: number): void {
    this.revisions[row]!++;
    if (this.dirty[row] === 0) this.changed.push(row);
    this.dirty[row]! |= bits;
  }

  private write(row: number, field: Field, value: number, now: number): void {
    const column = this.columns[field];
    const before = column[row]!;
    if (Object.is(value, before)) return;
    column[row] = value;
    this.touch(row, BITS[field]);
    const moves = this.direction[field];
    if (moves !== undefined && now > 0 && before === before && value === value) {
      moves[row] = value > before ? 1 : -1;
      this.movedAt[field]![row] = now;
    }
  }

  /** Where nobody quotes, prints say the tick; where somebody does, sub-penny prints must not widen the column. */
  private learnTick(row: number): void {
    const { bid, ask, last } = this.columns;
    const quoted = Math.max(decimalsOf(bid[row]!), decimalsOf(ask[row]!));
    const known = Number.isNaN(bid[row]!) && Number.isNaN(ask[row]!) ? decimalsOf(last[row]!) : quoted;
    const needs = priceDecimals(known);
    if (needs > this.decimals[row]!) {
      this.decimals[row] = needs;
      this.touch(row, EVERYTHING);
    }
    const { bid_size, ask_size } = this.columns;
    const sizes = Math.max(decimalsOf(bid_size[row]!), decimalsOf(ask_size[row]!));
    if (sizes > this.sizeDecimals[row]!) this.sizeDecimals[row] = sizes;
  }

  private add(symbol: string): number {
    const row = this.symbols.length;
    if (row >= ROWS_MAX) {
      this.refusedSymbols++;
      return -1;
    }
    if (row >= this.dirty.length) this.grow(this.dirty.length * 2);
    for (const field of FIELDS) this.columns[field][row] = NaN;
    this.decimals[row] = 2;
    this.symbols.push(symbol);
    this.rows.set(symbol, row);
    this.version++;
    this.touch(row, EVERYTHING);
    return row;
  }

  private grow(capacity: number): void {
    for (const field of FIELDS) this.columns[field] = larger(this.columns[field], blank(capacity));
    for (const field of FLASHED) {
      this.direction[field] = larger(this.direction[field]!, new Int8Array(capacity));
      this.movedAt[field] = larger(this.movedAt[field]!, new Float64Array(capacity));
    }
    this.dirty = larger(this.dirty, new Int32Array(capacity));
    this.revisions = larger(this.revisions, new Uint32Array(capacity));
    this.states = larger(this.states, new Uint8Array(capacity));
    this.decimals = larger(this.decimals, new Uint8Array(capacity));
    this.sizeDecimals = larger(this.sizeDecimals, new Uint8Array(capacity));
  }
}

function blank(capacity: number): Float64Array {
  return new Float64Array(capacity).fill(NaN);
}

function larger<T extends { set(from: T): void }>(from: T, to: T): T {
  to.set(from);
  return to;
}
