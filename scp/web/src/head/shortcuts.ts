// Listens for single keys, and can be told not to: somebody who dictates, or whose hand trembles, presses them unasked.

import { byId } from "../dom.ts";

const STORED = "tapeline.shortcuts";

export class Shortcuts {
  private readonly button = byId<HTMLButtonElement>("shortcuts");
  private on = remembered();

  constructor(private readonly actions: Readonly<Record<string, () => void>>) {
    this.button.addEventListener("click", () => this.turn());
    this.say();
    document.addEventListener("keydown", (event) => this.onKey(event));
  }

  private onKey(event: KeyboardEvent): void {
    if (!this.on || event.ctrlKey || event.metaKey || event.altKey || event.target instanceof HTMLInputElement) return;
    const action = this.actions[event.key.toLowerCase()];
    if (!action) return;
    event.preventDefault();
    action();
  }

  private turn(): void {
    this.on = !this.on;
    try {
      localStorage.setItem(STORED, this.on ? "on" : "off");
    } catch {
      // storage is forbidden: the choice lasts as long as the page
    }
    this.say();
  }

  private say(): void {
    this.button.setAttribute("aria-pressed", String(this.on));
    document.body.toggleAttribute("data-no-shortcuts", !this.on);
  }
}

function remembered(): boolean {
  try {
    return localStorage.getItem(STORED) !== "off";
  } catch {
    return true;
  }
}
