// Asks the stream which symbols have a book: for the finder, and for the ladder's place on the desk.

import type { Stream } from "./stream.ts";

const PATTERN = "book:*";
const ASK_MS = 30_000;
const RETRY_MS = 2_000;
const MANY = 50; // with more than so many books the list is not asked for again: it would cost more than it tells

export class Books {
  private readonly known = new Set<string>();
  private askAt = 0;
  private asking = false;

  private readonly listeners = new Set<(symbols: readonly string[]) => void>();

  constructor(private readonly stream: Stream) {}

  /** Call `listener` with all symbols, sorted: now if there are any, and when there is a new one. Returns the function that ends it. */
  onChange(listener: (symbols: readonly string[]) => void): () => void {
    this.listeners.add(listener);
    if (this.known.size > 0) listener(this.symbols);
    return () => this.listeners.delete(listener);
  }

  has(symbol: string): boolean {
    return this.known.has(symbol);
  }

  /** All symbols with a book, sorted. */
  get symbols(): string[] {
    return [...this.known].sort();
  }

  /** Ask again when it is time; called once a frame. */
  paint(now: number): void {
    if (this.asking || now < this.askAt || this.known.size > MANY) return;
    this.asking = true;
    const next = (pauseMs: number) => {
      this.asking = false;
      this.askAt = now + pauseMs;
    };
    this.stream.get([PATTERN]).then(
      (snaps) => {
        next(ASK_MS);
        this.learn(snaps.filter((snap) => !snap.error).map((snap) => snap.ch.slice("book:".length)));
      },
      () => next(RETRY_MS), // not connected yet, or not any more
    );
  }

  /** These symbols have a book. */
  learn(symbols: readonly string[]): void {
    const before = this.known.size;
    for (const symbol of symbols) this.known.add(symbol);
    if (this.known.size > before) for (const listener of this.listeners) listener(this.symbols);
  }
}
