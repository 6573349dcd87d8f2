// Formats numbers as short fixed-width text. "—" is a value that is not known; it is never shown as zero.

export const NONE = "—";
const DECIMALS_MAX = 10;
const LOT_DECIMALS_MAX = 4;
const AMOUNT_LETTERS_MAX = 9;

/** The number of decimals that `x` needs: 4783.25 → 2, 0.00001302 → 8. Float noise (0.1 + 0.2) does not count. */
export function decimalsOf(x: number): number {
  const size = Math.abs(x);
  if (!(size > 0) || !Number.isFinite(x)) return 0;
  let scaled = size;
  for (let decimals = 0; decimals < DECIMALS_MAX; decimals++) {
    const whole = Math.round(scaled);
    if (whole > 0 && Math.abs(scaled - whole) < 1e-9 * Math.max(1, scaled)) return decimals;
    scaled = size * 10 ** (decimals + 1);
  }
  return DECIMALS_MAX;
}

/** The decimals to show prices of an instrument with, when its known prices need `seen`: never fewer than cents. */
export function priceDecimals(seen: number): number {
  return Math.min(Math.max(seen, 2), DECIMALS_MAX);
}

/** 1234.5 → "1,234.50" with two decimals. */
export function price(x: number, decimals: number): string {
  return Number.isNaN(x) ? NONE : grouped(x.toFixed(decimals));
}

/** A difference of prices with its sign: "+0.25", "−1.10". The minus is as wide as the plus. */
export function signed(x: number, decimals: number): string {
  if (Number.isNaN(x)) return NONE;
  const text = grouped(Math.abs(x).toFixed(decimals));
  return x > 0 ? `+${text}` : x < 0 ? `−${text}` : text;
}

/** 1.2345 → "+1.23%"; from 1,000 % on without decimals. */
export function percent(x: number): string {
  if (Number.isNaN(x)) return NONE;
  return `${signed(x, Math.abs(x) >= 1000 ? 0 : 2)}%`;
}

/** A quantity in at most six characters: 950 → "950", 12345 → "12.3K", 0.01234 → "0.0123". */
export function quantity(x: number): string {
  if (Number.isNaN(x)) return NONE;
  const size = Math.abs(x);
  if (size >= 1e12) return `${compact(x / 1e12)}T`;
  if (size >= 1e9) return `${compact(x / 1e9)}B`;
  if (size >= 1e6) return `${compact(x / 1e6)}M`;
  if (size >= 1e4) return `${compact(x / 1e3)}K`;
  if (Number.isInteger(x)) return grouped(String(x));
  return size >= 1 ? compact(x) : String(Number(x.toPrecision(3)));
}

/** A size with the decimals of its instrument's lots: 0.5 with three → "0.500"; quantity() where these would be too many. */
export function amount(x: number, decimals: number): string {
  const text = price(x, decimals);
  return decimals > LOT_DECIMALS_MAX || text.length > AMOUNT_LETTERS_MAX ? quantity(x) : text;
}

/** Whole numbers with separators: 12345 → "12,345". */
export function count(x: number): string {
  return Number.isNaN(x) ? NONE : grouped(String(Math.round(x)));
}

/** An age in milliseconds, in words that fit a small box: "42 ms", "3.1 s", "5 min", "2 h". */
export function age(ms: number): string {
  if (Number.isNaN(ms)) return NONE;
  if (ms < 1000) return `${Math.max(0, Math.round(ms))} ms`;
  if (ms < 10_000) return `${(ms / 1000).toFixed(1)} s`;
  if (ms < 120_000) return `${Math.round(ms / 1000)} s`;
  return ms < 7_200_000 ? `${Math.round(ms / 60_000)} min` : `${Math.round(ms / 3_600_000)} h`;
}

/** Milliseconds since the epoch as a local day: "11-22". */
export function day(ms: number): string {
  if (!(ms > 0)) return NONE;
  const at = new Date(ms);
  return `${two(at.getMonth() + 1)}-${two(at.getDate())}`;
}

/** Milliseconds since the epoch as local time of day: "14:03:07". */
export function clock(ms: number): string {
  if (!(ms > 0)) return NONE;
  const at = new Date(ms);
  return `${two(at.getHours())}:${two(at.getMinutes())}:${two(at.getSeconds())}`;
}

/** A name in at most `letters` letters: the styles cut nothing, because clipping each cell costs a frame's time. */
export function short(name: string, letters: number): string {
  return name.length > letters ? `${name.slice(0, letters - 1)}…` : name;
}

function compact(x: number): string {
  const size = Math.abs(x);
  return grouped(x.toFixed(size >= 100 ? 0 : size >= 10 ? 1 : 2));
}

function two(n: number): string {
  return n < 10 ? `0${n}` : String(n);
}

function grouped(text: string): string {
  const dot = text.indexOf(".");
  let whole = dot < 0 ? text : text.slice(0, dot);
  const first = whole.startsWith("-") ? 1 : 0;
  for (let at = whole.length - 3; at > first; at -= 3) whole = `${whole.slice(0, at)},${whole.slice(at)}`;
  return dot < 0 ? whole : whole + text.slice(dot);
}
