// What an operators' page is: elements that stay, and how they are brought up to date.
import type { Api } from "../account/api.ts";

export interface Page {
  nodes: Node[];
  /** Ask for what is shown and show it; called every two seconds while the page is seen, and after each change. */
  update: () => Promise<void>;
}

export type Open = (api: Api, again: () => void) => Page;

/** What a change destroys is made once, however often the request is sent. */
export const once = (): Record<string, string> => ({ "Idempotency-Key": crypto.randomUUID() });
