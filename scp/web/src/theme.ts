// Keeps the page's theme, the system's or the user's choice, and tells canvases, because they cannot read styles.

import { byId } from "./dom.ts";

type Listener = () => void;
const listeners: Listener[] = [];

/** Call `listener` after each change of the theme. */
export function onTheme(listener: Listener): void {
  listeners.push(listener);
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

function tell(): void {
  for (const listener of listeners) listener();
}
