// Tints cells briefly when their values move. Two paints a flash: a fading animation would paint every frame.

export const FLASH_MS = 220;
const LIT_MAX = 4000;

/** Cells lit now, in the order in which they go dark. */
export class Flashes {
  private readonly lit = new Map<HTMLElement, number>();

  /** Tint `cell` up or down; a cell already lit starts anew. */
  light(cell: HTMLElement, direction: number, now: number): void {
    const wanted = direction > 0 ? "up" : "down";
    if (cell.dataset["flash"] !== wanted) cell.dataset["flash"] = wanted;
    if (this.lit.size < LIT_MAX || this.lit.has(cell)) {
      this.lit.delete(cell);
      this.lit.set(cell, now + FLASH_MS);
    }
  }

  /** Take the tint off at once: the cell shows another row now. */
  dark(cell: HTMLElement): void {
    if (this.lit.delete(cell)) delete cell.dataset["flash"];
  }

  /** Take the tint off every cell whose time is over. */
  expire(now: number): void {
    for (const [cell, until] of this.lit) {
      if (until > now) return;
      this.lit.delete(cell);
      delete cell.dataset["flash"];
    }
  }
}
