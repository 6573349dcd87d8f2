// Paper trading on the built-in exchange: a ticket that the ladder's clicks fill, own orders, positions, fills and money.
// Invariant: a click in the ladder only fills the ticket; nothing is sent but by the ticket's own button.

import type { Refusal } from "../api/ask.ts";
import { paper, type Contract, type Order, type PaperDesk } from "../data/paper.ts";
import { attributes, button, el, showState, Text } from "../dom.ts";
import { clock, decimalsOf, price, signed } from "../format.ts";
import { Listing } from "../views/listing.ts";
import type { Side } from "../layout/links.ts";
import { text, type Kind, type Place, type Widget } from "./widget.ts";

class Orders implements Widget {
  readonly element: HTMLElement;
  readonly head: HTMLElement;
  private readonly note = new Text(el("span", "note"));
  private readonly symbolText = new Text(el("b", "trade-symbol"));
  private readonly size = input("Size");
  private readonly price = input("Price");
  private readonly kind = attributes(el("select"), { "aria-label": "Kind of order" }) as HTMLSelectElement;
  private readonly sides: readonly HTMLButtonElement[];
  private readonly go = button("go", "", () => void this.send());
  private readonly said = attributes(el("p", "trade-said"), { role: "alert" });
  private readonly ticket: HTMLElement;
  private readonly opening: HTMLElement;
  private readonly openButton = button("go", "", () => void this.act(() => paper.send("POST", "account")));
  private readonly open = el("tbody");
  private readonly openEmpty = el("p", "trade-none", "No open orders");
  private readonly positions = new Listing("Positions", ["Positions", "Size", "Entry", "Mark", "Profit"]);
  private readonly fills = new Listing("Fills", ["Fills", "Symbol", "Side", "Size", "Price", "Fee"]);
  private readonly end: () => void;
  private desk: PaperDesk | null = null;
  private symbol = "";
  private side: Side = "Buy";
  private amending: Order | null = null;
  private shownOrders = "";

  constructor(private readonly place: Place) {
    const { ids, settings } = place;
    this.size.value = text(settings, "size");
    for (const [value, title] of [["limit", "Limit"], ["market", "Market"]] as const) this.kind.append(new Option(title, value));
    this.kind.addEventListener("change", () => this.paintTicket());
    this.size.addEventListener("change", () => place.keep({ size: this.size.value.slice(0, 20) }));
    for (const field of [this.size, this.price]) field.addEventListener("input", () => this.paintTicket());
    this.sides = (["Buy", "Sell"] as const).map((side) => attributes(button("side", side, () => this.take(side)), { "data-side": side }));
    const heading = ids.name("h-orders", el("h2", "", "Paper orders"));
    this.head = el("div", "head", heading, this.note.element);
    const which = attributes(el("div", "trade-sides", ...this.sides), { role: "group", "aria-label": "Side" });
    this.ticket = el("form", "trade-ticket", this.symbolText.element, which, this.kind, label("Size", this.size), label("Price", this.price), this.go);
    this.ticket.addEventListener("submit", (event) => event.preventDefault());
    this.opening = el("div", "trade-opening", this.openButton);
    const titles = ["Open orders", "Side", "Size", "Filled", "Price", ""].map((title) => attributes(el("th", "", title), { scope: "col" }));
    const orders = attributes(el("div", "listing", el("table", "", el("thead", "", el("tr", "", ...titles)), this.open), this.openEmpty), {
      tabindex: "0", role: "region", "aria-label": "Open orders",
    }); // prettier-ignore
    const lists = el("div", "trade-lists", orders, this.positions.element, this.fills.element);
    this.element = attributes(el("section", "panel orders", this.head, this.ticket, this.opening, this.said, lists), { "aria-labelledby": heading.id });
    ids.name("orders", this.element);
    this.positions.waitFor("No positions");
    this.fills.waitFor("No fills yet");
    for (const list of [this.positions, this.fills]) list.set([]);
    this.take("Buy");
    this.end = paper.watch({
      desk: (desk) => this.learned(desk),
      away: (why) => this.away(why),
      forbidden: () => {
        this.element.hidden = true;
        this.element.dispatchEvent(new CustomEvent("room", { bubbles: true }));
      },
    });
  }

  show(symbol: string): void {
    this.symbol = symbol;
    this.amending = null;
    this.price.value = "";
    this.symbolText.set(symbol);
    this.paintTicket();
  }

  /** Somebody clicked a price of the ladder. */
  picked(at: number, side: Side): void {
    this.amending = null;
    this.kind.value = "limit";
    this.price.value = at.toFixed(this.decimals(this.symbol).price);
    this.take(side);
    (this.size.value ? this.go : this.size).focus();
  }

  paint(): void {}

  close(): void {
    this.end();
  }

  // The ticket

  private take(side: Side): void {
    this.side = side;
    for (const one of this.sides) one.setAttribute("aria-pressed", String(one.dataset["side"] === side));
    this.paintTicket();
  }

  private paintTicket(): void {
    const contract = this.contract(this.symbol);
    const account = this.desk?.account ?? null;
    this.ticket.hidden = account === null;
    this.opening.hidden = account !== null || !this.desk;
    this.openButton.textContent = `Open a paper account with ${price(this.desk?.deposit ?? NaN, 0)}`;
    const market = this.kind.value === "market" && !this.amending;
    this.price.disabled = market;
    for (const one of [...this.sides, this.kind]) one.disabled = this.amending !== null;
    this.size.placeholder = contract?.lot_size ?? "";
    this.price.placeholder = market ? "market" : (contract?.tick_size ?? "");
    const wanted = this.wanted();
    this.go.disabled = !contract || typeof wanted === "string";
    this.go.title = contract ? (typeof wanted === "string" ? wanted : "") : `${this.symbol || "This symbol"} is not traded on the built-in exchange`;
    this.go.dataset["side"] = this.side;
    this.go.textContent = this.amending ? "Change the order" : this.side;
  }

  /** What the ticket says: lots and price; words where it says nothing that can be sent. */
  private wanted(): { qty: number; price: number | null } | string {
    const contract = this.contract(this.symbol);
    if (!contract) return "";
    const lots = Number(this.size.value.replace(/,/g, "")) / Number(contract.lot_size);
    const qty = Math.round(lots);
    if (!(qty > 0) || Math.abs(lots - qty) > 1e-6) return `The size is a multiple of ${contract.lot_size}`;
    if (this.price.disabled) return { qty, price: null };
    const at = Number(this.price.value.replace(/,/g, ""));
    return at > 0 ? { qty, price: at } : `The price is a multiple of ${contract.tick_size}`;
  }

  private async send(): Promise<void> {
    const wanted = this.wanted();
    if (typeof wanted === "string") return;
    const { amending, side, symbol } = this;
    await this.act(async () => {
      const order = amending
        ? await paper.send<Order>("PUT", `orders/${encodeURIComponent(amending.id)}`, wanted)
        : await paper.send<Order>("POST", "orders", { symbol, side, ...wanted });
      this.amending = null;
      this.price.value = "";
      this.said.dataset["tone"] = "done";
      this.said.textContent = `${order.side} ${this.lots(order.symbol, order.qty)} ${order.symbol}: ${STATES[order.state] ?? order.state}`;
    });
  }

  /** Do what a button says; it rests meanwhile, and what is refused is said. */
  private async act(what: () => Promise<unknown>): Promise<void> {
    this.go.disabled = this.openButton.disabled = true;
    this.said.textContent = "";
    this.said.dataset["tone"] = "";
    try {
      await what();
    } catch (fault) {
      this.said.textContent = (fault as Refusal).detail ?? String(fault);
    }
    this.openButton.disabled = false;
    this.paintTicket();
  }

  // What is shown of the account

  private away(why: string): void {
    showState(this.element, why ? "stale" : "live", why);
    if (why) this.said.dataset["tone"] = "";
    if (why) this.said.textContent = why;
    else if (this.element.dataset["away"]) this.said.textContent = "";
    this.element.dataset["away"] = why ? "1" : "";
  }

  private learned(desk: PaperDesk): void {
    this.desk = desk;
    const { money } = desk;
    this.note.set(desk.suspended.length ? `Trading is suspended: ${desk.suspended.join(", ")}` : money ? `Equity ${price(money.equity, 2)} · free ${price(money.available, 2)}` : "");
    this.positions.set(
      desk.positions.map((one) => ({
        texts: [one.symbol, this.lots(one.symbol, one.qty, true), this.at(one.symbol, one.entry), this.at(one.symbol, one.mark), signed(one.profit, 2)],
        tone: one.profit < 0 ? "down" : "up",
      })),
    );
    this.fills.set(
      desk.fills.map((one) => ({
        texts: [clock(Date.parse(one.at)), one.symbol, one.side, this.lots(one.symbol, one.qty), this.at(one.symbol, one.price), price(one.fee, 2)],
        tone: one.side === "Buy" ? "up" : "down",
      })),
    );
    const shown = JSON.stringify(desk.orders);
    if (shown !== this.shownOrders) this.paintOrders(desk.orders);
    this.shownOrders = shown;
    if (this.amending && !desk.orders.some(({ id }) => id === this.amending!.id)) this.amending = null;
    this.paintTicket();
  }

  private paintOrders(orders: readonly Order[]): void {
    const focused = (document.activeElement as HTMLElement | null)?.dataset["act"] ?? "";
    this.open.replaceChildren(...orders.map((order) => this.line(order)));
    this.openEmpty.hidden = orders.length > 0;
    if (focused) this.open.querySelector<HTMLElement>(`[data-act="${CSS.escape(focused)}"]`)?.focus();
  }

  private line(order: Order): HTMLElement {
    const name = `${order.side} ${this.lots(order.symbol, order.qty)} ${order.symbol}`;
    const change = attributes(button("act", "Change", () => this.amend(order)), { "aria-label": `Change ${name}`, "data-act": `change ${order.id}` });
    const cancel = attributes(button("act", "Cancel", () => void this.act(() => paper.send("DELETE", `orders/${encodeURIComponent(order.id)}`))), {
      "aria-label": `Cancel ${name}`, "data-act": `cancel ${order.id}`,
    }); // prettier-ignore
    const texts = [order.side, this.lots(order.symbol, order.qty), this.lots(order.symbol, order.filled), order.price === null ? order.kind : this.at(order.symbol, order.price)];
    const line = el("tr", "", attributes(el("th", "", order.symbol), { scope: "row" }), ...texts.map((one) => el("td", "", one)), el("td", "acts", change, cancel));
    line.dataset["tone"] = order.side === "Buy" ? "up" : "down";
    return line;
  }

  private amend(order: Order): void {
    if (order.symbol !== this.symbol) this.place.link.choose(order.symbol);
    this.kind.value = order.price === null ? "market" : "limit";
    this.take(order.side as Side);
    this.amending = order;
    this.size.value = this.lots(order.symbol, order.qty);
    this.price.value = order.price === null ? "" : this.at(order.symbol, order.price);
    this.paintTicket();
    this.price.focus();
  }

  private contract(symbol: string): Contract | undefined {
    return this.desk?.contracts.find((one) => one.symbol === symbol);
  }

  private decimals(symbol: string): { price: number; size: number } {
    const contract = this.contract(symbol);
    return { price: decimalsOf(Number(contract?.tick_size ?? 0.01)), size: decimalsOf(Number(contract?.lot_size ?? 1)) };
  }

  private lots(symbol: string, qty: number, sign = false): string {
    const size = qty * Number(this.contract(symbol)?.lot_size ?? 1);
    const { size: decimals } = this.decimals(symbol);
    return sign ? signed(size, decimals) : price(size, decimals);
  }

  private at(symbol: string, value: number): string {
    return price(value, Math.max(2, this.decimals(symbol).price));
  }
}

const STATES: Readonly<Record<string, string>> = { New: "open", PartiallyFilled: "partly filled", Filled: "filled", Canceled: "cancelled" };

function input(name: string): HTMLInputElement {
  return attributes(el("input"), { type: "text", inputmode: "decimal", autocomplete: "off", maxlength: "20", "aria-label": name }) as HTMLInputElement;
}

function label(title: string, field: HTMLElement): HTMLElement {
  return el("label", "", el("span", "", title), field);
}

export const orders: Kind = {
  name: "orders",
  title: "Paper orders",
  about: "Trade on the built-in exchange with play money: click a price in the ladder",
  tab: "depth",
  turn: 2,
  size: [15, 12],
  least: [12, 8],
  links: true,
  needs: "trade",
  fields: [{ name: "size", label: "Size to begin with", type: "text", about: "In the contract's own unit, like 0.010" }],
  make: (place) => new Orders(place),
};
