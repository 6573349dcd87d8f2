// Shows one part of the desk at a time on a phone. On a wider screen all parts stand side by side, and the tabs are not there.

import { byId } from "../dom.ts";
import { roving } from "../roving.ts";

import type { Tab } from "../widgets/widget.ts";

export class Tabs {
  private readonly root = byId("tabs");
  private readonly buttons = [...this.root.querySelectorAll<HTMLButtonElement>("[data-tab]")];

  constructor() {
    roving(this.root);
    for (const button of this.buttons) button.addEventListener("click", () => this.show(button.dataset["tab"] as Tab));
    this.show("quotes");
  }

  /** Only these have anything to show. */
  offer(tabs: ReadonlySet<Tab>): void {
    for (const button of this.buttons) button.hidden = !tabs.has(button.dataset["tab"] as Tab);
    const shown = document.body.dataset["tab"] as Tab;
    const [first] = tabs;
    if (first && !tabs.has(shown)) this.show(first);
  }

  show(tab: Tab): void {
    document.body.dataset["tab"] = tab;
    for (const button of this.buttons) {
      const current = button.dataset["tab"] === tab;
      button.tabIndex = current ? 0 : -1;
      if (current) button.setAttribute("aria-current", "true");
      else button.removeAttribute("aria-current");
    }
  }
}
