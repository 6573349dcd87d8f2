// A table that is brought up to date in place: rows keep their buttons, cells are written only when they changed.
import { el, Text } from "../dom.ts";

export interface Column<Row> {
  head: string;
  /** The text of a cell; what it returns beside it colours the cell: good, bad, warn. */
  text: (row: Row) => string;
  tone?: (row: Row) => string;
  number?: boolean;
}

interface Shown<Row> {
  line: HTMLElement;
  cells: { element: HTMLElement; text: Text }[];
  row: Row;
}

export class LiveTable<Row> {
  readonly element: HTMLElement;
  private readonly body = el("tbody");
  private readonly empty: HTMLElement;
  private readonly rows = new Map<string, Shown<Row>>();

  /** `acts` makes a row's buttons, once; they ask for the row as it is when they are pressed. */
  constructor(
    private readonly name: string,
    private readonly columns: readonly Column<Row>[],
    private readonly key: (row: Row) => string,
    empty: string,
    private readonly acts?: (row: () => Row) => Node[],
  ) {
    const heads = [...columns.map(({ head, number }) => el("th", number ? "number" : "", head)), ...(acts ? [el("th")] : [])];
    const box = el("div", "table", el("table", "", el("thead", "", el("tr", "", ...heads)), this.body));
    box.tabIndex = 0;
    box.setAttribute("role", "region");
    box.setAttribute("aria-label", name);
    this.empty = el("p", "empty", empty);
    this.element = el("div", "", box, this.empty);
  }

  update(rows: readonly Row[]): void {
    const seen = new Set<string>();
    rows.forEach((row, at) => {
      const key = this.key(row);
      seen.add(key);
      const shown = this.rows.get(key) ?? this.add(key, row);
      shown.row = row;
      this.columns.forEach(({ text, tone }, column) => {
        const cell = shown.cells[column]!;
        cell.text.set(text(row));
        const colour = tone?.(row) ?? "";
        if ((cell.element.dataset["tone"] ?? "") !== colour) cell.element.dataset["tone"] = colour;
      });
      if (this.body.children[at] !== shown.line) this.body.insertBefore(shown.line, this.body.children[at] ?? null);
    });
    for (const [key, { line }] of this.rows) {
      if (seen.has(key)) continue;
      line.remove();
      this.rows.delete(key);
    }
    this.empty.hidden = rows.length > 0;
    this.element.firstElementChild!.toggleAttribute("hidden", rows.length === 0);
  }

  private add(key: string, row: Row): Shown<Row> {
    const cells = this.columns.map(({ number }) => {
      const element = el("td", number ? "number" : "");
      return { element, text: new Text(element) };
    });
    const made: Shown<Row> = { line: el("tr", "", ...cells.map(({ element }) => element)), cells, row };
    if (this.acts) {
      const acts = el("span", "acts", ...this.acts(() => made.row));
      acts.setAttribute("aria-label", `${this.name}: ${key}`);
      made.line.append(el("td", "", acts));
    }
    this.rows.set(key, made);
    return made;
  }
}

/** An alert line below a table. */
export function alert(): HTMLElement {
  const made = el("p", "said");
  made.setAttribute("role", "alert");
  return made;
}

export const count = (value: number): string => Math.round(value).toLocaleString("en-US");
export const rate = (value: number): string => (value >= 100 ? count(value) : value.toFixed(1));

/** A span of time in the largest unit that says enough: 840 ms, 12 s, 3 min, 5 h, 2 d. */
export function span(ms: number): string {
  if (ms < 1000) return `${Math.round(ms)} ms`;
  if (ms < 120_000) return `${(ms / 1000).toFixed(ms < 10_000 ? 1 : 0)} s`;
  if (ms < 7_200_000) return `${Math.round(ms / 60_000)} min`;
  if (ms < 172_800_000) return `${Math.round(ms / 3_600_000)} h`;
  return `${Math.round(ms / 86_400_000)} d`;
}
