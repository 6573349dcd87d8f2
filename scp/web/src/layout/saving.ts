// Saves the layout by itself, a moment after it was changed, and says when it cannot.
// Invariant: what was changed is shown, in a draft of this browser, or on the server; nobody's newer version is replaced unasked.

import type { Refusal } from "../api/ask.ts";
import { contentOf, bodyOf, type Layout } from "./document.ts";
import type { Kept, Library } from "./library.ts";

const REST_MS = 700;
const RETRY_MS = { first: 1000, most: 30_000 };
const DRAFT = "tapeline.layout.draft";

/** `waiting`: it will be tried again. `conflict`: somebody must choose. `refused`: it cannot be kept as it is. */
export type Saving = "saved" | "changed" | "saving" | "waiting" | "conflict" | "refused";

export class Saver {
  id = ""; // "" = nothing is kept yet: the desk that everybody begins with
  revision = 0;
  state: Saving = "saved";
  private dirty: "" | "slight" | "real" = "";
  private running: Promise<void> | null = null;
  private timer: ReturnType<typeof setTimeout> | undefined;
  private waitMs = RETRY_MS.first;

  constructor(
    private readonly library: Library,
    private readonly current: () => Layout,
    private readonly tell: (state: Saving, words: string) => void,
  ) {
    addEventListener("online", () => this.state === "waiting" && this.soon(0));
    document.addEventListener("visibilitychange", () => document.hidden && this.dirty && this.soon(0));
  }

  /** This layout is shown now; what it was is kept. */
  opened(id: string, revision: number): void {
    clearTimeout(this.timer);
    [this.id, this.revision, this.dirty] = [id, revision, ""];
    this.waitMs = RETRY_MS.first;
    this.say("saved", "");
  }

  /** It was changed. `slight`: a switch in a widget, which makes no layout of its own and is no reason for a quarrel. */
  touch(slight: boolean): void {
    if (slight && !this.id && !this.dirty) return;
    this.dirty = slight && this.dirty !== "real" ? "slight" : "real";
    writeDraft(this.id, this.revision, this.current());
    if (this.state === "conflict") return;
    if (this.state !== "waiting") this.say("changed", "");
    this.soon(this.state === "waiting" ? this.waitMs : REST_MS);
  }

  /** Save at once what is not saved yet; returns whether everything is kept now. */
  async flush(): Promise<boolean> {
    clearTimeout(this.timer);
    await this.running;
    if (this.dirty && this.state !== "conflict") await this.run();
    return !this.dirty;
  }

  /** Somebody chose: replace what is kept by what is shown. */
  async overwrite(): Promise<void> {
    this.revision = (await this.library.read(this.id)).revision;
    this.state = "changed";
    this.dirty = "real";
    await this.run();
  }

  /** Somebody chose: keep what is shown as a layout of its own. */
  async copy(name: string): Promise<void> {
    const kept = await this.library.make({ ...this.current(), name, default: false });
    this.opened(kept.id, kept.revision);
    dropDraft();
  }

  private soon(ms: number): void {
    clearTimeout(this.timer);
    this.timer = setTimeout(() => void this.run(), ms);
  }

  private async run(): Promise<void> {
    if (this.running || !this.dirty) return;
    this.running = this.save();
    await this.running;
    this.running = null;
    if (this.dirty && this.state === "changed") this.soon(REST_MS);
  }

  private async save(): Promise<void> {
    const was = this.dirty;
    const { id, revision } = this;
    this.dirty = "";
    this.say("saving", "");
    try {
      const kept = id ? await this.library.save(id, revision, this.current()) : await this.library.make(this.current());
      if (this.id !== id) return; // another layout was opened meanwhile
      this.kept(kept);
    } catch (refusal) {
      if (this.id !== id) return;
      const since = this.dirty as typeof was; // it may have been touched meanwhile
      this.dirty = since === "real" ? "real" : was;
      this.failed(refusal as Refusal);
    }
  }

  private kept({ id, revision }: Kept): void {
    [this.id, this.revision] = [id, revision];
    this.waitMs = RETRY_MS.first;
    if (!this.dirty) dropDraft();
    this.say(this.dirty ? "changed" : "saved", "");
  }

  private failed({ status, detail }: Refusal): void {
    if (status === 401) location.replace("/sign-in"); // the draft is there when somebody is signed in again
    else if (status === 412 && this.dirty === "slight") {
      this.dirty = "";
      dropDraft();
      this.say("saved", "");
    } else if (status === 412) this.say("conflict", "This layout was changed in another window. Yours is not saved yet.");
    else if (status === 404) {
      this.id = ""; // removed elsewhere: kept as a new one
      this.say("changed", "");
    } else if (status === 0 || status >= 500 || status === 429) {
      this.say("waiting", `Not saved yet: ${detail} It is tried again by itself.`);
      this.soon(this.waitMs);
      this.waitMs = Math.min(this.waitMs * 2, RETRY_MS.most);
    } else this.say("refused", `This layout cannot be saved: ${detail ?? String(status)}`);
  }

  private say(state: Saving, words: string): void {
    this.state = state;
    this.tell(state, words);
  }
}

export interface Draft {
  id: string;
  revision: number;
  layout: Layout;
}

/** What could not be saved when the page was left; null when there is nothing, or nothing that can be read. */
export function draftOf(id: string): Draft | null {
  try {
    const raw = JSON.parse(store(id).getItem(DRAFT) ?? "null") as { id: string; revision: number; layout: Layout & { content: unknown } } | null;
    if (!raw || raw.id !== id) return null;
    const { name, about, default: first, locked, content } = raw.layout;
    return { id, revision: raw.revision, layout: { name, about, default: first, locked, ...contentOf(content) } };
  } catch {
    return null; // storage is forbidden, or holds something else
  }
}

export function dropDraft(): void {
  try {
    localStorage.removeItem(DRAFT);
    sessionStorage.removeItem(DRAFT);
  } catch {
    // storage is forbidden: there was no draft
  }
}

function writeDraft(id: string, revision: number, layout: Layout): void {
  try {
    store(id).setItem(DRAFT, JSON.stringify({ id, revision, layout: bodyOf(layout) }));
  } catch {
    // storage is forbidden or full: it is kept only while the page is open
  }
}

/** A layout that has no id yet is nobody's: its draft must not outlive the tab, where somebody else may sign in. */
function store(id: string): Storage {
  return id ? localStorage : sessionStorage;
}
