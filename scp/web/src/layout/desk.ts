// Puts a layout's widgets on the page, links them, and keeps the layout as it is changed.

import type { Tabs } from "../head/tabs.ts";
import { attributes, button, el, Ids } from "../dom.ts";
import { join, roving } from "../roving.ts";
import { kindOf } from "../widgets/registry.ts";
import type { Kind, Market, Settings, Tab, Widget } from "../widgets/widget.ts";
import { BUILT_IN, newId, WIDGETS_MAX, type Layout, type Placed } from "./document.ts";
import { COLOURS, FIRST, Link, type Colour } from "./links.ts";
import { arranged, closedUp, free, risen, SCREEN_ROWS, shelved, type Box } from "./places.ts";

export interface Mounted {
  placed: Placed;
  readonly kind: Kind | undefined;
  readonly widget: Widget;
  readonly link: Link;
  readonly ids: Ids;
}

const NARROW = matchMedia("(max-width: 1180px)");
const PHONE = matchMedia("(max-width: 760px), (max-width: 960px) and (max-height: 480px)");

const LISTS_A_TURN = 2;

export class Desk {
  layout: Layout = BUILT_IN;
  readonly mounted = new Map<string, Mounted>();
  private readonly links = new Map<Colour, Link>();
  private listTurn = 0;
  private moving = false;

  constructor(
    readonly root: HTMLElement,
    private readonly market: Market,
    private readonly tabs: Tabs,
    private readonly told: {
      /** Something is to be saved; `slight`: not worth making a layout of. */
      changed(slight: boolean): void;
      chosen(colour: Colour, symbol: string): void;
      menu(mounted: Mounted, from: HTMLElement): void;
    },
  ) {
    for (const colour of COLOURS) this.links.set(colour, this.newLink((symbol) => this.linked(colour, symbol)));
    root.addEventListener("room", () => this.arrange());
    for (const size of [NARROW, PHONE]) size.addEventListener("change", () => this.arrange());
  }

  /** The link that the address names. */
  get first(): Link {
    return this.links.get(FIRST)!;
  }

  /** The link of the widget that somebody works in; else the first. */
  get active(): Link {
    const panel = document.activeElement?.closest<HTMLElement>("[data-widget]");
    return this.mounted.get(panel?.dataset["widget"] ?? "")?.link ?? this.first;
  }

  /** False where the screen has no room for the layout as it is: then it is shown, and cannot be moved about. */
  get movable(): boolean {
    return !this.layout.locked && !NARROW.matches && !PHONE.matches;
  }

  /** Show this layout instead of the one before. */
  open(layout: Layout): void {
    for (const one of [...this.mounted.values()]) this.unmount(one);
    this.layout = { ...layout, widgets: risen(layout.widgets) };
    for (const [colour, symbol] of Object.entries(layout.symbols)) {
      if (colour !== FIRST && symbol) this.links.get(colour as Colour)?.choose(symbol);
    }
    for (const placed of inOrder(this.layout.widgets)) this.mount(placed);
    this.root.toggleAttribute("data-locked", layout.locked);
    this.arrange();
    this.offerTabs();
  }

  /** Choose `symbol` for every link that has none yet. */
  chooseWhereNone(symbol: string): void {
    for (const { link, kind } of this.mounted.values()) if (kind?.links && !link.symbol) link.choose(symbol);
  }

  *symbols(): Iterable<string> {
    for (const link of this.links.values()) if (link.symbol && (link === this.first || link.size > 0)) yield link.symbol;
    for (const { placed, link } of this.mounted.values()) if (!placed.link && link.symbol) yield link.symbol;
  }

  *widgets<W extends Widget>(type: abstract new (...given: never[]) => W): Iterable<W> {
    for (const { widget } of this.mounted.values()) if (widget instanceof type) yield widget;
  }

  // What people change

  add(kind: Kind, settings: Settings = {}, link: Colour | "" = FIRST): Mounted | null {
    const { widgets } = this.layout;
    if (widgets.length >= WIDGETS_MAX) return null;
    const [w, h] = kind.size;
    const placed: Placed = { id: newId(kind.name, widgets), kind: kind.name, ...free(widgets, w, h), w, h, link, settings };
    this.keep({ widgets: [...widgets, placed] });
    const made = this.mount(placed);
    this.arrange();
    this.offerTabs();
    made.widget.element.scrollIntoView({ block: "nearest" });
    return made;
  }

  /** The news of what this link has chosen; made where there is none, null where the layout may not grow. */
  newsOf(link: Link): Mounted | null {
    const all = [...this.mounted.values()];
    const shown = (one: Mounted) => one.kind?.name === "news" && one.placed.settings["which"] === "chosen";
    const found = all.find((one) => shown(one) && one.link === link) ?? all.find((one) => shown(one) && one.link === this.first);
    if (found || this.layout.locked) return found ?? null;
    const colour = all.find((one) => one.link === link)?.placed.link || FIRST;
    return this.add(kindOf("news")!, { which: "chosen" }, colour);
  }

  remove(id: string): void {
    const gone = this.mounted.get(id);
    if (!gone) return;
    this.unmount(gone);
    this.keep({ widgets: risen(this.layout.widgets.filter((one) => one.id !== id)) });
    this.arrange();
    this.offerTabs();
  }

  /** Put a box where it says and move the others out of its way. */
  put(box: Box): void {
    this.settle(arranged(this.layout.widgets, box));
  }

  /** These boxes are where everything stands now. */
  settle(widgets: readonly Placed[]): void {
    this.keep({ widgets });
    this.arrange();
  }

  /** Show these boxes while they are being moved; null ends it. */
  preview(widgets: readonly Placed[] | null): void {
    this.moving = widgets !== null;
    this.root.toggleAttribute("data-moving", this.moving);
    this.arrange(widgets ?? this.layout.widgets);
  }

  relink(id: string, link: Colour | ""): void {
    this.replace(id, { link });
  }

  configure(id: string, settings: Settings): void {
    this.replace(id, { settings });
  }

  rename(given: Partial<Pick<Layout, "name" | "about" | "default" | "locked">>): void {
    this.keep(given);
    this.root.toggleAttribute("data-locked", this.layout.locked);
  }

  // What is painted

  /** Paint what the hand did; called each frame. */
  paint(now: number): void {
    for (const link of this.links.values()) link.paint(now);
    for (const { widget, placed, link } of this.mounted.values()) {
      if (!placed.link) link.paint(now);
      widget.each?.(now);
    }
  }

  /** How many rounds of all turns it takes until every list has had its own. */
  get rounds(): number {
    let lists = 0;
    for (const { kind } of this.mounted.values()) if ((kind?.turn ?? 2) === 2) lists++;
    return Math.max(1, Math.ceil(lists / LISTS_A_TURN));
  }

  /** Paint the widgets whose turn it is; lists one after the other, a list each time. */
  turn(turn: 0 | 1, now: number): void {
    for (const { widget, kind } of this.mounted.values()) if ((kind?.turn ?? 2) === turn) widget.paint(now);
  }

  turnLists(now: number): void {
    const lists = [...this.mounted.values()].filter(({ kind }) => (kind?.turn ?? 2) === 2);
    for (let n = 0; n < Math.min(LISTS_A_TURN, lists.length); n++) lists[this.listTurn++ % lists.length]!.widget.paint(now);
  }

  // What it is made of

  private keep(changed: Partial<Layout>, slight = false): void {
    this.layout = { ...this.layout, ...changed };
    this.told.changed(slight);
  }

  private replace(id: string, changed: Partial<Pick<Placed, "link" | "settings">>): void {
    const before = this.mounted.get(id);
    if (!before) return;
    const placed = { ...before.placed, ...changed };
    const { element } = before.widget;
    const next = element.nextSibling;
    this.unmount(before);
    this.keep({ widgets: this.layout.widgets.map((one) => (one.id === id ? placed : one)) });
    const made = this.mount(placed);
    this.root.insertBefore(made.widget.element, next);
    this.arrange();
    this.offerTabs();
  }

  private mount(placed: Placed): Mounted {
    const kind = kindOf(placed.kind);
    const ids = new Ids();
    const link = placed.link ? this.links.get(placed.link)! : this.newLink((symbol) => this.merge(placed.id, { symbol }));
    const place = { market: this.market, link, settings: placed.settings, ids, keep: (changed: Settings) => this.merge(placed.id, changed) };
    const widget = kind ? kind.make(place) : unknown(placed.kind);
    const made: Mounted = { placed, kind, widget, link, ids };
    widget.element.dataset["widget"] = placed.id;
    widget.element.dataset["tab"] = kind?.tab ?? "more";
    this.tools(made);
    this.mounted.set(placed.id, made);
    this.root.append(widget.element);
    const own = placed.settings["symbol"];
    if (!placed.link && typeof own === "string" && own.length <= 64) link.choose(own);
    link.join(widget);
    return made;
  }

  private unmount({ widget, link, ids, placed }: Mounted): void {
    link.leave(widget);
    widget.close();
    widget.element.remove();
    ids.release();
    this.mounted.delete(placed.id);
  }

  private tools(mounted: Mounted): void {
    const { widget, placed, kind } = mounted;
    const title = kind?.title ?? placed.kind;
    const more = attributes(button("more", "⋯", () => this.told.menu(mounted, more)), { "aria-label": `${title}: menu`, "aria-haspopup": "menu" });
    const tools = el("div", "tools");
    if (kind?.links) {
      const dot = attributes(button("link-dot", "", () => this.told.menu(mounted, dot)), {
        "aria-label": `${title}: ${placed.link ? `linked by ${placed.link}` : "not linked"}`, "data-link": placed.link, "aria-haspopup": "menu",
      }); // prettier-ignore
      tools.append(dot);
      join(tools, dot);
    }
    tools.append(more);
    join(tools, more);
    roving(tools);
    widget.head.append(tools);
    widget.head.classList.add("hold");
    widget.element.append(attributes(el("i", "grip"), { "aria-hidden": "true" }));
  }

  /** Keep what was switched in a widget with its settings, without making the widget anew. */
  private merge(id: string, changed: Settings): void {
    const mounted = this.mounted.get(id);
    if (!mounted) return;
    const placed = { ...mounted.placed, settings: { ...mounted.placed.settings, ...changed } };
    mounted.placed = placed;
    this.keep({ widgets: this.layout.widgets.map((one) => (one.id === id ? { ...one, settings: placed.settings } : one)) }, true);
  }

  private newLink(chosen: (symbol: string) => void): Link {
    return new Link(this.market.stream, this.market.table, chosen);
  }

  private linked(colour: Colour, symbol: string): void {
    this.told.chosen(colour, symbol);
    const { symbols } = this.layout;
    if (colour !== FIRST && symbols[colour] !== symbol) this.keep({ symbols: { ...symbols, [colour]: symbol } }, true);
  }

  /** Give each widget its place: the styles make pixels of it. */
  private arrange(widgets: readonly Placed[] = this.layout.widgets): void {
    const absent = new Set(this.moving ? [] : widgets.filter(({ id }) => this.mounted.get(id)?.widget.element.hidden).map(({ id }) => id));
    const shown = closedUp(widgets, absent);
    const boxes = NARROW.matches ? shelved(shown) : shown;
    for (const { id, x, y, w, h } of boxes) {
      const style = this.mounted.get(id)?.widget.element.style;
      if (!style) continue; // a ladder asks for its room while the layout is being opened: the others come
      for (const [name, value] of [["--x", x], ["--y", y], ["--w", w], ["--h", h]] as const) style.setProperty(name, String(value));
    }
    const rows = Math.max(...boxes.map(({ y, h }) => y + h), 1);
    this.root.style.setProperty("--rows", String(NARROW.matches ? rows : Math.max(rows, SCREEN_ROWS)));
    this.root.toggleAttribute("data-empty", widgets.length === 0);
    this.root.toggleAttribute("data-book", [...this.mounted.values()].some(({ kind, widget }) => kind?.name === "depth" && !widget.element.hidden));
    this.root.toggleAttribute("data-orders", [...this.mounted.values()].some(({ widget }) => widget.picked && !widget.element.hidden));
    if (PHONE.matches) this.offerTabs();
  }

  private offerTabs(): void {
    const there = [...this.mounted.values()].filter(({ widget }) => !widget.element.hidden).map(({ kind }) => kind?.tab ?? "more");
    const order: readonly Tab[] = ["quotes", "chart", "depth", "boards", "alerts", "more"];
    this.tabs.offer(new Set(order.filter((tab) => there.includes(tab))));
  }
}

function inOrder(widgets: readonly Placed[]): Placed[] {
  return [...widgets].sort((a, b) => a.y - b.y || a.x - b.x);
}

/** Stands where a widget would that this page does not know: the layout keeps it. */
function unknown(kind: string): Widget {
  const head = el("div", "head", el("h2", "", "Unknown widget"));
  const words = `This page knows no widget “${kind}”. Update Tapeline, or remove it.`;
  return { element: el("section", "panel", head, el("p", "empty", words)), head, paint() {}, close() {} };
}
