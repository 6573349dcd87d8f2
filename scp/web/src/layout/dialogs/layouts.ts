// The dialog of layouts: the present one's name and lock, all of them, new ones, files; and widgets to add.
import { action, form, table, when } from "../../account/forms.ts";
import { attributes, button, el } from "../../dom.ts";
import { offered } from "../../widgets/registry.ts";
import type { Desk } from "../desk.ts";
import { BUILT_IN, FILE_BYTES_MAX, fileOf, layoutOf, WIDGETS_MAX, type Layout } from "../document.ts";
import type { Summary } from "../library.ts";
import { wordsOf, type Shelf } from "../shelf.ts";
import { sheet } from "./sheet.ts";

const said = () => attributes(el("p", "said"), { role: "alert" });

export async function openLayouts(desk: Desk, shelf: Shelf): Promise<void> {
  const list = el("div", "layout-list", el("p", "", "Loading …"));
  const below = said();
  const dialog = sheet("Layouts", present(desk, () => void fill()), el("h3", "", "All layouts"), list, below, ...others(desk, shelf, below, () => dialog.close()));
  const fill = async () => {
    try {
      await shelf.saver.flush();
      list.replaceChildren(layouts(await shelf.library.list(), shelf, below, fill, () => dialog.close()));
    } catch (fault) {
      list.replaceChildren(el("p", "said", wordsOf(fault)));
    }
  };
  await fill();
}

/** The dialog of widgets: a button for each kind. */
export function openWidgets(desk: Desk): void {
  const below = said();
  const kinds = offered().map((kind) => {
    const add = button("widget-kind", "", () => {
      if (desk.add(kind)) dialog.close();
      else below.textContent = `A layout has ${WIDGETS_MAX} widgets at most; remove one first.`;
    });
    add.append(el("b", "", kind.title), el("small", "", kind.about));
    return add;
  });
  const dialog = sheet("Add a widget", el("div", "widget-kinds", ...kinds), below);
}

function present(desk: Desk, again: () => void): HTMLElement {
  const { name, about, locked } = desk.layout;
  const made = form(
    [{ name: "name", label: "Name", value: name }, { name: "about", label: "What it is for", value: about, optional: true }],
    "Rename",
    async (typed) => {
      const to = (typed["name"] ?? "").trim();
      if (!to || to.length > 64) throw new Error("A name has 1 to 64 characters.");
      desk.rename({ name: to, about: (typed["about"] ?? "").trim().slice(0, 400) });
      again();
    },
  );
  const lock = attributes(el("input"), { type: "checkbox" }) as HTMLInputElement;
  lock.checked = locked;
  lock.addEventListener("change", () => desk.rename({ locked: lock.checked }));
  return el("div", "", made, el("label", "check", lock, "Locked: its widgets cannot be moved or resized"));
}

function layouts(found: readonly Summary[], shelf: Shelf, below: HTMLElement, again: () => Promise<void>, close: () => void): HTMLElement {
  const rows = found.map((one) => {
    const here = one.id === shelf.saver.id;
    const open = action("Open", async () => (await shelf.change(() => shelf.open(one.id)), close()), below);
    open.setAttribute("aria-label", `Open ${one.name}`);
    const first = action("Make it the default", () => makeDefault(shelf, one, again), below);
    const gone = action("Remove", async () => (await shelf.remove(one), await again()), below, "Really remove?");
    return [one.name, one.about, when(one.changed_ms), el("span", "acts", here ? el("span", "fact", "shown") : open, one.default ? el("span", "fact", "default") : first, gone)];
  });
  return table(["Name", "For", "Changed", ""], rows, "None is kept yet: the first change of your desk makes one.");
}

async function makeDefault(shelf: Shelf, one: Summary, again: () => Promise<void>): Promise<void> {
  const kept = await shelf.library.read(one.id);
  const saved = await shelf.library.save(one.id, kept.revision, { ...kept.layout, default: true });
  if (one.id === shelf.saver.id) shelf.take(saved);
  await again();
}

function others(desk: Desk, shelf: Shelf, below: HTMLElement, close: () => void): HTMLElement[] {
  const make = (layout: Layout) => shelf.change(() => shelf.make({ ...layout, default: false })).then(close);
  const copy = () => ({ ...desk.layout, name: `${desk.layout.name.slice(0, 56)} (copy)` });
  const file = attributes(el("input"), { type: "file", accept: ".json,application/json", "aria-label": "A layout's file" }) as HTMLInputElement;
  file.addEventListener("change", () => {
    const [given] = file.files ?? [];
    file.value = "";
    if (given) read(given).then(make).catch((fault: unknown) => (below.textContent = wordsOf(fault)));
  });
  return [
    el("h3", "", "A new one"),
    el("p", "acts",
      action("Copy of this one", () => make(copy()), below),
      action("Like the first desk", () => make({ ...BUILT_IN, name: "Desk" }), below),
      action("Empty", () => make({ ...BUILT_IN, name: "New layout", widgets: [] }), below),
    ),
    el("h3", "", "As a file"),
    el("p", "acts", action("Export this one", async () => save(desk.layout), below), el("label", "act file", "Import …", file)),
  ]; // prettier-ignore
}

async function read(file: File): Promise<Layout> {
  if (file.size > FILE_BYTES_MAX) throw new Error(`This file is too large to be a layout: ${FILE_BYTES_MAX / 1000} kB at most.`);
  return layoutOf(await file.text());
}

function save(layout: Layout): void {
  const address = URL.createObjectURL(new Blob([fileOf(layout)], { type: "application/json" }));
  const link = attributes(el("a"), { href: address, download: `${layout.name.replace(/[^\p{L}\p{N} _-]/gu, "").trim() || "layout"}.tapeline.json` });
  link.click();
  setTimeout(() => URL.revokeObjectURL(address), 10_000);
}
