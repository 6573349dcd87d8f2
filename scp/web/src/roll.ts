// Shows a list of events with the newest on top. Elements are recycled: the last one moves up and is written anew.

import { el, Text } from "./dom.ts";

export interface RollLine {
  texts: readonly string[];
  tone: string;
}

export class Roll<Item> {
  private readonly pending: Item[] = []; // oldest first, bounded by `keep`: what would scroll out at once is never shown
  private readonly list = el("div", "roll-list");
  private readonly empty = el("p", "empty");
  private readonly elements: { element: HTMLElement; texts: Text[]; item: Item }[] = [];

  constructor(
    root: HTMLElement,
    label: string,
    private readonly columns: number,
    private readonly keep: number,
    private readonly line: (item: Item) => RollLine,
    choose?: (item: Item) => void,
  ) {
    this.list.setAttribute("role", "log");
    this.list.setAttribute("aria-label", label);
    this.list.setAttribute("aria-live", "off"); // hundreds a minute: reading them out would drown everything else
    root.append(this.list, this.empty);
    if (choose) this.list.addEventListener("click", (event) => this.onClick(event, choose));
  }

  get size(): number {
    return this.elements.length + this.pending.length;
  }

  waitFor(text: string): void {
    if (this.empty.textContent !== text) this.empty.textContent = text;
  }

  add(item: Item): void {
    this.pending.push(item);
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
    const entry = full ? this.elements.shift()! : this.make(item);
    const { texts, tone } = this.line(item);
    entry.item = item;
    texts.forEach((text, at) => entry.texts[at]!.set(text));
    if (entry.element.dataset["tone"] !== tone) entry.element.dataset["tone"] = tone;
    this.elements.push(entry);
    this.list.prepend(entry.element);
  }

  private make(item: Item): { element: HTMLElement; texts: Text[]; item: Item } {
    const cells = Array.from({ length: this.columns }, () => el("span", "cell"));
    return { element: el("div", "roll-row", ...cells), texts: cells.map((cell) => new Text(cell)), item };
  }

  private onClick(event: Event, choose: (item: Item) => void): void {
    const element = (event.target as HTMLElement).closest(".roll-row");
    const entry = this.elements.find((candidate) => candidate.element === element);
    if (entry) choose(entry.item);
  }
}
