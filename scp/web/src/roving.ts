// Makes a group of buttons one stop of the Tab key: arrows, Home and End move within it (the WAI-ARIA roving tabindex).

const STEPS: Readonly<Record<string, number>> = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1, Home: -Infinity, End: Infinity };
const SIDEWAYS = /Left|Right|Home|End/;

/** Let the arrows move through the buttons in `root`; `sideways`: up and down mean something else there. */
export function roving(root: HTMLElement, sideways = false): void {
  root.addEventListener("keydown", (event) => {
    const step = STEPS[event.key];
    if (step === undefined || (sideways && !SIDEWAYS.test(event.key)) || event.ctrlKey || event.metaKey || event.altKey) return;
    const all = shown(root);
    const at = all.indexOf(document.activeElement as HTMLElement);
    if (at < 0) return;
    event.preventDefault();
    event.stopPropagation();
    all[Math.min(Math.max(at + step, 0), all.length - 1)]!.focus();
  });
  root.addEventListener("focusin", (event) => stop(root, event.target as HTMLElement));
}

/** The same for a radio group, where the focused button is the chosen one. */
export function radios(root: HTMLElement): void {
  roving(root);
  const checked = () => [...root.querySelectorAll<HTMLElement>("button")].find((button) => button.getAttribute("aria-checked") === "true")!;
  for (const button of root.querySelectorAll<HTMLElement>("button")) button.tabIndex = button === checked() ? 0 : -1;
  root.addEventListener("keydown", (event) => {
    if (event.key in STEPS) (document.activeElement as HTMLElement).click();
  });
  root.addEventListener("click", () => stop(root, checked()));
}

/** A new button of a group: it is the group's stop when it is the first. */
export function join(root: HTMLElement, button: HTMLElement): void {
  button.tabIndex = root.querySelector("button[tabindex='0']") ? -1 : 0;
}

function stop(root: HTMLElement, button: HTMLElement): void {
  for (const other of root.querySelectorAll<HTMLElement>("button[tabindex='0']")) other.tabIndex = -1;
  if (button.tagName === "BUTTON") button.tabIndex = 0;
}

function shown(root: HTMLElement): HTMLElement[] {
  return [...root.querySelectorAll<HTMLElement>("button")].filter((button) => !button.closest("[hidden]"));
}
