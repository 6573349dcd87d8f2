// Keeps the page's theme, the system's or the user's choice, and tells canvases, because they cannot read styles.

import { byId } from "../dom.ts";

type Listener = () => void;
const listeners: Listener[] = [];

/** Call `listener` after each change of the colours; returns the function that ends it. */
export function onTheme(listener: Listener): () => void {
  listeners.push(listener);
  return () => void listeners.splice(listeners.indexOf(listener), 1);
}

/** The value of a custom property of the page, such as "--up". */
export function colour(name: string): string {
  return getComputedStyle(document.documentElement).getPropertyValue(name).trim();
}

/** Wire the button and follow the system until somebody chooses. */
export function startTheme(): void {
  byId("theme").addEventListener("click", switchTheme);
  matchMedia("(prefers-color-scheme: light)").addEventListener("change", tell);
}

/** Switch between dark and light and remember it. */
export function switchTheme(): void {
  const root = document.documentElement;
  const light = (root.dataset["theme"] ?? (matchMedia("(prefers-color-scheme: light)").matches ? "light" : "dark")) === "light";
  root.dataset["theme"] = light ? "dark" : "light";
  try {
    localStorage.setItem("tapeline.theme", root.dataset["theme"]);
  } catch {
    // storage is forbidden: the choice lasts as long as the page
  }
  tell();
}

/** Whether gains and losses are blue and orange instead of green and red. */
export function blindPalette(): boolean {
  return document.documentElement.dataset["palette"] === "blind";
}

/** Switch between green and red, and blue and orange, which everybody can tell apart; and remember it. */
export function switchPalette(): void {
  const root = document.documentElement;
  if (blindPalette()) delete root.dataset["palette"];
  else root.dataset["palette"] = "blind";
  try {
    localStorage.setItem("tapeline.palette", root.dataset["palette"] ?? "");
  } catch {
    // storage is forbidden: the choice lasts as long as the page
  }
  tell();
}

function tell(): void {
  for (const listener of listeners) listener();
}
