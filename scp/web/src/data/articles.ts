// Keeps the newest articles of a list: each once, the newest first. Pure.
// Invariant: what comes from outside is text; only an http(s) address is ever a link.

export interface Article {
  id: string;
  title: string;
  url: string;
  source: string;
  summary: string;
  tickers: readonly string[];
  /** How many others it names beside `tickers`. */
  more: number;
  ts: number;
}

const KEPT_MAX = 100;

export class Articles {
  /** The newest first. */
  list: readonly Article[] = [];

  clear(): void {
    this.list = [];
  }

  /** Take an article; false when it is there already, older than all that are kept, or none. */
  add(raw: unknown): boolean {
    const article = articleOf(raw);
    if (!article || this.list.some(({ id }) => id === article.id)) return false;
    const at = this.list.findIndex(({ ts }) => ts <= article.ts);
    if (at < 0 && this.list.length >= KEPT_MAX) return false;
    this.list = (at < 0 ? [...this.list, article] : [...this.list.slice(0, at), article, ...this.list.slice(at)]).slice(0, KEPT_MAX);
    return true;
  }
}

/** The article in a document; null for what is none. */
export function articleOf(raw: unknown): Article | null {
  if (typeof raw !== "object" || raw === null) return null;
  const { id, title, url, source, summary, tickers, more, ts } = raw as Record<string, unknown>;
  if (typeof id !== "string" || typeof title !== "string" || typeof ts !== "number") return null;
  const named = Array.isArray(tickers) ? tickers.filter((one): one is string => typeof one === "string") : [];
  return { id, title, url: linkOf(url), source: text(source), summary: text(summary), tickers: named, more: typeof more === "number" ? more : 0, ts };
}

/** An address that may be opened: http or https; "" for any other. */
export function linkOf(url: unknown): string {
  if (typeof url !== "string") return "";
  try {
    const { protocol, href } = new URL(url);
    return protocol === "https:" || protocol === "http:" ? href : "";
  } catch {
    return "";
  }
}

function text(value: unknown): string {
  return typeof value === "string" ? value : "";
}
