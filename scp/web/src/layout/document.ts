// Reads and writes layouts: which widgets stand where. Pure.
// Invariant: whatever a server or a file says, what comes out has known shapes, few widgets, and no two boxes that overlap.

import { COLOURS, type Colour } from "./links.ts";
import { risen, ROWS_MAX, COLUMNS, type Box } from "./places.ts";
import type { Settings } from "../widgets/widget.ts";

export const FORMAT = 1; // of the content; the control plane keeps no other
export const WIDGETS_MAX = 60;
export const FILE_BYTES_MAX = 60_000;
const NAME_MAX = 64;
const ABOUT_MAX = 400;
const WORD = /^[a-z][a-z0-9_-]{0,31}$/;

export interface Placed extends Box {
  readonly kind: string;
  /** "" = it follows nobody. */
  readonly link: Colour | "";
  readonly settings: Settings;
}

export interface Content {
  readonly widgets: readonly Placed[];
  /** The symbol of each colour but the first, which the address names. */
  readonly symbols: Readonly<Record<string, string>>;
}

export interface Layout extends Content {
  readonly name: string;
  readonly about: string;
  readonly default: boolean;
  readonly locked: boolean;
}

const place = (id: string, kind: string, x: number, y: number, w: number, h: number, settings: Settings = {}): Placed => ({
  id, kind, x, y, w, h, link: "blue", settings,
}); // prettier-ignore

/** The desk of somebody who has made none. */
export const BUILT_IN: Layout = {
  name: "Desk",
  about: "",
  default: true,
  locked: false,
  symbols: {},
  widgets: [
    place("quotes", "watchlist", 0, 0, 21, 16),
    place("chart", "candles", 21, 0, 18, 11),
    place("depth", "depth", 39, 0, 9, 16),
    place("prints", "prints", 21, 11, 18, 5),
    place("volume", "board", 0, 16, 8, 8, { board: "volume" }),
    place("gainers", "board", 8, 16, 8, 8, { board: "gainers" }),
    place("losers", "board", 16, 16, 8, 8, { board: "losers" }),
    place("gappers", "board", 24, 16, 8, 8, { board: "gappers", columns: ["last", "gap_pct", "news_ts"] }),
    place("alerts", "alerts", 32, 16, 9, 8),
    place("news", "news", 41, 16, 7, 8),
  ],
};

/** What the control plane takes as a layout. */
export function bodyOf({ name, about, default: first, locked, widgets, symbols }: Layout): object {
  const plain = widgets.map(({ id, kind, x, y, w, h, link, settings }) => ({ id, kind, x, y, w, h, link, settings }));
  return { name, about, default: first, locked, content: { format: FORMAT, widgets: plain, symbols } };
}

/** A layout as a file. */
export function fileOf(layout: Layout): string {
  const { default: _, ...body } = bodyOf(layout) as { default: boolean };
  return `${JSON.stringify({ tapeline: "layout", ...body }, null, 1)}\n`;
}

/** The layout in a file. Throws an Error whose message says what is wrong with it. */
export function layoutOf(file: string): Layout {
  if (file.length > FILE_BYTES_MAX) throw new Error(`This file is too large to be a layout: ${FILE_BYTES_MAX / 1000} kB at most.`);
  let raw: unknown;
  try {
    raw = JSON.parse(file);
  } catch {
    throw new Error("This file is no layout: it is not JSON.");
  }
  if (!isObject(raw) || raw["tapeline"] !== "layout") throw new Error("This file is no layout of Tapeline. Export one here to see what they look like.");
  const name = line(raw["name"], NAME_MAX);
  return { name: name || "Imported", about: line(raw["about"], ABOUT_MAX), default: false, locked: raw["locked"] === true, ...contentOf(raw["content"]) };
}

/** The content that the control plane or a file gave. Throws an Error in words. */
export function contentOf(raw: unknown): Content {
  if (!isObject(raw)) throw new Error("This layout has no content.");
  if (raw["format"] !== FORMAT) {
    throw new Error(`This layout has format ${String(raw["format"]).slice(0, 20)}; this page reads format ${FORMAT}. It was made by another version of Tapeline: export it there again, or update this one.`);
  }
  const list: unknown = raw["widgets"];
  if (!Array.isArray(list)) throw new Error("This layout has no list of widgets.");
  if (list.length > WIDGETS_MAX) throw new Error(`This layout has ${list.length} widgets; ${WIDGETS_MAX} are the most.`);
  const widgets = list.map((one, at) => placed(one, at));
  if (new Set(widgets.map(({ id }) => id)).size < widgets.length) throw new Error("Two widgets of this layout have the same id.");
  return { widgets: risen(widgets), symbols: symbolsOf(raw["symbols"]) };
}

/** An id that none of these has. */
export function newId(kind: string, widgets: readonly Placed[]): string {
  const taken = new Set(widgets.map(({ id }) => id));
  for (let n = 2; ; n++) if (!taken.has(`${kind}-${n}`)) return `${kind}-${n}`;
}

function placed(raw: unknown, at: number): Placed {
  const wrong = (what: string) => new Error(`Widget ${at + 1} of this layout ${what}.`);
  if (!isObject(raw)) throw wrong("is no widget");
  const { id, kind, x, y, w, h, link, settings } = raw;
  if (typeof id !== "string" || !WORD.test(id) || typeof kind !== "string" || !WORD.test(kind)) throw wrong("has no id or no kind");
  const whole = [x, y, w, h].every((n) => typeof n === "number" && Number.isInteger(n));
  const box = { x, y, w, h } as { x: number; y: number; w: number; h: number };
  if (!whole || box.x < 0 || box.y < 0 || box.w < 1 || box.h < 1 || box.x + box.w > COLUMNS || box.y > ROWS_MAX || box.h > ROWS_MAX) throw wrong("stands outside the grid");
  return { id, kind, ...box, link: COLOURS.find((colour) => colour === link) ?? "", settings: isObject(settings) ? settings : {} };
}

function symbolsOf(raw: unknown): Record<string, string> {
  if (!isObject(raw)) return {};
  const known = COLOURS.filter((colour) => typeof raw[colour] === "string" && (raw[colour] as string).length <= 64);
  return Object.fromEntries(known.map((colour) => [colour, raw[colour] as string]));
}

function line(value: unknown, most: number): string {
  return typeof value === "string" ? value.replace(/[^\P{C}\n]/gu, "").trim().slice(0, most) : "";
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}
