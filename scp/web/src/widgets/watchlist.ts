// A list of quotes: of the whole market, or of symbols of one's own.

import { attributes, el, Text } from "../dom.ts";
import { count } from "../format.ts";
import type { Sorting } from "../data/order.ts";
import { Chips } from "../views/chips.ts";
import { COLUMNS, Grid } from "../views/grid.ts";
import { oneOf, text, words, flag, type Kind, type Place, type Widget } from "./widget.ts";

const SORTABLE = COLUMNS.map(({ key }) => key);

export class Watchlist implements Widget {
  readonly element: HTMLElement;
  readonly head: HTMLElement;
  readonly grid: Grid;
  private readonly note: Text;
  private readonly chips: Chips | null = null;
  private readonly own: ReadonlySet<string> | null;
  private readonly end: () => void = () => {};

  constructor(private readonly place: Place) {
    const { market, link, settings, ids } = place;
    const symbols = words(settings, "symbols");
    this.own = symbols.length > 0 ? new Set(symbols) : null;
    const heading = ids.name("h-quotes", el("h2", "", text(settings, "title") || "Quotes"));
    const note = ids.name("quotes-note", el("span", "note"));
    this.note = new Text(note);
    const chips = attributes(ids.name("chips", el("nav", "chips")), { "aria-label": "Symbols with depth", hidden: "" });
    this.head = el("div", "head", heading, chips, note);
    const box = ids.name("grid", el("div", "grid"));
    this.element = attributes(el("section", "panel quotes", this.head, box), { "aria-labelledby": heading.id });
    const wanted = new Set(words(settings, "columns"));
    const columns = wanted.size ? COLUMNS.filter(({ key }) => key === "symbol" || wanted.has(key)) : COLUMNS;
    const sorting: Sorting = { by: oneOf(settings, "sort", ["volume", ...SORTABLE]), descending: flag(settings, "descending", true) };
    const keep = ({ by, descending }: Sorting) => place.keep({ sort: by, descending });
    this.grid = new Grid(box, market.table, (symbol) => link.choose(symbol), (symbol) => market.open(link, symbol), columns, sorting, this.own, keep, (symbol) => market.openNews(link, symbol));
    box.setAttribute("aria-label", heading.textContent ?? "Quotes");
    if (!this.own) {
      this.chips = new Chips(chips, (symbol) => market.open(link, symbol));
      this.end = market.books.onChange((known) => this.chips!.set(known));
    }
  }

  /** Why nothing flows; "" while it does. */
  waitFor(reason: string): void {
    const first = this.own ? "Nobody quotes a symbol of this list yet" : "Waiting for the first quote";
    this.grid.waitFor(reason ? `No quotes yet: ${reason}` : first);
  }

  show(symbol: string): void {
    this.grid.select(symbol);
    this.chips?.select(symbol);
  }

  each(now: number): void {
    this.grid.paint(now);
  }

  paint(now: number): void {
    this.grid.paintChanges(now);
    const { table, everything } = this.place.market;
    const all = this.own?.size ?? table.size;
    const missing = this.own ? all - this.grid.size : 0;
    const unquoted = missing ? `, ${missing} not quoted` : "";
    this.note.set(all ? `${count(all)} ${all === 1 ? "symbol" : "symbols"}${unquoted}${everything ? "" : ", those in view live"}` : "");
  }

  close(): void {
    this.end();
    this.grid.close();
  }
}

export const watchlist: Kind = {
  name: "watchlist",
  title: "Watchlist",
  about: "Quotes of the whole market, or of a list of your own",
  tab: "quotes",
  turn: 0,
  size: [18, 10],
  least: [10, 4],
  links: true,
  fields: [
    { name: "title", label: "Name", type: "text", default: "Quotes" },
    { name: "symbols", label: "Symbols", type: "symbols", about: "Separated by spaces or commas; none shows the whole market" },
    { name: "columns", label: "Columns", type: "columns", default: SORTABLE.slice(1), options: COLUMNS.slice(1).map(({ key, about }) => [key, about] as const) },
  ],
  make: (place) => new Watchlist(place),
};
