// The company behind one symbol: what it is, short sales, splits, earlier tickers, reports. Everything from outside is shown as text.

import { linkOf } from "../data/articles.ts";
import { company, type Company, type PartState } from "../data/reference.ts";
import { attributes, button, el } from "../dom.ts";
import { clock, count, day, NONE, quantity } from "../format.ts";
import type { Kind, Place, Widget } from "./widget.ts";

const AGAIN_MS = 6_000;
const AGAIN_MS_MAX = 60_000;
const SHOWN_MAX = 4; // splits and tickers
const WORDS: Readonly<Record<PartState, string>> = {
  known: "", none: NONE, stale: "", refused: "not in the operators' plan", pending: "loading", failed: "unknown just now",
}; // prettier-ignore

class CompanyCard implements Widget {
  readonly element: HTMLElement;
  readonly head: HTMLElement;
  private readonly note = el("span", "note");
  private readonly body = attributes(el("div", "company-body"), { tabindex: "0", role: "region", "aria-label": "Company" });
  private symbol = "";
  private timer: ReturnType<typeof setTimeout> | undefined;
  private tries = 0;
  private shown: Company | null = null;

  constructor(place: Place) {
    const heading = place.ids.name("h-company", el("h2", "", "Company"));
    this.head = el("div", "head", heading, this.note);
    this.element = attributes(el("section", "panel company", this.head, this.body), { "aria-labelledby": heading.id });
    this.say("A company appears here once a symbol is chosen");
  }

  show(symbol: string): void {
    clearTimeout(this.timer);
    this.symbol = symbol;
    this.shown = null;
    this.note.textContent = symbol;
    this.say(symbol ? "Loading" : "A company appears here once a symbol is chosen");
  }

  follow(symbol: string): void {
    this.tries = 0;
    void this.load(symbol);
  }

  paint(): void {}

  close(): void {
    clearTimeout(this.timer);
    this.symbol = "";
  }

  private async load(symbol: string): Promise<void> {
    clearTimeout(this.timer);
    const found = await company(symbol);
    if (symbol !== this.symbol) return;
    const again = "said" in found ? found.again : found.again_s !== null;
    if (!("said" in found)) this.renew(found);
    else if (this.shown) this.note.textContent = `${symbol}, not complete: ${found.said}`;
    else this.say(found.said, again);
    if (again) this.timer = setTimeout(() => void this.load(symbol), Math.min(AGAIN_MS_MAX, AGAIN_MS * ++this.tries));
  }

  private say(text: string, again = false): void {
    const now = button("as-table", "Try again", () => this.follow(this.symbol));
    this.replace(el("div", "empty", el("p", "", text), ...(again ? [now] : [])));
    if (again && document.activeElement === this.body) now.focus();
  }

  /** Whoever has the keyboard in it keeps it. */
  private replace(...content: HTMLElement[]): void {
    const held = this.body.contains(document.activeElement);
    this.body.replaceChildren(...content);
    if (held) this.body.focus({ preventScroll: true });
  }

  /** Fill the card anew when there is something new: whoever reads in it keeps their place. */
  private renew(found: Company): void {
    const same = JSON.stringify({ ...found, again_s: 0 }) === JSON.stringify({ ...this.shown, again_s: 0 });
    const { scrollTop } = this.body;
    this.shown = found;
    if (same) return;
    this.fill(found);
    this.body.scrollTop = scrollTop;
  }

  private fill(known: Company): void {
    const { overview, parts } = known;
    const text = (name: string): string => (typeof overview?.[name] === "string" ? String(overview[name]) : "");
    const amount = (name: string): string => (typeof overview?.[name] === "number" ? quantity(overview[name]) : NONE);
    const stale = Object.values(parts).includes("stale") && known.as_of_ms !== null;
    this.note.textContent = [known.symbol, stale ? `as of ${day(known.as_of_ms!)} ${clock(known.as_of_ms!)}, the vendor is away` : ""].filter(Boolean).join(", ");
    const home = linkOf(text("homepage"));
    const name = el("div", "company-name", foreign("b", "", text("name") || (overview ? known.symbol : said(parts["overview"]))), foreign("span", "", [text("industry"), text("place")].filter(Boolean).join(" · ")));
    const picture = known.logo ? [this.logo(known.symbol)] : [];
    const { short_interest: interest, short_volume: volume } = known;
    const cover = interest?.days_to_cover;
    const lines: [string, ...(Node | string)[]][] = [
      ["Market value", overview ? `${amount("market_cap")}${text("currency") ? ` ${text("currency").toUpperCase()}` : ""}` : said(parts["overview"])],
      ["Shares", amount("shares")],
      ["Exchange", text("exchange") || NONE],
      ["Listed", text("listed_on") || NONE],
      ["Employees", typeof overview?.["employees"] === "number" ? count(overview["employees"]) : NONE],
      ["Homepage", home ? outward(home, new URL(home).hostname) : NONE],
      ["Short interest", interest ? `${quantity(interest.shares)} on ${interest.settled_on}${cover != null ? `, ${quantity(cover)} days to cover` : ""}` : said(parts["short_interest"])],
      ["Short volume", volume ? `${quantity(volume.shares)} of ${quantity(volume.of)} on ${volume.on}${volume.pct != null ? `, ${volume.pct} %` : ""}` : said(parts["short_volume"])],
      ["Splits", known.splits.length ? known.splits.slice(0, SHOWN_MAX).map(({ on, before, after }) => `${after} for ${before} on ${on}`).join("; ") : said(parts["splits"])],
      ["Tickers", known.events.length ? known.events.slice(0, SHOWN_MAX).map(({ on, ticker }) => `${ticker} since ${on}`).join("; ") : said(parts["events"])],
    ]; // prettier-ignore
    const facts = el("dl", "company-facts", ...lines.map(([title, ...value]) => el("div", "", el("dt", "", title), el("dd", "", ...value))));
    const filings = known.filings.map(({ on, form, url }) => el("li", "", `${on} `, linkOf(url) ? outward(linkOf(url), form) : form));
    const reports = el("div", "company-filings", el("h3", "", "Reports"), filings.length ? el("ul", "", ...filings) : el("p", "", said(parts["filings"])));
    const about = text("about") ? [foreign("p", "company-about", text("about"))] : [];
    this.replace(el("div", "company-who", ...picture, name), ...about, facts, reports);
  }

  private logo(symbol: string): HTMLElement {
    const picture = attributes(el("img", "company-logo"), { src: `/api/v1/company/${encodeURIComponent(symbol)}/logo`, alt: "", width: "36", height: "36" });
    picture.addEventListener("error", () => picture.remove()); // one that may not be shown
    return picture;
  }
}

/** Why nothing stands there. */
function said(state: PartState | undefined): string {
  return (state && WORDS[state]) || NONE;
}

/** Words of others, in whichever direction they are written: that of the page around them stays as it is. */
function foreign(tag: string, className: string, text: string): HTMLElement {
  return attributes(el(tag, className, text), { dir: "auto" });
}

/** No opener, no referrer: see newspaper.ts. */
function outward(href: string, text: string): HTMLElement {
  return attributes(el("a", "", text), { href, target: "_blank", rel: "noopener noreferrer" });
}

export const companyCard: Kind = {
  name: "company",
  title: "Company",
  about: "What is behind a symbol: overview, short sales, splits, reports",
  tab: "more",
  turn: 2,
  size: [10, 10],
  least: [8, 5],
  links: true,
  fields: [],
  make: (place) => new CompanyCard(place),
};
