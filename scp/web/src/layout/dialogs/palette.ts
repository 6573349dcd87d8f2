// The command palette: everything that the page can do, and every symbol, by what is typed.
import "../../account/account.css";
import { attributes, el } from "../../dom.ts";

export interface Command {
  title: string;
  about: string;
  run: () => void;
}

const SHOWN_MAX = 12;

/** Show it. `symbols` finds symbols by what is typed; `choose` takes one. */
export function openPalette(commands: readonly Command[], symbols: (typed: string) => readonly string[], choose: (symbol: string) => void): void {
  const input = attributes(el("input"), {
    type: "search", role: "combobox", "aria-label": "Command or symbol", placeholder: "Command or symbol", "aria-expanded": "true",
    "aria-controls": "palette-list", "aria-autocomplete": "list", autocomplete: "off", spellcheck: "false",
  }) as HTMLInputElement; // prettier-ignore
  const list = attributes(el("ul"), { id: "palette-list", role: "listbox", "aria-label": "Commands" });
  const dialog = attributes(el("dialog", "palette", input, list), { "aria-label": "Commands" }) as HTMLDialogElement;
  let found: Command[] = [];
  let at = 0;
  const show = () => {
    list.replaceChildren(...found.map(({ title, about }, place) => {
      const item = attributes(el("li", "", el("span", "", title), el("small", "", about)), { id: `palette-${place}`, role: "option", "aria-selected": String(place === at) });
      item.addEventListener("click", () => take(place));
      return item;
    })); // prettier-ignore
    if (found.length === 0) list.append(attributes(el("li", "none", "Nothing is called so"), { role: "option", "aria-disabled": "true", "aria-selected": "false" }));
    if (found.length) input.setAttribute("aria-activedescendant", `palette-${at}`);
    else input.removeAttribute("aria-activedescendant");
    list.children[at]?.scrollIntoView({ block: "nearest" });
  };
  const search = () => {
    const typed = input.value.trim().toLowerCase();
    const words = typed.split(/\s+/);
    const fits = commands.filter(({ title, about }) => words.every((word) => `${title} ${about}`.toLowerCase().includes(word)));
    const named = symbols(typed).map((symbol) => ({ title: symbol, about: "Show this symbol", run: () => choose(symbol) }));
    found = [...fits, ...named].slice(0, SHOWN_MAX);
    at = 0;
    show();
  };
  const take = (place: number) => {
    const command = found[place];
    if (!command) return;
    dialog.close();
    command.run();
  };
  input.addEventListener("input", search);
  dialog.addEventListener("keydown", (event) => {
    event.stopPropagation(); // the desk's keys rest
    const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    if (step && found.length) {
      event.preventDefault();
      at = (at + step + found.length) % found.length;
      show();
    } else if (event.key === "Enter") {
      event.preventDefault();
      take(at);
    } else if (event.key === "k" && (event.ctrlKey || event.metaKey)) {
      event.preventDefault();
      dialog.close();
    }
  });
  dialog.addEventListener("click", (event) => event.target === dialog && dialog.close());
  dialog.addEventListener("close", () => dialog.remove());
  document.body.append(dialog);
  dialog.showModal();
  search();
}
