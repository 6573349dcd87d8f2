// Filters and sorts a board's rows as a widget's settings say. Pure.

export interface BoardRow {
  sym?: string;
  last?: number | null;
  change?: number | null;
  change_pct?: number | null;
  gap_pct?: number | null;
  volume?: number | null;
  open_change_pct?: number | null;
  dollar_volume?: number | null;
  rel_volume?: number | null;
  float?: number | null;
  trades?: number | null;
  news_ts?: number | null;
}

export const MEASURES = [
  "last", "change", "change_pct", "gap_pct", "open_change_pct", "volume", "dollar_volume", "rel_volume", "float", "trades", "news_ts",
] as const satisfies readonly (keyof BoardRow)[]; // prettier-ignore
export type Measure = (typeof MEASURES)[number];

export interface Wanted {
  /** Bounds of the last price and the least volume; NaN = none. */
  priceLeast: number;
  priceMost: number;
  volumeLeast: number;
  /** A column to sort by; "" keeps the board's own ranks. */
  sort: Measure | "symbol" | "";
  descending: boolean;
}

export const ALL: Wanted = { priceLeast: NaN, priceMost: NaN, volumeLeast: NaN, sort: "", descending: true };

/** The symbols of a board that are wanted, in the order that is wanted. What is not known passes no bound and comes last. */
export function wantedOf(order: readonly string[], rows: Readonly<Record<string, BoardRow>>, wanted: Wanted): string[] {
  const found = order.filter((symbol) => {
    const { last, volume } = rows[symbol] ?? {};
    return over(last, wanted.priceLeast) && over(negative(last), -wanted.priceMost) && over(volume, wanted.volumeLeast);
  });
  const { sort, descending } = wanted;
  if (sort === "symbol") return found.sort((a, b) => (a < b === descending ? 1 : -1));
  if (sort === "") return found;
  const value = (symbol: string) => rows[symbol]?.[sort] ?? NaN;
  return found.sort((a, b) => {
    const [x, y] = [value(a), value(b)];
    if (Number.isNaN(x) || Number.isNaN(y)) return Number.isNaN(x) ? (Number.isNaN(y) ? 0 : 1) : -1;
    return descending ? y - x : x - y;
  });
}

/** 0 to 5: how warm a change in percent is; the whole scale is 10 %. */
export function heat(changePct: number): number {
  return Number.isNaN(changePct) ? 0 : Math.min(5, Math.ceil(Math.abs(changePct) / 2));
}

function over(value: number | null | undefined, least: number): boolean {
  return Number.isNaN(least) || (value ?? NaN) >= least;
}

function negative(value: number | null | undefined): number | undefined {
  return value == null ? undefined : -value;
}
