// Moves and resizes widgets by pointer and by keyboard. What is in the way goes aside while one moves; Escape takes it back.

import type { Placed } from "./document.ts";
import type { Desk, Mounted } from "./desk.ts";
import { arranged, COLUMNS, SCREEN_ROWS, within, type Box } from "./places.ts";

const THRESHOLD_PX = 4; // less is a click
const EDGE_PX = 40; // so near to the window's edge it scrolls
const SCROLL_PX = 14;
const NOT_HELD = "button, a, input, select, .tools";

interface Grasp {
  mounted: Mounted;
  resize: boolean;
  /** Where it began: the pointer with what was scrolled, and everything's places. */
  x: number;
  y: number;
  before: readonly Placed[];
  now: readonly Placed[];
  moving: boolean;
  pointer: number;
}

export class Hands {
  private grasp: Grasp | null = null;
  private keys: { mounted: Mounted; before: readonly Placed[] } | null = null;

  constructor(
    private readonly desk: Desk,
    /** Tell what happens to whoever does not see it. */
    private readonly say: (text: string) => void,
  ) {
    const { root } = desk;
    root.addEventListener("pointerdown", (event) => this.take(event));
    root.addEventListener("pointermove", (event) => this.drag(event));
    root.addEventListener("pointerup", () => this.drop());
    root.addEventListener("pointercancel", () => this.cancel());
    root.addEventListener("lostpointercapture", () => this.drop());
    document.addEventListener("keydown", (event) => this.onKey(event), { capture: true });
    addEventListener("resize", () => this.cancel());
  }

  /** Arrows move this widget until Enter or Escape; with Shift they resize it. */
  byKeys(mounted: Mounted): void {
    this.cancel();
    this.keys = { mounted, before: this.desk.layout.widgets };
    mounted.widget.element.dataset["held"] = "";
    this.desk.preview(this.desk.layout.widgets);
    this.say("Arrows move it, with Shift they resize it. Enter keeps it, Escape takes it back.");
  }

  private take(event: PointerEvent): void {
    const target = event.target as HTMLElement;
    const panel = target.closest<HTMLElement>("[data-widget]");
    const mounted = this.desk.mounted.get(panel?.dataset["widget"] ?? "");
    const resize = target.classList.contains("grip");
    if (!mounted || event.button !== 0 || !this.desk.movable || this.keys) return;
    if (!resize && (target.closest(NOT_HELD) || !target.closest(".hold, .who"))) return;
    const before = this.desk.layout.widgets;
    this.grasp = { mounted, resize, x: event.clientX, y: event.clientY + scrollY, before, now: before, moving: false, pointer: event.pointerId };
  }

  private drag(event: PointerEvent): void {
    const { grasp } = this;
    if (!grasp) return;
    const [dx, dy] = [event.clientX - grasp.x, event.clientY + scrollY - grasp.y];
    if (!grasp.moving && Math.hypot(dx, dy) < THRESHOLD_PX) return;
    if (!grasp.moving) this.begin(grasp);
    const { width, height } = this.desk.root.getBoundingClientRect();
    const rows = Number(this.desk.root.style.getPropertyValue("--rows"));
    const [columns, down] = [Math.round((dx / width) * COLUMNS), Math.round((dy / height) * rows)];
    const start = grasp.before.find(({ id }) => id === grasp.mounted.placed.id)!;
    const box = grasp.resize ? resized(grasp.mounted, start, columns, down) : { ...start, x: start.x + columns, y: start.y + down };
    grasp.now = arranged(grasp.before, within(box));
    this.desk.preview(grasp.now);
    if (event.clientY > innerHeight - EDGE_PX) scrollBy(0, SCROLL_PX);
    else if (event.clientY < EDGE_PX) scrollBy(0, -SCROLL_PX);
  }

  private begin(grasp: Grasp): void {
    grasp.moving = true;
    grasp.mounted.widget.element.dataset["held"] = "";
    this.desk.root.setPointerCapture(grasp.pointer);
    getSelection()?.removeAllRanges();
  }

  private drop(): void {
    const { grasp } = this;
    this.grasp = null;
    if (!grasp?.moving) return;
    this.end(grasp.mounted);
    if (!same(grasp.before, grasp.now)) this.desk.settle(grasp.now);
  }

  /** Nothing was moved. */
  private cancel(): void {
    const held = this.grasp ?? this.keys;
    this.grasp = this.keys = null;
    if (held) this.end(held.mounted);
  }

  private end(mounted: Mounted): void {
    delete mounted.widget.element.dataset["held"];
    this.desk.preview(null);
  }

  private onKey(event: KeyboardEvent): void {
    if (this.grasp?.moving && event.key === "Escape") {
      event.stopPropagation();
      this.cancel();
    }
    if (!this.keys) return;
    const { mounted, before } = this.keys;
    const step = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key];
    if (step) this.nudge(mounted, step as [number, number], event.shiftKey);
    else if (event.key === "Enter" || event.key === " " || event.key === "Tab") this.finish(mounted, "Kept");
    else if (event.key === "Escape") {
      if (!same(before, this.desk.layout.widgets)) this.desk.settle(before);
      this.finish(mounted, "Taken back");
    } else return;
    event.preventDefault();
    event.stopPropagation();
  }

  private finish(mounted: Mounted, word: string): void {
    this.keys = null;
    this.end(mounted);
    this.say(word);
    mounted.widget.element.querySelector<HTMLElement>(".more")?.focus();
  }

  private nudge(mounted: Mounted, [dx, dy]: [number, number], resize: boolean): void {
    const { widgets } = this.desk.layout;
    const found = nudged(mounted, widgets, dx, dy, resize);
    if (!found) return;
    this.desk.settle(found);
    this.desk.preview(found);
    const { x, y, w, h } = found.find(({ id }) => id === mounted.placed.id)!;
    this.say(`Column ${x + 1}, row ${y + 1}, ${w} wide, ${h} high`);
  }
}

/** Everything's places after one step; what rises back to where it was is tried further on. Null = it cannot go there. */
function nudged(mounted: Mounted, widgets: readonly Placed[], dx: number, dy: number, resize: boolean): Placed[] | null {
  const start = widgets.find(({ id }) => id === mounted.placed.id)!;
  for (let n = 1; n <= 2 * SCREEN_ROWS; n++) {
    const box = resize ? resized(mounted, start, dx * n, dy * n) : { ...start, x: start.x + dx * n, y: start.y + dy * n };
    const found = arranged(widgets, within(box));
    const { x, y, w, h } = found.find(({ id }) => id === start.id)!;
    if (x !== start.x || y !== start.y || w !== start.w || h !== start.h) return found;
  }
  return null;
}

function resized({ kind }: Mounted, start: Placed, dx: number, dy: number): Box {
  const [w, h] = kind?.least ?? [4, 3];
  return { ...start, w: Math.min(Math.max(start.w + dx, w), COLUMNS - start.x), h: Math.max(start.h + dy, h) };
}

function same(a: readonly Placed[], b: readonly Placed[]): boolean {
  return a.every((one, at) => one.x === b[at]!.x && one.y === b[at]!.y && one.w === b[at]!.w && one.h === b[at]!.h);
}
