// The order book of one symbol as a ladder of prices. It takes room only where there is a book.

import type { BookDocument } from "../data/depth.ts";
import type { Subscription } from "../data/stream.ts";
import { Ladder } from "../views/ladder.ts";
import { flag, oneOf, type Kind, type Place, type Widget } from "./widget.ts";

const BOOK_HZ = 10;

class DepthLadder implements Widget {
  readonly element: HTMLElement;
  readonly head: HTMLElement;
  private readonly ladder: Ladder;
  private subscription: Subscription | null = null;

  constructor(private readonly place: Place) {
    const { market, ids, settings } = place;
    const measure = oneOf(settings, "measure", ["size", "sum"]);
    const turned = () => this.element.dispatchEvent(new CustomEvent("room", { bubbles: true }));
    const always = flag(settings, "always", false);
    this.ladder = new Ladder(market.table, () => market.newestAt(), ids, turned, (kept) => place.keep({ measure: kept }), (at, side) => place.link.pick(at, side), measure, always);
    this.element = this.ladder.element;
    this.head = this.ladder.head;
    this.element.hidden = !always;
  }

  show(symbol: string): void {
    this.subscription?.close();
    this.subscription = null;
    this.ladder.show(symbol, this.place.market.books.has(symbol));
  }

  follow(symbol: string): void {
    this.subscription?.close();
    const { market } = this.place;
    const take = (data: unknown) => {
      market.books.learn([symbol]);
      this.ladder.take(data as BookDocument);
    };
    this.subscription = market.stream.subscribe([`book:${symbol}`], { hz: BOOK_HZ }, {
      snapshot: (_, data) => take(data),
      update: (_, __, whole) => take(whole),
      status: (_, state, reason) => this.ladder.mark(state, reason),
    });
  }

  key(what: string): void {
    if (what === "measure") this.ladder.turn();
  }

  paint(): void {
    this.ladder.paint();
  }

  close(): void {
    this.subscription?.close();
    this.ladder.close();
  }
}

export const depth: Kind = {
  name: "depth",
  title: "Depth",
  about: "The order book of one symbol as a ladder",
  tab: "depth",
  turn: 1,
  size: [9, 14],
  least: [7, 7],
  links: true,
  fields: [
    { name: "measure", label: "Beside each price", type: "choice", default: "size", options: [["size", "its size"], ["sum", "everything down to it"]] },
    { name: "always", label: "Keep its room for symbols without a book", type: "check", default: false },
  ],
  make: (place) => new DepthLadder(place),
};
