// Shows a short row of buttons, each of which chooses a symbol.

import { el } from "../dom.ts";
import { join, roving } from "../roving.ts";

const SHOWN_MAX = 4;

export class Chips {
  private chosen = "";

  constructor(
    private readonly root: HTMLElement,
    choose: (symbol: string) => void,
  ) {
    roving(root);
    root.addEventListener("click", (event) => {
      const symbol = (event.target as HTMLElement).dataset["symbol"];
      if (symbol) choose(symbol);
    });
  }

  /** Show the first of `symbols`; none hides the row. */
  set(symbols: readonly string[]): void {
    this.root.hidden = symbols.length === 0;
    this.root.replaceChildren();
    for (const symbol of symbols.slice(0, SHOWN_MAX)) this.root.append(this.chip(symbol));
  }

  /** Mark `symbol` as the chosen one. */
  select(symbol: string): void {
    this.chosen = symbol;
    for (const chip of this.root.children) this.mark(chip as HTMLElement);
  }

  private chip(symbol: string): HTMLElement {
    const chip = el("button", "chip", symbol) as HTMLButtonElement;
    chip.type = "button";
    join(this.root, chip);
    chip.dataset["symbol"] = symbol;
    this.mark(chip);
    return chip;
  }

  private mark(chip: HTMLElement): void {
    chip.setAttribute("aria-pressed", String(chip.dataset["symbol"] === this.chosen));
  }
}
