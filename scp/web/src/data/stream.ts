// Says what the page may ask of its one WebSocket: a typed face of the WDS browser client.

import type { Connection } from "./freshness.ts";

export interface Options {
  hz?: number | "raw";
  fields?: readonly string[];
}

/** What a subscriber is told. `whole` is the state as it is now; `at` the document's time in ms since the epoch. */
export interface Listener {
  /** A snapshot: the whole state; for event channels an array, oldest first. */
  snapshot(channel: string, data: unknown, at: number): void;
  /** Changed fields of a merge channel, and the whole of it. */
  update?(channel: string, changed: Record<string, unknown>, whole: Record<string, unknown>, at: number): void;
  /** A board as it is now. */
  rows?(channel: string, order: readonly string[], rows: Record<string, unknown>, at: number): void;
  event?(channel: string, data: unknown, at: number): void;
  /** `n` events will never come. */
  lost?(channel: string, n: number): void;
  /** How fresh the channel is: live, stale or closed. Told when it changed and after each snapshot that was not asked for. */
  status?(channel: string, state: string, reason: string): void;
  /** The stream does not bring this channel (or not all of this pattern); `code` is one of the protocol's. */
  refused?(channel: string, code: string, message: string): void;
}

export interface Subscription {
  /** Stop following. */
  close(): void;
  /** Ask for the snapshot again. */
  ask(): void;
}

/** What the stream answered about one channel. */
export interface Snap {
  ch: string;
  data?: unknown;
  error?: { code: string };
}

export interface Stream {
  readonly reconnects: number;
  /** How many channels the stream lets one page follow. */
  readonly subscriptionsMax: number;
  subscribe(channels: readonly string[], options: Options, listener: Listener): Subscription;
  /** Ask for snapshots without following; `kind:*` asks for all that exist. Rejects while there is no connection. */
  get(channels: readonly string[]): Promise<readonly Snap[]>;
  /** `waitMs`: how long the next attempt is away; NaN when there will be none, or it is being made. */
  onConnection(listener: (connection: Connection, reason: string, waitMs: number) => void): void;
  start(): void | Promise<void>;
  /** Try to connect now, whatever was decided before. */
  retry(): void;
}
