// Shows articles: how old, headline as a link, who wrote it, and the symbols it names. Everything from outside is shown as text.

import type { Article } from "../data/articles.ts";
import { attributes, button, el, Text } from "../dom.ts";
import { clock, day } from "../format.ts";

const CHIPS_MAX = 4;

interface Entry {
  element: HTMLElement;
  age: Text;
  article: Article;
}

export class Newspaper {
  readonly element = el("div", "newspaper");
  private readonly list = el("ol", "news-list");
  private readonly empty = el("p", "empty");
  private entries: Entry[] = [];

  constructor(
    label: string,
    private readonly summaries: boolean,
    private readonly choose: (symbol: string) => void,
  ) {
    attributes(this.element, { tabindex: "0", role: "region", "aria-label": label });
    this.element.append(this.list, this.empty);
    this.list.addEventListener("click", (event) => {
      const symbol = (event.target as HTMLElement).closest("button")?.dataset["symbol"];
      if (symbol) this.choose(symbol);
    });
  }

  waitFor(text: string): void {
    if (this.empty.textContent !== text) this.empty.textContent = text;
  }

  /** Show these, the newest first; what is there already stays as it is. */
  set(articles: readonly Article[]): void {
    const known = new Map(this.entries.map((entry) => [entry.article.id, entry]));
    this.entries = articles.map((article) => known.get(article.id) ?? this.entry(article));
    const wanted = new Set(this.entries);
    for (const entry of known.values()) if (!wanted.has(entry)) entry.element.remove();
    let next: Element | null = this.list.firstElementChild;
    for (const { element } of this.entries) {
      if (element === next) next = next.nextElementSibling;
      else this.list.insertBefore(element, next);
    }
    this.empty.hidden = this.entries.length > 0;
  }

  /** Say how old each is. */
  grow(now: number): void {
    for (const { age: text, article } of this.entries) text.set(ageOf(now - article.ts));
  }

  private entry(article: Article): Entry {
    const { title, url, source, summary, tickers, more, ts } = article;
    const when = attributes(el("time", "news-age"), { datetime: new Date(ts).toISOString(), title: `${day(ts)} ${clock(ts)}` });
    // No opener: the page that is opened must have no hand on this one; no referrer: it need not know where its reader came from.
    const line = url
      ? attributes(el("a", "news-title", title), { dir: "auto", href: url, target: "_blank", rel: "noopener noreferrer" })
      : attributes(el("span", "news-title", title), { dir: "auto" });
    const shown = tickers.slice(0, CHIPS_MAX);
    const left = tickers.length - shown.length + more;
    const chips = shown.map((symbol) => {
      const chip = button("chip", symbol);
      chip.dataset["symbol"] = symbol;
      return chip;
    });
    const foot = el("div", "news-foot", ...chips, ...(left > 0 ? [el("span", "news-more", `+${left}`)] : []), el("span", "news-source", source));
    const about = this.summaries && summary ? [attributes(el("p", "news-summary", summary), { dir: "auto" })] : [];
    const element = el("li", "news-row", when, el("div", "news-body", line, ...about, foot));
    return { element, age: new Text(when), article };
  }
}

/** "now" for the last minute: the clocks of two machines differ by more than a second. Then minutes, hours and days. */
export function ageOf(ms: number): string {
  const minutes = Math.floor(ms / 60_000);
  if (minutes < 1) return "now";
  if (minutes < 60) return `${minutes} min`;
  return minutes < 48 * 60 ? `${Math.floor(minutes / 60)} h` : `${Math.floor(minutes / 1440)} d`;
}
