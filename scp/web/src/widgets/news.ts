// News as they are published: of all symbols, of some, or of the chosen one.

import { Articles, type Article } from "../data/articles.ts";
import { pipelineNow } from "../data/clock.ts";
import type { Source } from "../data/pipeline.ts";
import type { Subscription } from "../data/stream.ts";
import { attributes, el, showState, Text } from "../dom.ts";
import { Newspaper } from "../views/newspaper.ts";
import { flag, oneOf, words, type Kind, type Place, type Widget } from "./widget.ts";

const GROW_MS = 1_000;
const NEWS_HZ = 4;

class News implements Widget {
  readonly element: HTMLElement;
  readonly head: HTMLElement;
  private readonly note: Text;
  private readonly paper: Newspaper;
  private readonly own = new Articles(); // of the chosen symbol
  private readonly only: ReadonlySet<string>;
  private readonly chosen: boolean;
  private readonly end: () => void;
  private subscription: Subscription | null = null;
  private symbol = "";
  private dirty = true;
  private growAt = 0;
  private lost = 0;

  constructor(private readonly place: Place) {
    const { market, link, settings, ids } = place;
    this.only = new Set(words(settings, "symbols"));
    this.chosen = oneOf(settings, "which", ["all", "chosen"]) === "chosen";
    const heading = ids.name("h-news", el("h2", "", "News"));
    const note = ids.name("news-note", el("span", "note"));
    this.note = new Text(note);
    this.head = el("div", "head", heading, note);
    this.paper = new Newspaper("News", flag(settings, "summaries", false), (symbol) => market.open(link, symbol));
    this.element = attributes(el("section", "panel news", this.head, this.paper.element), { "aria-labelledby": heading.id });
    this.end = this.chosen
      ? () => this.subscription?.close()
      : market.shared.onNews({
          changed: () => (this.dirty = true),
          lost: (n) => (this.lost += n),
          status: ({ state, reason }) => showState(this.element, state, reason),
        });
  }

  show(symbol: string): void {
    if (!this.chosen) return;
    this.symbol = symbol;
    this.subscription?.close();
    this.subscription = null;
    this.own.clear();
    this.lost = 0;
    this.dirty = true;
    showState(this.element, "live", "");
  }

  follow(symbol: string): void {
    if (!this.chosen) return;
    this.subscription?.close();
    this.subscription = this.place.market.stream.subscribe([`news:${symbol}`], { hz: NEWS_HZ }, {
      snapshot: (_, data) => {
        this.own.clear();
        for (const article of data as unknown[]) this.own.add(article);
        this.dirty = true;
      },
      event: (_, data) => {
        if (this.own.add(data)) this.dirty = true;
      },
      lost: (_, n) => (this.lost += n),
      status: (_, state, reason) => showState(this.element, state, reason),
    });
  }

  paint(now: number): void {
    if (!this.dirty && now < this.growAt) return;
    if (this.dirty) this.paper.set(this.wanted());
    this.dirty = false;
    this.growAt = now + GROW_MS;
    this.paper.grow(pipelineNow());
    const sources = Object.values(this.place.market.shared.pipeline?.sources ?? {}).filter(({ listener }) => listener?.["feed"] === "news");
    const fault = faultOf(sources);
    const skipped = this.lost ? `${this.lost} skipped` : "";
    this.note.set([this.chosen ? this.symbol : "", skipped, fault].filter(Boolean).join(", "));
    if (fault || sources.length === 0) this.paper.waitFor(`No news: ${fault || "no source of them is set up"}`);
    else this.paper.waitFor(this.chosen ? `No news of ${this.symbol || "the chosen symbol"} yet` : "No news yet");
  }

  close(): void {
    this.end();
  }

  private wanted(): readonly Article[] {
    if (this.chosen) return this.own.list;
    const all = this.place.market.shared.news.list;
    return this.only.size ? all.filter(({ tickers }) => tickers.some((symbol) => this.only.has(symbol))) : all;
  }
}

/** Why no news come, "" while they may: their source is silent by itself for hours, and that is no fault. */
function faultOf(sources: readonly Source[]): string {
  const ill = sources.find(({ state }) => state !== "live");
  return ill ? ill.reason || `the source is ${ill.state ?? "away"}` : "";
}

export const news: Kind = {
  name: "news",
  title: "News",
  about: "Headlines as they are published, with the symbols they name",
  tab: "more",
  turn: 2,
  size: [12, 7],
  least: [8, 4],
  links: true,
  fields: [
    { name: "which", label: "Show", type: "choice", default: "all", options: [["all", "all news"], ["chosen", "news of the chosen symbol"]] },
    { name: "symbols", label: "Only these symbols", type: "symbols", about: "Separated by spaces or commas; none = all" },
    { name: "summaries", label: "With summaries", type: "check", default: false },
  ],
  make: (place) => new News(place),
};
