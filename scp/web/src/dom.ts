// Small building blocks for elements: no framework, no markup strings (the security policy forbids them).

/** Return a new element with `className` and children. */
export function el(tag: string, className = "", ...children: (Node | string)[]): HTMLElement {
  const made = document.createElement(tag);
  if (className) made.className = className;
  made.append(...children);
  return made;
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
