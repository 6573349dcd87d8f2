// Shows a list of events in the order of their time, the newest on top. Elements are recycled: the last one moves up and is written anew.

import { el, Text } from "../dom.ts";
import { join, roving } from "../roving.ts";

export interface RollLine {
  texts: readonly string[];
  tone: string;
  /** The whole of what a narrow widget may cut off, shown to a pointer that rests on it. */
  title?: string;
}

export class Roll<Item> {
  private readonly pending: Item[] = []; // by time, the oldest first; bounded by `keep`: what would scroll out at once is never shown
  private readonly list = el("div", "roll-list");
  private readonly empty = el("p", "empty");
  private readonly elements: { element: HTMLElement; texts: Text[]; item: Item }[] = [];

  constructor(
    root: HTMLElement,
    label: string,
    private readonly columns: number,
    private readonly keep: number,
    private readonly line: (item: Item) => RollLine,
    private readonly choose?: (item: Item) => void,
    /** When the item happened; those of equal time stand in the order in which they came. */
    private readonly time: (item: Item) => number = () => 0,
  ) {
    this.list.setAttribute("role", "log");
    this.list.setAttribute("aria-label", label);
    this.list.setAttribute("aria-live", "off"); // hundreds a minute: reading them out would drown everything else
    root.append(this.list, this.empty);
    if (choose) {
      this.list.addEventListener("click", (event) => this.onClick(event, choose));
      roving(this.list);
    } else {
      root.tabIndex = 0; // nothing in it takes the focus, and keys must be able to scroll it
      root.setAttribute("role", "group");
      root.setAttribute("aria-label", label);
    }
  }

  get size(): number {
    return this.elements.length + this.pending.length;
  }

  waitFor(text: string): void {
    if (this.empty.textContent !== text) this.empty.textContent = text;
  }

  add(item: Item): void {
    let at = this.pending.length;
    while (at > 0 && this.time(this.pending[at - 1]!) > this.time(item)) at--;
    this.pending.splice(at, 0, item);
    if (this.pending.length > this.keep) this.pending.shift();
  }

  clear(): void {
    this.pending.length = 0;
    this.elements.length = 0;
    this.list.replaceChildren();
    this.empty.hidden = false;
  }

  /** Paint what came; called once a frame. */
  paint(): void {
    if (this.pending.length === 0) return;
    for (const item of this.pending) this.show(item);
    this.pending.length = 0;
    this.empty.hidden = true;
  }

  private show(item: Item): void {
    const full = this.elements.length >= this.keep;
    let at = this.elements.length;
    while (at > 0 && this.time(this.elements[at - 1]!.item) > this.time(item)) at--;
    if (full && at === 0) return; // older than everything that is shown
    const entry = full ? this.elements.shift()! : this.make(item);
    if (full) at--;
    const { texts, tone, title } = this.line(item);
    entry.item = item;
    texts.forEach((text, at) => entry.texts[at]!.set(text));
    if (entry.element.dataset["tone"] !== tone) entry.element.dataset["tone"] = tone;
    if (title !== undefined) entry.element.title = title;
    const newer = this.elements[at]?.element;
    this.elements.splice(at, 0, entry);
    if (newer) newer.after(entry.element);
    else this.list.prepend(entry.element);
  }

  private make(item: Item): { element: HTMLElement; texts: Text[]; item: Item } {
    const cells = Array.from({ length: this.columns }, () => el("span", "cell"));
    const element = el(this.choose ? "button" : "div", "roll-row", ...cells);
    if (this.choose) {
      (element as HTMLButtonElement).type = "button";
      join(this.list, element);
    }
    return { element, texts: cells.map((cell) => new Text(cell)), item };
  }

  private onClick(event: Event, choose: (item: Item) => void): void {
    const element = (event.target as HTMLElement).closest(".roll-row");
    const entry = this.elements.find((candidate) => candidate.element === element);
    if (entry) choose(entry.item);
  }
}
