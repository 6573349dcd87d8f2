// A small table of texts that is filled anew in place: elements are kept, and a text is written only when it changed.

import { attributes, el, Text } from "../dom.ts";

export interface Row {
  texts: readonly string[];
  /** "up", "down", "warn" or "": the colour of the row's state. */
  tone: string;
}

export class Listing {
  readonly element = el("div", "listing");
  private readonly body = el("tbody");
  private readonly table: HTMLElement;
  private readonly empty = el("p", "empty");
  private readonly rows: { element: HTMLElement; texts: Text[]; tone: string }[] = [];

  constructor(label: string, private readonly heads: readonly string[]) {
    const titles = heads.map((title) => attributes(el("th", "", title), { scope: "col" }));
    this.table = el("table", "", el("thead", "", el("tr", "", ...titles)), this.body);
    attributes(this.element, { tabindex: "0", role: "region", "aria-label": label });
    this.element.append(this.table, this.empty);
  }

  waitFor(text: string): void {
    if (this.empty.textContent !== text) this.empty.textContent = text;
  }

  set(rows: readonly Row[]): void {
    while (this.rows.length < rows.length) this.rows.push(this.newRow());
    this.rows.forEach((line, at) => {
      const row = rows[at];
      line.element.hidden = !row;
      if (!row) return;
      row.texts.forEach((text, place) => line.texts[place]!.set(text));
      if (line.tone !== row.tone) line.element.dataset["tone"] = line.tone = row.tone;
    });
    this.table.hidden = rows.length === 0;
    this.empty.hidden = rows.length > 0;
  }

  private newRow(): { element: HTMLElement; texts: Text[]; tone: string } {
    const cells = this.heads.map((_, at) => (at === 0 ? attributes(el("th"), { scope: "row" }) : el("td")));
    const element = el("tr", "", ...cells);
    this.body.append(element);
    return { element, texts: cells.map((cell) => new Text(cell)), tone: "" };
  }
}
