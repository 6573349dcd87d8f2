// Which symbols are halted, and how wide the price bands of the others are. Asked for every ten seconds: bands of a whole market
// would take more subscriptions than one page has; the chosen symbol's own are live on its quote card.

import { attributes, el, showState, Text } from "../dom.ts";
import { clock, price } from "../format.ts";
import { Listing } from "../views/listing.ts";
import type { HaltDocument } from "../views/ticket.ts";
import { flag, type Kind, type Place, type Widget } from "./widget.ts";

const PATTERN = "halts:*";
const ASK_MS = 10_000;
const OLD_MS = 3 * ASK_MS;
const ROWS_MAX = 200;

class Halts implements Widget {
  readonly element: HTMLElement;
  readonly head: HTMLElement;
  private readonly note = new Text(el("span", "note"));
  private readonly list = new Listing("Trading halts", ["Symbol", "State", "Low band", "High band", "Since"]);
  private readonly bands: boolean;
  private askAt = 0;
  private heardAt = NaN;
  private asking = false;
  private closed = false;

  constructor(private readonly place: Place) {
    this.bands = flag(place.settings, "bands", false);
    const heading = place.ids.name("h-halts", el("h2", "", "Halts"));
    this.head = el("div", "head", heading, this.note.element);
    this.element = attributes(el("section", "panel halts", this.head, this.list.element), { "aria-labelledby": heading.id });
    this.list.waitFor("Asking which symbols are halted");
    this.list.set([]);
  }

  paint(now: number): void {
    const old = Number.isNaN(this.heardAt) ? "" : now - this.heardAt > OLD_MS ? "stale" : "live";
    if (old) showState(this.element, old, old === "stale" ? "not heard for more than half a minute" : "");
    if (this.asking || now < this.askAt) return;
    this.asking = true;
    this.place.market.stream.get([PATTERN]).then(
      (snaps) => {
        this.heard(now);
        if (!this.closed) this.take(snaps.flatMap(({ ch, data }) => (data ? [[ch.slice("halts:".length), data as HaltDocument & { ts?: number }] as const] : [])));
      },
      () => this.heard(NaN),
    );
  }

  close(): void {
    this.closed = true;
  }

  private heard(now: number): void {
    this.asking = false;
    if (!Number.isNaN(now)) this.heardAt = performance.now();
    this.askAt = performance.now() + (Number.isNaN(now) ? 2000 : ASK_MS);
  }

  private take(found: readonly (readonly [string, HaltDocument & { ts?: number }])[]): void {
    const halted = found.filter(([, { state }]) => state != null && state !== "trading");
    const shown = (this.bands ? [...halted, ...found.filter((one) => !halted.includes(one))] : halted).slice(0, ROWS_MAX);
    this.note.set(`${halted.length} halted, at ${clock(Date.now())}`);
    this.list.waitFor("No symbol is halted");
    this.list.set(
      shown.map(([symbol, { state, low_band: low, high_band: high, ts }]) => ({
        texts: [symbol, state ?? "", band(low), band(high), clock(ts ?? NaN)],
        tone: state === "trading" ? "" : "warn",
      })),
    );
  }
}

function band(value: number | null | undefined): string {
  return price(value ?? NaN, 2);
}

export const halts: Kind = {
  name: "halts",
  title: "Halts",
  about: "Which symbols do not trade just now",
  tab: "more",
  turn: 2,
  size: [12, 7],
  least: [9, 4],
  links: false,
  fields: [{ name: "bands", label: "Also the price bands of symbols that trade", type: "check", default: false }],
  make: (place) => new Halts(place),
};
