// Sorts the rows of the quote table for display. Unknown values come last, whichever way it is sorted.

import type { Field, QuoteTable } from "./quotes.ts";

export interface Sorting {
  by: "symbol" | Field;
  descending: boolean;
}

/** The rows of `table` in the order that `sorting` says, of the symbols in `only`; equal values by symbol, so that nothing jumps about. */
export function ordered(table: QuoteTable, sorting: Sorting, only: ReadonlySet<string> | null = null): Uint32Array {
  const rows = only ? Uint32Array.from([...only].map((symbol) => table.row(symbol)).filter((row) => row >= 0)) : new Uint32Array(table.size);
  if (!only) for (let row = 0; row < rows.length; row++) rows[row] = row;
  return rows.sort(comparator(table, sorting));
}

function comparator(table: QuoteTable, { by, descending }: Sorting): (a: number, b: number) => number {
  const { symbols } = table;
  const bySymbol = (a: number, b: number) => (symbols[a]! < symbols[b]! ? -1 : 1);
  if (by === "symbol") return descending ? (a, b) => bySymbol(b, a) : bySymbol;
  const column = table.columns[by];
  const sign = descending ? -1 : 1;
  return (a, b) => {
    const x = column[a]!;
    const y = column[b]!;
    if (x === y) return bySymbol(a, b);
    if (x !== x) return y !== y ? bySymbol(a, b) : 1;
    if (y !== y) return -1;
    return x < y ? -sign : sign;
  };
}
