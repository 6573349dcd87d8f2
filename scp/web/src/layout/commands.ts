// Lists what the command palette offers: about the page, its layouts, and each widget on it.

import { offered } from "../widgets/registry.ts";
import type { Command } from "./dialogs/palette.ts";
import type { Desk } from "./desk.ts";
import { wordsOf, type Shelf } from "./shelf.ts";

export interface Does {
  layouts(): void;
  widgets(): void;
  account(): void;
  theme(): void;
  palette(): void;
  settings(id: string): void;
  move(id: string): void;
}

/** All commands; those of the widget that has the focus come first. */
export function commandsOf(desk: Desk, shelf: Shelf, focused: string, does: Does): Command[] {
  const { locked } = desk.layout;
  const mounted = [...desk.mounted.values()].sort((a, b) => Number(b.placed.id === focused) - Number(a.placed.id === focused));
  const widgets = mounted.flatMap(({ placed, kind, widget }) => {
    const name = widget.element.querySelector("h2")?.textContent || (kind?.title ?? placed.kind);
    const about = kind?.title ?? "Widget";
    const found: Command[] = [];
    if (kind?.fields.length) found.push({ title: `Settings of ${name}`, about, run: () => does.settings(placed.id) });
    if (desk.movable) found.push({ title: `Move or resize ${name}`, about, run: () => does.move(placed.id) });
    found.push({ title: `Remove ${name}`, about, run: () => desk.remove(placed.id) });
    return found;
  });
  const general: Command[] = [
    { title: "Layouts …", about: "Open, rename, copy, export, import", run: does.layouts },
    { title: "Add a widget …", about: "All kinds", run: does.widgets },
    { title: locked ? "Unlock this layout" : "Lock this layout", about: desk.layout.name, run: () => desk.rename({ locked: !locked }) },
    { title: "Save now", about: desk.layout.name, run: () => void shelf.saver.flush().catch(wordsOf) },
    { title: "Dark or light", about: "Colours", run: does.theme },
    { title: "Blue and orange for gains and losses", about: "Colours that everybody can tell apart; again for green and red", run: does.palette },
    { title: "Account …", about: "Password, sessions, tokens, sign out", run: does.account },
  ];
  const adding = offered().map((kind) => ({ title: `Add ${kind.title.toLowerCase()}`, about: kind.about, run: () => void desk.add(kind) }));
  return focused ? [...widgets.slice(0, 3), ...general, ...adding, ...widgets.slice(3)] : [...general, ...adding, ...widgets];
}
