// A dialog over the desk: a title, a way to close it, and what it holds.
import "../../account/account.css";
import { attributes, button, el } from "../../dom.ts";

/** Show a dialog with `parts`. The desk's single keys rest while it is open. */
export function sheet(title: string, ...parts: readonly Node[]): HTMLDialogElement {
  const heading = el("h2", "", title);
  const close = button("act", "Close", () => dialog.close());
  const space = el("span", "account-tabs");
  const dialog = el("dialog", "account", el("header", "", heading, space, close), el("div", "pane", ...parts)) as HTMLDialogElement;
  attributes(dialog, { "aria-label": title });
  dialog.addEventListener("close", () => dialog.remove());
  dialog.addEventListener("keydown", (event) => event.stopPropagation());
  dialog.addEventListener("click", (event) => event.target === dialog && dialog.close()); // beside it
  document.body.append(dialog);
  dialog.showModal();
  dialog.querySelector<HTMLElement>(".pane :is(input, textarea, select, button)")?.focus();
  return dialog;
}
