// Finds a symbol by what is typed: the search box with its list (a WAI-ARIA combobox).

import type { Books } from "../data/books.ts";
import { byId, el } from "../dom.ts";
import { percent, price } from "../format.ts";
import { toneOf } from "../views/grid.ts";
import { matches } from "../data/matches.ts";
import type { QuoteTable } from "../data/quotes.ts";

const SHOWN_MAX = 10;

export class Finder {
  private readonly input = byId<HTMLInputElement>("find");
  private readonly list = byId("found");
  private found: string[] = [];
  private at = 0;

  constructor(
    private readonly table: QuoteTable,
    private readonly books: Books,
    private readonly choose: (symbol: string) => void,
  ) {
    this.input.addEventListener("input", () => this.search());
    this.input.addEventListener("focus", () => this.search());
    this.input.addEventListener("blur", () => this.close());
    this.input.addEventListener("keydown", (event) => this.onKey(event));
    this.list.addEventListener("pointerdown", (event) => {
      event.preventDefault(); // the input keeps the focus, so that blur does not close the list before the click
      const item = (event.target as HTMLElement).closest("li");
      if (item?.dataset["symbol"]) this.take(item.dataset["symbol"]);
    });
  }

  focus(): void {
    this.input.focus();
    this.input.select();
  }

  private search(): void {
    const typed = this.input.value.trim() !== "";
    const found = matches(this.table.symbols, this.input.value, (row) => this.table.columns.volume[row]!, SHOWN_MAX);
    this.found = typed ? found : this.books.symbols.slice(0, SHOWN_MAX);
    this.at = typed ? 0 : -1; // what is only suggested is not chosen by Enter alone
    this.show();
  }

  private show(): void {
    const typed = this.input.value.trim() !== "";
    const items = this.found.map((symbol, at) => this.item(symbol, at));
    if (typed && items.length === 0) items.push(this.nothing());
    this.list.replaceChildren(...items);
    this.list.hidden = items.length === 0;
    this.input.setAttribute("aria-expanded", String(items.length > 0));
    if (this.at >= 0 && this.found.length > 0) this.input.setAttribute("aria-activedescendant", `found-${this.at}`);
    else this.input.removeAttribute("aria-activedescendant");
  }

  private item(symbol: string, at: number): HTMLElement {
    const row = this.table.row(symbol);
    const { columns, decimals } = this.table;
    const change = el("span", "num tint", percent(columns.change_pct[row] ?? NaN));
    const last = el("span", "num", price(columns.last[row] ?? NaN, decimals[row] ?? 2));
    const name = el("span", "", el("span", "sym", symbol));
    if (this.books.has(symbol)) name.append(el("span", "tag", "depth"));
    const item = el("li", "", name, last, change);
    item.id = `found-${at}`;
    item.dataset["symbol"] = symbol;
    item.dataset["tone"] = toneOf(columns.change[row] ?? NaN);
    item.setAttribute("role", "option");
    item.setAttribute("aria-selected", String(at === this.at));
    return item;
  }

  private nothing(): HTMLElement {
    const known = this.table.size;
    return el("li", "none", known ? `No symbol like this among ${known}` : "No symbol has been quoted yet");
  }

  private onKey(event: KeyboardEvent): void {
    const step = event.key === "ArrowDown" ? 1 : event.key === "ArrowUp" ? -1 : 0;
    const n = this.found.length;
    if (step !== 0 && n > 0) {
      event.preventDefault();
      this.at = this.at < 0 && step < 0 ? n - 1 : (this.at + step + n) % n;
      this.show();
    } else if (event.key === "Enter" && n > 0 && this.at >= 0) {
      this.take(this.found[this.at]!);
    } else if (event.key === "Escape") {
      this.input.value = "";
      this.input.blur();
    }
  }

  private take(symbol: string): void {
    this.input.value = "";
    this.input.blur();
    this.choose(symbol);
  }

  private close(): void {
    this.list.hidden = true;
    this.input.setAttribute("aria-expanded", "false");
  }
}
