// Shows one line at the foot of the page, with what can be done about it; and tells what happened to whoever does not see it.

import { attributes, button, el } from "../dom.ts";

export interface Choice {
  text: string;
  act: () => void | Promise<void>;
}

export class Notice {
  private readonly words = el("span");
  private readonly choices = el("span", "choices");
  private readonly element = attributes(el("div", "notice", this.words, this.choices), { role: "alert", hidden: "" });
  private readonly spoken = attributes(el("div", "spoken"), { "aria-live": "polite" });

  constructor() {
    document.body.append(this.element, this.spoken);
  }

  /** Show `words`; "" takes the notice away. */
  show(words: string, ...choices: readonly Choice[]): void {
    if (this.words.textContent === words && !this.element.hidden) return;
    this.words.textContent = words;
    this.choices.replaceChildren(...choices.map(({ text, act }) => button("choice", text, () => void this.run(act))));
    this.element.hidden = words === "";
  }

  /** Say it to screen readers only. */
  say(text: string): void {
    this.spoken.textContent = text;
  }

  private async run(act: Choice["act"]): Promise<void> {
    try {
      await act();
    } catch (refusal) {
      this.show((refusal as { detail?: string }).detail ?? (refusal as Error).message, { text: "Close", act: () => this.show("") });
    }
  }
}
