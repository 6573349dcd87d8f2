// Ranks the symbols that match what was typed.

/** Up to `limit` of `symbols`: the exact one, then those that begin so, then those that contain it; ties by `weight`. */
export function matches(symbols: readonly string[], typed: string, weight: (row: number) => number, limit: number): string[] {
  const wanted = typed.trim().toUpperCase();
  if (wanted === "") return [];
  const found: { symbol: string; rank: number; weight: number }[] = [];
  symbols.forEach((symbol, row) => {
    const at = symbol.toUpperCase().indexOf(wanted);
    if (at < 0) return;
    const rank = at > 0 ? 2 : symbol.length === wanted.length ? 0 : 1;
    found.push({ symbol, rank, weight: weight(row) || 0 });
  });
  found.sort((a, b) => a.rank - b.rank || b.weight - a.weight || (a.symbol < b.symbol ? -1 : 1));
  return found.slice(0, limit).map((match) => match.symbol);
}
