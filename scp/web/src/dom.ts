// Small building blocks for elements: no framework, no markup strings (the security policy forbids them).

/** Return a new element with `className` and children. */
export function el(tag: string, className = "", ...children: (Node | string)[]): HTMLElement {
  const made = document.createElement(tag);
  if (className) made.className = className;
  made.append(...children);
  return made;
}

/** Set attributes of an element and return it. */
export function attributes<T extends Element>(element: T, given: Readonly<Record<string, string>>): T {
  for (const [name, value] of Object.entries(given)) element.setAttribute(name, value);
  return element;
}

/** Return a new button that does `act`. */
export function button(className: string, text: string, act?: (event: MouseEvent) => void): HTMLButtonElement {
  const made = el("button", className, ...(text ? [text] : [])) as HTMLButtonElement;
  made.type = "button";
  if (act) made.addEventListener("click", act);
  return made;
}

const taken = new Set<string>();

/** Gives the elements of one widget their ids: the plain word to the first widget that asks for it, a numbered one to the others. */
export class Ids {
  private readonly own: string[] = [];

  of(word: string): string {
    let id = word;
    for (let n = 2; taken.has(id); n++) id = `${word}-${n}`;
    taken.add(id);
    this.own.push(id);
    return id;
  }

  /** Give `element` an id and return it. */
  name<T extends HTMLElement>(word: string, element: T): T {
    element.id = this.of(word);
    return element;
  }

  release(): void {
    for (const id of this.own.splice(0)) taken.delete(id);
  }
}

/** Return the element with this id; a missing one is a mistake in index.html. */
export function byId<T extends HTMLElement = HTMLElement>(id: string): T {
  const found = document.getElementById(id);
  if (!found) throw new Error(`no element #${id}`);
  return found as T;
}

/** Say how fresh the data of `element` are: the style sheet labels and greys out what is not live. Costs nothing when it is known. */
export function showState(element: HTMLElement, state: string, reason: string): void {
  if ((element.dataset["state"] ?? "live") !== state) element.dataset["state"] = state;
  const why = state === "live" ? "" : reason;
  if (element.title !== why) element.title = why;
}

/**
 * A text that is written only when it changed: a write costs layout and paint, a comparison nothing. What changes is the data of
 * one text node: a new node for each write would be styled, laid out and collected anew.
 */
export class Text {
  private shown: string;
  private readonly node: CharacterData;

  constructor(readonly element: HTMLElement) {
    this.shown = element.textContent ?? "";
    this.node = document.createTextNode(this.shown);
    element.replaceChildren(this.node);
  }

  set(text: string): void {
    if (text === this.shown) return;
    this.shown = text;
    this.node.data = text;
  }
}
