// Opens layouts, remembers which one a tab shows, and settles who is right when two windows changed the same one.

import type { Refusal } from "../api/ask.ts";
import type { Desk } from "./desk.ts";
import { BUILT_IN, type Layout } from "./document.ts";
import { Library, type Kept, type Summary } from "./library.ts";
import type { Notice } from "./notice.ts";
import { draftOf, dropDraft, Saver, type Saving } from "./saving.ts";

const SHOWN = "tapeline.layout"; // in the tab's own storage: a reload shows the same one
const RETRY_MS = 5000;

export class Shelf {
  readonly library = new Library();
  readonly saver: Saver;
  private readonly name: HTMLElement;

  constructor(
    private readonly desk: Desk,
    private readonly notice: Notice,
    private readonly button: HTMLElement,
  ) {
    this.name = button.querySelector("span")!;
    this.saver = new Saver(this.library, () => desk.layout, (state, words) => this.said(state, words));
  }

  /** Show the tab's layout, else the default one, else the desk that everybody begins with. */
  async start(): Promise<void> {
    try {
      const found = await this.library.list();
      const wanted = found.find(({ id }) => id === shown()) ?? found.find((one) => one.default) ?? found[0];
      if (wanted) await this.open(wanted.id);
      else this.begin();
    } catch (fault) {
      if (this.desk.mounted.size === 0) this.show(BUILT_IN);
      this.notice.show(`Your layouts cannot be loaded: ${wordsOf(fault)}`, { text: "Try again", act: () => this.start() });
      if ((fault as Refusal).status === 0 || (fault as Refusal).status >= 500) setTimeout(() => this.saver.state === "saved" && void this.start(), RETRY_MS);
    }
  }

  /** Show a layout of the server. Throws a Refusal, or an Error in words. */
  async open(id: string): Promise<void> {
    const kept = await this.library.read(id);
    const draft = draftOf(id);
    this.notice.show("");
    this.take(kept);
    if (!draft) return;
    if (draft.revision === kept.revision) {
      this.show(draft.layout);
      this.saver.touch(false);
    } else {
      const keep = async () => {
        const made = await this.library.make({ ...draft.layout, name: `${draft.layout.name.slice(0, 50)} (recovered)`, default: false });
        dropDraft();
        this.notice.show("");
        this.take(made);
      };
      const forget = () => (dropDraft(), this.notice.show(""));
      this.notice.show("Changes of this layout could not be saved when this page was closed, and it was changed elsewhere since.", { text: "Keep them as a copy", act: keep }, { text: "Forget them", act: forget });
    }
  }

  /** Show another layout once the present one is saved. */
  async change(to: () => Promise<void>): Promise<void> {
    if (!(await this.saver.flush())) throw new Error("The present layout is not saved yet. See the line at the foot of the page.");
    await to();
  }

  /** A layout that was just made, or read. */
  take({ id, revision, layout }: Kept): void {
    this.show(layout);
    this.saver.opened(id, revision);
    remember(id);
  }

  /** Keep `layout` as a new one and show it. */
  async make(layout: Layout): Promise<void> {
    this.take(await this.library.make(layout));
  }

  async remove(one: Summary): Promise<void> {
    if (one.id !== this.saver.id) return this.library.remove(one.id);
    await this.saver.flush();
    await this.library.remove(one.id);
    this.saver.opened("", 0);
    dropDraft();
    remember("");
    await this.start();
  }

  private begin(): void {
    const draft = draftOf("");
    this.show(draft?.layout ?? BUILT_IN);
    this.saver.opened("", 0);
    this.notice.show("");
    if (draft) this.saver.touch(false);
  }

  private show(layout: Layout): void {
    this.desk.open(layout);
    this.label();
  }

  label(): void {
    this.name.textContent = this.desk.layout.name;
  }

  private said(state: Saving, words: string): void {
    this.button.dataset["saving"] = state;
    this.button.title = words || (this.saver.id ? "Layouts: this one is saved by itself" : "Layouts");
    this.label();
    if (this.saver.id) remember(this.saver.id);
    if (state === "conflict") this.quarrel(words);
    else if (state === "waiting" || state === "refused") this.notice.show(words, ...(state === "waiting" ? [{ text: "Try now", act: () => this.saver.flush().then(() => {}) }] : []));
    else if (state === "saved") this.notice.show("");
  }

  private quarrel(words: string): void {
    const mine = `${this.desk.layout.name.slice(0, 50)} (mine)`;
    this.notice.show(
      words,
      { text: "Keep mine as a copy", act: () => this.saver.copy(mine).then(() => (this.desk.layout = { ...this.desk.layout, name: mine, default: false }, this.label())) },
      { text: "Show theirs", act: () => (dropDraft(), this.open(this.saver.id)) },
      { text: "Replace theirs", act: () => this.saver.overwrite() },
    );
  }
}

export function wordsOf(fault: unknown): string {
  return (fault as Refusal).detail ?? (fault as Error).message ?? String(fault);
}

function shown(): string {
  try {
    return sessionStorage.getItem(SHOWN) ?? "";
  } catch {
    return "";
  }
}

function remember(id: string): void {
  try {
    sessionStorage.setItem(SHOWN, id);
  } catch {
    // storage is forbidden: a reload shows the default one
  }
}
