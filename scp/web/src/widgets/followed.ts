// A table of what one channel of the chosen symbol says: the widget's frame, and the following of it.

import type { Subscription } from "../data/stream.ts";
import { attributes, el, showState, Text } from "../dom.ts";
import { Listing, type Row } from "../views/listing.ts";
import type { Place, Widget } from "./widget.ts";

export interface Following {
  readonly name: string;
  readonly title: string;
  readonly heads: readonly string[];
  readonly label: string;
  readonly kind: string; // of the channel
  readonly options: { hz: number; fields?: readonly string[] };
  readonly unchosen: string;
  readonly waiting: (symbol: string, unquoted: boolean) => string;
}

/** `Data` is what the channel's document says. */
export abstract class Followed<Data> implements Widget {
  readonly element: HTMLElement;
  readonly head: HTMLElement;
  protected symbol = "";
  private readonly note = new Text(el("span", "note"));
  private readonly list: Listing;
  private subscription: Subscription | null = null;
  private data: Data | null = null;
  private dirty = true;

  constructor(
    protected readonly place: Place,
    private readonly following: Following,
  ) {
    const { name, title, label, heads, unchosen } = following;
    const heading = place.ids.name(`h-${name}`, el("h2", "", title));
    this.list = new Listing(label, heads);
    this.head = el("div", "head", heading, this.note.element);
    this.element = attributes(el("section", `panel ${name}`, this.head, this.list.element), { "aria-labelledby": heading.id });
    this.list.waitFor(unchosen);
  }

  show(symbol: string): void {
    this.symbol = symbol;
    this.close();
    this.subscription = null;
    this.take(null);
    this.note.set(symbol);
    this.unquoted(false);
    showState(this.element, "live", "");
  }

  follow(symbol: string): void {
    this.close();
    this.subscription = this.place.market.stream.subscribe([`${this.following.kind}:${symbol}`], this.following.options, {
      snapshot: (_, data) => this.take(data as Data),
      update: (_, __, whole) => this.take(whole as Data),
      status: (_, state, reason) => showState(this.element, state, reason),
    });
  }

  unquoted(unquoted: boolean): void {
    this.list.waitFor(this.following.waiting(this.symbol, unquoted));
  }

  paint(): void {
    if (!this.dirty) return;
    this.dirty = false;
    this.list.set(this.data ? this.rows(this.data) : []);
  }

  close(): void {
    this.subscription?.close();
  }

  protected abstract rows(data: Data): readonly Row[];

  private take(data: Data | null): void {
    this.data = data;
    this.dirty = true;
  }
}
