// New session highs and lows as they happen, with a sound if one wants.

import type { Alert } from "../data/shared.ts";
import { attributes, button, el, showState, Text } from "../dom.ts";
import { clock, decimalsOf, price, priceDecimals, short } from "../format.ts";
import { Roll } from "../views/roll.ts";
import { Sound } from "../views/sound.ts";
import { flag, number, oneOf, words, type Kind, type Place, type Widget } from "./widget.ts";

const SHOWN_MAX = 60;

class Alerts implements Widget {
  readonly element: HTMLElement;
  readonly head: HTMLElement;
  private readonly note: Text;
  private readonly roll: Roll<Alert>;
  private readonly sound: Sound;
  private readonly bell: HTMLButtonElement;
  private readonly only: ReadonlySet<string>;
  private readonly which: "both" | "high" | "low";
  private readonly priceLeast: number;
  private readonly end: () => void;
  private lit = "";

  constructor(private readonly place: Place) {
    const { market, link, settings, ids } = place;
    this.only = new Set(words(settings, "symbols"));
    this.which = oneOf(settings, "which", ["both", "high", "low"]);
    this.priceLeast = number(settings, "price_least", 0);
    this.sound = new Sound(flag(settings, "sound", false));
    const heading = ids.name("h-alerts", el("h2", "", "Range alerts"));
    const note = ids.name("alerts-note", el("span", "note"));
    this.note = new Text(note);
    this.bell = button("bell", "", () => this.ring());
    this.head = el("div", "head", heading, note, this.bell);
    const box = ids.name("alerts", el("div", "roll"));
    this.element = attributes(el("section", "panel alerts", this.head, box), { "aria-labelledby": heading.id });
    this.roll = new Roll<Alert>(box, "Range alerts", 5, SHOWN_MAX, (alert) => this.line(alert), (alert) => market.open(link, alert.sym), ({ ts }) => ts);
    this.roll.waitFor(this.only.size ? "No new high or low of these symbols yet" : "No new session high or low yet");
    this.end = market.shared.onAlerts({
      alert: (alert, fresh) => this.add(alert, fresh),
      clear: () => this.roll.clear(),
      lost: (n) => this.note.set(`${n} skipped`),
      status: ({ state, reason }) => showState(this.element, state, reason),
    });
    this.say();
  }

  paint(): void {
    this.roll.paint();
    if (this.sound.state !== this.lit) this.say();
  }

  close(): void {
    this.end();
    this.sound.close();
  }

  private add(alert: Alert, fresh: boolean): void {
    const high = alert.kind === "new_high";
    if (this.only.size && !this.only.has(alert.sym)) return;
    if (this.which !== "both" && (this.which === "high") !== high) return;
    if (alert.price < this.priceLeast) return;
    this.roll.add(alert);
    if (fresh) this.sound.play(high, performance.now());
  }

  /** The bell switches sounds; a click is also what lets a browser that blocks them play. */
  private ring(): void {
    this.sound.press();
    this.place.keep({ sound: this.sound.on });
    this.say();
  }

  private say(): void {
    this.lit = this.sound.state;
    const words = { off: "Sounds off", on: "Sounds on", blocked: "Click to allow sounds" }[this.sound.state];
    attributes(this.bell, { "aria-label": words, title: words, "aria-pressed": String(this.sound.on), "data-sound": this.sound.state });
    this.bell.textContent = this.sound.state === "blocked" ? words : "";
  }

  private line(alert: Alert): { texts: string[]; tone: string } {
    const { table } = this.place.market;
    const high = alert.kind === "new_high";
    const row = table.row(alert.sym);
    const decimals = row < 0 ? priceDecimals(decimalsOf(alert.price)) : table.decimals[row]!;
    if (decimals > 5) this.element.dataset["wide"] = ""; // long prices leave no room for the one before
    const before = alert.prev == null ? "" : `was ${price(alert.prev, decimals)}`;
    return { texts: [clock(alert.ts), high ? "▲ High" : "▼ Low", short(alert.sym, 12), price(alert.price, decimals), before], tone: high ? "up" : "down" };
  }
}

export const alerts: Kind = {
  name: "alerts",
  title: "Range alerts",
  about: "New session highs and lows, with a sound if you like",
  tab: "alerts",
  turn: 2,
  size: [12, 7],
  least: [8, 4],
  links: true,
  fields: [
    { name: "which", label: "Show", type: "choice", default: "both", options: [["both", "highs and lows"], ["high", "highs only"], ["low", "lows only"]] },
    { name: "symbols", label: "Only these symbols", type: "symbols", about: "Separated by spaces or commas; none = all" },
    { name: "price_least", label: "Price from", type: "number", about: "0 = no bound" },
    { name: "sound", label: "Play a sound", type: "check", default: false },
  ],
  make: (place) => new Alerts(place),
};
