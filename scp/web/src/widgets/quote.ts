// The quote of one symbol: last price, bid and ask, the session's numbers, its trading state.

import { attributes, el } from "../dom.ts";
import type { Subscription } from "../data/stream.ts";
import { Ticket, type HaltDocument } from "../views/ticket.ts";
import type { Kind, Place, Widget } from "./widget.ts";

/** The card and its trading state, alone or on top of a chart. */
export class Card {
  readonly ticket: Ticket;
  private halts: Subscription | null = null;

  constructor(private readonly place: Place) {
    this.ticket = new Ticket(place.market.table, place.ids);
  }

  show(symbol: string): void {
    this.halts?.close();
    this.ticket.show(symbol);
  }

  follow(symbol: string): void {
    this.halts?.close();
    this.halts = this.place.market.stream.subscribe([`halts:${symbol}`], { hz: 1 }, {
      snapshot: (_, data) => this.ticket.halts(data as HaltDocument),
      update: (_, __, whole) => this.ticket.halts(whole as HaltDocument),
    });
  }

  unquoted(unquoted: boolean): void {
    this.ticket.note(unquoted ? "nobody quotes this symbol" : "");
  }

  close(): void {
    this.halts?.close();
  }
}

class QuoteCard extends Card implements Widget {
  readonly element: HTMLElement;
  readonly head: HTMLElement;

  constructor(place: Place) {
    super(place);
    this.head = this.ticket.element.querySelector<HTMLElement>(".who")!;
    this.element = attributes(el("section", "panel card", this.ticket.element), { "aria-labelledby": this.ticket.heading.id });
  }

  paint(now: number): void {
    this.ticket.paint(now);
  }
}

export const quote: Kind = {
  name: "quote",
  title: "Quote card",
  about: "Last, bid, ask and the session's numbers of one symbol",
  tab: "chart",
  turn: 1,
  size: [16, 4],
  least: [10, 4],
  links: true,
  fields: [],
  make: (place) => new QuoteCard(place),
};
