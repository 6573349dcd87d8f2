// The menu of one widget: its link, its settings, moving it by keyboard, a copy of it, taking it away.

import { attributes, button, el } from "../dom.ts";
import { join, roving } from "../roving.ts";
import type { Desk, Mounted } from "./desk.ts";
import { COLOURS } from "./links.ts";

export class Menu {
  private readonly element = attributes(el("div", "menu"), { popover: "auto", role: "menu", "aria-label": "Widget" });

  constructor(
    private readonly desk: Desk,
    private readonly does: { settings(mounted: Mounted): void; move(mounted: Mounted): void },
  ) {
    roving(this.element);
    this.element.addEventListener("keydown", (event) => event.stopPropagation()); // the desk's single keys rest
    document.body.append(this.element);
  }

  /** Show it below `from`. */
  open(mounted: Mounted, from: HTMLElement): void {
    const { kind, placed } = mounted;
    this.element.replaceChildren();
    if (kind?.links) this.element.append(this.links(mounted));
    if (kind && kind.fields.length > 0) this.item("Settings …", () => this.does.settings(mounted));
    if (this.desk.movable) this.item("Move or resize by keys", () => this.does.move(mounted));
    if (kind) this.item("Duplicate", () => this.desk.add(kind, placed.settings, placed.link));
    this.item("Remove", () => this.desk.remove(placed.id));
    this.element.showPopover();
    const box = from.getBoundingClientRect();
    this.element.style.left = `${Math.max(4, Math.min(box.right - this.element.offsetWidth, innerWidth - this.element.offsetWidth - 4))}px`;
    this.element.style.top = `${Math.min(box.bottom + 4, innerHeight - this.element.offsetHeight - 4)}px`;
    this.element.querySelector("button")?.focus();
  }

  private links({ placed }: Mounted): HTMLElement {
    const row = attributes(el("div", "menu-links"), { role: "group", "aria-label": "Linked by colour" });
    row.append(el("span", "", "Link"));
    for (const colour of [...COLOURS, ""] as const) {
      const made = attributes(button("link-dot", "", () => this.done(() => this.desk.relink(placed.id, colour))), {
        role: "menuitemradio", "aria-checked": String(colour === placed.link), "data-link": colour, "aria-label": colour || "not linked",
        title: colour || "not linked",
      }); // prettier-ignore
      join(this.element, made);
      row.append(made);
    }
    return row;
  }

  private item(text: string, act: () => void): void {
    const made = attributes(button("menu-item", text, () => this.done(act)), { role: "menuitem" });
    join(this.element, made);
    this.element.append(made);
  }

  private done(act: () => void): void {
    this.element.hidePopover();
    act();
  }
}
