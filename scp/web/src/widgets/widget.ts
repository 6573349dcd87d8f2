// Says what a widget is: a kind stands in one file, is listed in registry.ts, and is placed as often as one likes.
// Invariant: settings come from the server or from a file, so a widget reads each of them with a default and believes none.

import type { Books } from "../data/books.ts";
import type { QuoteTable } from "../data/quotes.ts";
import type { SharedChannels } from "../data/shared.ts";
import type { Stream } from "../data/stream.ts";
import type { Ids } from "../dom.ts";
import type { Link, Side } from "../layout/links.ts";

export type Settings = Readonly<Record<string, unknown>>;

/** The part of a phone's page that a widget belongs to. */
export type Tab = "quotes" | "chart" | "depth" | "boards" | "alerts" | "more";

/** What all widgets of the page share. */
export interface Market {
  readonly stream: Stream;
  readonly table: QuoteTable;
  readonly books: Books;
  readonly shared: SharedChannels;
  /** True while one subscription brings every quote. */
  readonly everything: boolean;
  /** Time of the newest market data, ms since the epoch; NaN while there is none. */
  newestAt(): number;
  /** Somebody pointed at a symbol to see it: its link follows, and a phone shows the chart. */
  open(link: Link, symbol: string): void;
  /** Somebody wants the news of a symbol: a list of them follows the link. */
  openNews(link: Link, symbol: string): void;
  /** The stream has no room for a channel of the chosen symbol: something else gives way. */
  makeRoom(): void;
}

/** What one placed widget is given. */
export interface Place {
  readonly market: Market;
  readonly link: Link;
  readonly settings: Settings;
  readonly ids: Ids;
  /** Keep what was switched in the widget itself with its settings. */
  keep(changed: Settings): void;
}

export interface Widget {
  /** A `section.panel`. */
  readonly element: HTMLElement;
  /** Where its tools stand, and where it is taken hold of. */
  readonly head: HTMLElement;
  /** Its link has another symbol: show that at once. */
  show?(symbol: string): void;
  /** The hand rests: follow the channels of this symbol. */
  follow?(symbol: string): void;
  /** Somebody clicked a price of the link's symbol, of the orders on this side. */
  picked?(price: number, side: Side): void;
  /** Nobody quotes the link's symbol, or somebody does again. */
  unquoted?(unquoted: boolean): void;
  /** Paint what the market did; called in turn with the other widgets. */
  paint(now: number): void;
  /** Paint what the hand did; called each frame. */
  each?(now: number): void;
  /** What a keyboard shortcut asks of it: "1s", "1m", "measure". */
  key?(what: string): void;
  close(): void;
}

/** A setting that people change in a form. `default` is shown where the layout says nothing. */
export type Field =
  | { name: string; label: string; type: "text" | "symbols"; default?: string; about?: string }
  | { name: string; label: string; type: "number"; default?: number; about?: string }
  | { name: string; label: string; type: "check"; default?: boolean; about?: string }
  | { name: string; label: string; type: "choice"; default?: string; options: readonly (readonly [value: string, label: string])[]; about?: string }
  | { name: string; label: string; type: "columns"; default: readonly string[]; options: readonly (readonly [value: string, label: string])[]; about?: string };

export interface Kind {
  readonly name: string;
  readonly title: string;
  readonly about: string;
  readonly tab: Tab;
  /** In which of three frames it is painted: 0 grids, 1 the chosen symbol, 2 lists. */
  readonly turn: 0 | 1 | 2;
  /** Columns and rows of the grid that a new one takes, and the least of them. */
  readonly size: readonly [w: number, h: number];
  readonly least: readonly [w: number, h: number];
  /** True when it follows or sets the symbol of a link. */
  readonly links: boolean;
  readonly fields: readonly Field[];
  /** The scope without which nobody is offered it. */
  readonly needs?: string;
  make(place: Place): Widget;
}

export function text(settings: Settings, name: string, otherwise = ""): string {
  const value = settings[name];
  return typeof value === "string" ? value.slice(0, 64) : otherwise;
}

/** A finite number; `otherwise` where there is none. */
export function number(settings: Settings, name: string, otherwise: number): number {
  const value = settings[name];
  return typeof value === "number" && Number.isFinite(value) ? value : otherwise;
}

export function flag(settings: Settings, name: string, otherwise: boolean): boolean {
  const value = settings[name];
  return typeof value === "boolean" ? value : otherwise;
}

/** The words of a list, each once, at most `most`; what is no word is left out. */
export function words(settings: Settings, name: string, most = 500): string[] {
  const value = settings[name];
  if (!Array.isArray(value)) return [];
  return [...new Set(value.filter((word): word is string => typeof word === "string" && word !== "" && word.length <= 64))].slice(0, most);
}

/** One of `known`; the first of them where the setting is none of these. */
export function oneOf<T extends string>(settings: Settings, name: string, known: readonly [T, ...T[]]): T {
  const value = settings[name] as T;
  return known.includes(value) ? value : known[0];
}
