// Keeps the symbol that the widgets of one colour share. A choice is shown at once and followed when the hand rests.

import type { QuoteTable } from "../data/quotes.ts";
import type { Stream } from "../data/stream.ts";
import { Rest } from "../rest.ts";

export const COLOURS = ["blue", "green", "orange", "violet"] as const;
export type Colour = (typeof COLOURS)[number];
export const FIRST: Colour = "blue"; // the link that the address names

const UNQUOTED_MS = 1500; // a symbol without a quote for so long is asked for by name

export type Side = "Buy" | "Sell";

export interface Member {
  show?(symbol: string): void;
  follow?(symbol: string): void;
  unquoted?(unquoted: boolean): void;
  picked?(price: number, side: Side): void;
}

export class Link {
  symbol = "";
  private readonly members = new Set<Member>();
  private readonly hand = new Rest(() => this.follow());
  private followed = ""; // what the members follow
  private askAt = NaN; // when to ask whether anybody quotes the symbol at all
  private isUnquoted = false;

  constructor(
    private readonly stream: Stream,
    private readonly table: QuoteTable,
    /** Called after the symbol has changed. */
    private readonly chosen: (symbol: string) => void,
  ) {}

  /** How many widgets share it. */
  get size(): number {
    return this.members.size;
  }

  join(member: Member): void {
    this.members.add(member);
    if (!this.symbol) return;
    member.show?.(this.symbol);
    if (this.followed === this.symbol) member.follow?.(this.symbol);
    if (this.isUnquoted) member.unquoted?.(true);
  }

  leave(member: Member): void {
    this.members.delete(member);
  }

  /** Show `symbol` instead of the one before, and follow it when the hand rests. */
  choose(symbol: string): void {
    if (symbol === this.symbol) return;
    this.symbol = symbol;
    this.followed = "";
    this.isUnquoted = false;
    this.askAt = NaN;
    for (const member of this.members) member.show?.(symbol);
    this.chosen(symbol);
    this.hand.touch();
  }

  /** Somebody clicked a price of the symbol: of the bids to buy, of the asks to sell. */
  pick(price: number, side: Side): void {
    for (const member of this.members) member.picked?.(price, side);
  }

  /** Ask after a symbol that nobody quotes; called once a frame. */
  paint(now: number): void {
    if (!this.symbol) return;
    const quoted = this.table.row(this.symbol) >= 0;
    if (quoted && this.isUnquoted) this.say(false);
    if (!quoted && now > this.askAt) this.ask(now);
  }

  private follow(): void {
    this.followed = this.symbol;
    for (const member of this.members) member.follow?.(this.symbol);
    this.askAt = performance.now() + UNQUOTED_MS;
  }

  /** A link may name a symbol that nobody has ever quoted: better said than waited for. */
  private ask(now: number): void {
    const { symbol } = this;
    this.askAt = now + UNQUOTED_MS;
    this.stream.get([`quote:${symbol}`]).then(
      ([snap]) => {
        if (symbol === this.symbol && this.table.row(symbol) < 0) this.say(Boolean(snap?.error));
      },
      () => {}, // not connected: the page says so, and asks again
    );
  }

  private say(unquoted: boolean): void {
    if (unquoted === this.isUnquoted) return;
    this.isUnquoted = unquoted;
    for (const member of this.members) member.unquoted?.(unquoted);
  }
}
