// The account: opened by a button of the page's head, loaded when it is opened first.
import "./account.css";
import { el } from "../dom.ts";
import type { Refusal } from "../api/ask.ts";
import { Api } from "./api.ts";
import { audit, people, sessions, tokens, you, type Pane } from "./panes.ts";

const PANES: readonly { title: string; scope: string; pane: Pane }[] = [
  { title: "You", scope: "account", pane: you },
  { title: "Sessions", scope: "account", pane: sessions },
  { title: "Tokens", scope: "account", pane: tokens },
  { title: "People", scope: "people", pane: people },
  { title: "Audit", scope: "audit", pane: audit },
];

let open: HTMLDialogElement | null = null;

/** Show the account; a second call while it is open does nothing. */
export async function openAccount(): Promise<void> {
  if (open) return;
  const body = el("div", "pane");
  const tabs = el("div", "account-tabs");
  tabs.setAttribute("role", "tablist");
  const shut = el("button", "act", "Close") as HTMLButtonElement;
  const dialog = el("dialog", "account", el("header", "", el("h2", "", "Account"), tabs, shut), body) as HTMLDialogElement;
  dialog.setAttribute("aria-label", "Account");
  shut.addEventListener("click", () => dialog.close());
  dialog.addEventListener("close", () => {
    dialog.remove();
    open = null;
  });
  dialog.addEventListener("keydown", (event) => event.stopPropagation()); // the desk's single keys rest
  open = dialog;
  document.body.append(dialog);
  dialog.showModal();
  try {
    fill(await Api.open(), tabs, body);
  } catch (refusal) {
    const { status, detail } = refusal as Refusal;
    if (status === 401) location.replace("/sign-in");
    body.replaceChildren(el("p", "said", detail ?? String(refusal)));
  }
}

function fill(api: Api, tabs: HTMLElement, body: HTMLElement): void {
  const shown = PANES.filter(({ scope }) => api.may(scope));
  const buttons = shown.map(({ title, pane }, at) => {
    const made = el("button", "", title) as HTMLButtonElement;
    made.type = "button";
    made.setAttribute("role", "tab");
    made.addEventListener("click", () => show(pane, made));
    made.addEventListener("keydown", ({ key }) => {
      const step = key === "ArrowRight" ? 1 : key === "ArrowLeft" ? -1 : 0;
      if (step) buttons[(at + step + buttons.length) % buttons.length]!.focus();
    });
    return made;
  });
  const show = (pane: Pane, button: HTMLButtonElement) => {
    for (const one of buttons) {
      one.setAttribute("aria-selected", String(one === button));
      one.tabIndex = one === button ? 0 : -1;
    }
    pane(api, () => show(pane, button)).then(
      (parts) => body.replaceChildren(...parts),
      (refusal: Refusal) => body.replaceChildren(el("p", "said", refusal.detail ?? String(refusal))),
    );
  };
  tabs.replaceChildren(...buttons);
  if (api.may("inspect")) {
    const operate = el("a", "act", "Operate") as HTMLAnchorElement;
    operate.href = "/operate";
    tabs.after(operate);
  }
  const [first] = shown;
  if (first) show(first.pane, buttons[0]!);
}
