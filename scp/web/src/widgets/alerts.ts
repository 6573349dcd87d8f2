// Alerts as they happen: new highs and lows, gaps, unusual volume, news, halts; which of them are shown, and which sound.

import { GROUPS, KINDS, type Alert, type Group } from "../data/alerts.ts";
import { attributes, button, el, showState, Text } from "../dom.ts";
import { clock, decimalsOf, NONE, price, priceDecimals, short } from "../format.ts";
import { join, roving } from "../roving.ts";
import { Roll, type RollLine } from "../views/roll.ts";
import { Sound, type Tone } from "../views/sound.ts";
import { flag, number, oneOf, words, type Kind, type Place, type Settings, type Widget } from "./widget.ts";

const SHOWN_MAX = 60;
const ALL: readonly Group[] = GROUPS.map(([group]) => group);
const RINGING: readonly Group[] = ["high", "low", "gap", "news", "halt"];
const TONES: Readonly<Record<Group, Tone>> = { high: [880], low: [440], gap: [660, 990], volume: [587, 587], news: [523, 784], halt: [349, 262, 349] };

class Alerts implements Widget {
  readonly element: HTMLElement;
  readonly head: HTMLElement;
  private readonly note: Text;
  private readonly roll: Roll<Alert>;
  private readonly sound: Sound;
  private readonly bell: HTMLButtonElement;
  private readonly chips: ReadonlyMap<Group, HTMLButtonElement>;
  private readonly only: ReadonlySet<string>;
  private readonly priceLeast: number;
  private readonly rings: ReadonlySet<string>;
  private readonly end: () => void;
  private shown: ReadonlySet<Group>;
  private lit = "";

  constructor(private readonly place: Place) {
    const { market, link, settings, ids } = place;
    this.only = new Set(words(settings, "symbols"));
    this.shown = new Set(chosen(settings));
    this.priceLeast = number(settings, "price_least", 0);
    this.rings = new Set(settings["sounds"] === undefined ? RINGING : words(settings, "sounds"));
    this.sound = new Sound(flag(settings, "sound", false));
    const heading = ids.name("h-alerts", el("h2", "", "Alerts"));
    const note = ids.name("alerts-note", el("span", "note"));
    this.note = new Text(note);
    this.bell = button("bell", "", () => this.ring());
    this.head = el("div", "head", heading, note, this.bell);
    const kinds = attributes(el("div", "chips kinds"), { role: "group", "aria-label": "Kinds of alerts" });
    this.chips = new Map(GROUPS.map(([group, label]) => [group, button("chip", label, () => this.toggle(group))]));
    roving(kinds);
    for (const chip of this.chips.values()) {
      join(kinds, chip);
      kinds.append(chip);
    }
    const box = ids.name("alerts", el("div", "roll"));
    this.element = attributes(el("section", "panel alerts", this.head, kinds, box), { "aria-labelledby": heading.id });
    this.roll = new Roll<Alert>(box, "Alerts", 5, SHOWN_MAX, (alert) => this.line(alert), (alert) => market.open(link, alert.sym), ({ ts }) => ts);
    this.roll.waitFor(this.only.size ? "No alert of these symbols yet" : "No alert yet");
    this.mark();
    this.end = market.shared.alerts.listen({
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
    const group = KINDS[alert.kind]?.group;
    if (!group || !this.shown.has(group)) return;
    if (this.only.size && !this.only.has(alert.sym)) return;
    if (alert.price != null && alert.price < this.priceLeast) return;
    this.roll.add(alert);
    if (fresh && this.rings.has(group)) this.sound.play(group, TONES[group], performance.now());
  }

  /** Show a kind or leave it out. Without any the list would be empty for ever: then all are shown again. */
  private toggle(group: Group): void {
    const left = ALL.filter((one) => this.shown.has(one) !== (one === group));
    this.shown = new Set(left.length ? left : ALL);
    this.place.keep({ kinds: [...this.shown] });
    this.mark();
    this.roll.clear();
    for (const alert of this.place.market.shared.alerts.known()) this.add(alert, false);
  }

  private mark(): void {
    for (const [group, chip] of this.chips) chip.setAttribute("aria-pressed", String(this.shown.has(group)));
  }

  /** The bell mutes all sounds or none; a click is also what lets a browser that blocks them play. */
  private ring(): void {
    this.sound.press(TONES.high);
    this.place.keep({ sound: this.sound.on });
    this.say();
  }

  private say(): void {
    this.lit = this.sound.state;
    const words = { off: "Sounds off", on: "Sounds on", blocked: "Click to allow sounds" }[this.sound.state];
    attributes(this.bell, { "aria-label": words, title: words, "aria-pressed": String(this.sound.on), "data-sound": this.sound.state });
    this.bell.textContent = this.sound.state === "blocked" ? words : "";
  }

  private line(alert: Alert): RollLine {
    const { table } = this.place.market;
    const { label, tone } = KINDS[alert.kind]!;
    const row = table.row(alert.sym);
    const decimals = row < 0 ? priceDecimals(decimalsOf(alert.price ?? NaN)) : table.decimals[row]!;
    const at = alert.price == null ? NONE : price(alert.price, decimals);
    return { texts: [clock(alert.ts), label, short(alert.sym, 12), at, alert.note ?? ""], tone, title: `${alert.sym} ${at} ${alert.note ?? ""}` };
  }
}

/** The kinds that the settings ask for. Layouts of before there were kinds say `which`: highs, lows or both. */
function chosen(settings: Settings): readonly Group[] {
  const asked = words(settings, "kinds");
  const known = ALL.filter((group) => asked.includes(group));
  if (known.length) return known;
  const which = oneOf(settings, "which", ["both", "high", "low"]);
  return ALL.filter((group) => which === "both" || group !== (which === "high" ? "low" : "high"));
}

export const alerts: Kind = {
  name: "alerts",
  title: "Alerts",
  about: "New highs and lows, gaps, unusual volume, news and halts, with sounds if you like",
  tab: "alerts",
  turn: 2,
  size: [12, 7],
  least: [8, 4],
  links: true,
  fields: [
    { name: "kinds", label: "Kinds", type: "columns", default: ALL, options: GROUPS },
    { name: "symbols", label: "Only these symbols", type: "symbols", about: "Separated by spaces or commas; none = all" },
    { name: "price_least", label: "Price from", type: "number", about: "0 = no bound" },
    { name: "sound", label: "Play sounds", type: "check", default: false },
    { name: "sounds", label: "Kinds that sound", type: "columns", default: RINGING, options: GROUPS },
  ],
  make: (place) => new Alerts(place),
};
