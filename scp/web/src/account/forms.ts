// Parts of the account's panes: fields, buttons that rest while they work, rows of lists. No markup strings.
import { el } from "../dom.ts";
import type { Refusal } from "../api/ask.ts";

export interface Field {
  name: string;
  label: string;
  type?: string;
  autocomplete?: string;
  value?: string;
  options?: readonly string[];
  optional?: boolean;
}

/** A form of `fields` that calls `send` with what was typed; what it refuses is said below it. */
export function form(fields: readonly Field[], button: string, send: (given: Record<string, string>) => Promise<void>): HTMLElement {
  const said = el("p", "said");
  said.setAttribute("role", "alert");
  const go = el("button", "go", button) as HTMLButtonElement;
  const made = el("form", "", ...fields.map(input), go, said) as HTMLFormElement;
  made.addEventListener("submit", (event) => {
    event.preventDefault();
    const given = Object.fromEntries([...new FormData(made)].map(([name, value]) => [name, String(value)]));
    void resting(go, said, () => send(given));
  });
  return made;
}

/** A button that works: it rests meanwhile; `sure` is what it says once more before it does anything. */
export function action(text: string, act: () => Promise<void>, said: HTMLElement, sure = ""): HTMLButtonElement {
  const made = el("button", "act", text) as HTMLButtonElement;
  made.type = "button";
  let asked = !sure;
  made.addEventListener("click", () => {
    if (!asked) {
      made.textContent = sure;
      asked = true;
      setTimeout(() => ((made.textContent = text), (asked = false)), 4000);
      return;
    }
    void resting(made, said, act);
  });
  return made;
}

async function resting(button: HTMLButtonElement, said: HTMLElement, act: () => Promise<void>): Promise<void> {
  button.disabled = true;
  said.textContent = "";
  try {
    await act();
  } catch (refusal) {
    said.textContent = (refusal as Refusal).detail ?? String(refusal);
  } finally {
    button.disabled = false;
  }
}

function input(field: Field): HTMLElement {
  let made: HTMLInputElement | HTMLSelectElement;
  if (field.options) {
    made = el("select") as HTMLSelectElement;
    for (const option of field.options) made.append(new Option(option));
    if (field.value) made.value = field.value;
  } else {
    made = el("input") as HTMLInputElement;
    made.type = field.type ?? "text";
    made.value = field.value ?? "";
    made.required = !field.optional;
    made.autocomplete = (field.autocomplete ?? "off") as AutoFill;
    made.spellcheck = false;
  }
  made.name = field.name;
  return el("label", "", field.label, made);
}

/** A table of texts and buttons; on a narrow screen it scrolls by itself. */
export function table(heads: readonly string[], rows: readonly (readonly (string | Node)[])[], empty: string): HTMLElement {
  if (!rows.length) return el("p", "empty", empty);
  const cells = (tag: string, texts: readonly (string | Node)[]) => el("tr", "", ...texts.map((text) => el(tag, "", text)));
  const made = el("table", "", el("thead", "", cells("th", heads)), el("tbody", "", ...rows.map((row) => cells("td", row))));
  const box = el("div", "table", made);
  box.tabIndex = 0;
  box.setAttribute("role", "region");
  box.setAttribute("aria-label", heads.filter(Boolean).join(", "));
  return box;
}

/** A secret that is shown this once, to be copied. */
export function once(title: string, text: string): HTMLElement {
  const area = el("textarea") as HTMLTextAreaElement;
  area.readOnly = true;
  area.rows = Math.min(10, text.split("\n").length);
  area.value = text;
  area.setAttribute("aria-label", title);
  area.addEventListener("focus", () => area.select());
  return el("div", "once", el("strong", "", title), area, el("small", "", "It is shown this once. Keep it where nobody else reads it."));
}

export const when = (ms: number | null): string => (ms ? new Date(ms).toLocaleString([], { dateStyle: "medium", timeStyle: "short" }) : "never");
