// Asks the control plane for one's layouts, and keeps them there. Shapes are those of /openapi.json.

import { send } from "../api/ask.ts";
import { bodyOf, contentOf, type Layout } from "./document.ts";

export interface Summary {
  id: string;
  name: string;
  about: string;
  default: boolean;
  locked: boolean;
  revision: number;
  changed_ms: number;
}

export interface Kept {
  id: string;
  revision: number;
  layout: Layout;
}

const PATH = "/api/v1/layouts";

export class Library {
  private csrf = "";

  async list(): Promise<Summary[]> {
    return (await send("GET", PATH)) as Summary[];
  }

  /** Throws a Refusal, or an Error in words when this page cannot read the layout. */
  async read(id: string): Promise<Kept> {
    return keptOf((await send("GET", `${PATH}/${encodeURIComponent(id)}`)) as Summary & { content: unknown });
  }

  async make(layout: Layout): Promise<Kept> {
    return this.change("POST", PATH, layout);
  }

  /** Throws a Refusal: 412 when it was changed elsewhere since `revision`. */
  async save(id: string, revision: number, layout: Layout): Promise<Kept> {
    return this.change("PUT", `${PATH}/${encodeURIComponent(id)}`, layout, { "If-Match": `"${revision}"` });
  }

  async remove(id: string): Promise<void> {
    await send("DELETE", `${PATH}/${encodeURIComponent(id)}`, undefined, await this.word());
  }

  private async change(method: string, path: string, layout: Layout, headers: Record<string, string> = {}): Promise<Kept> {
    const body = bodyOf(layout);
    try {
      return keptOf((await send(method, path, body, await this.word(), headers)) as Summary & { content: unknown });
    } catch (refusal) {
      if ((refusal as { code?: string }).code !== "csrf") throw refusal;
      this.csrf = ""; // the session has another secret now: its word is asked for anew
      return keptOf((await send(method, path, body, await this.word(), headers)) as Summary & { content: unknown });
    }
  }

  private async word(): Promise<string> {
    this.csrf ||= ((await send("GET", "/api/v1/me")) as { csrf: string }).csrf;
    return this.csrf;
  }
}

function keptOf({ id, revision, name, about, default: first, locked, content }: Summary & { content: unknown }): Kept {
  return { id, revision, layout: { name, about, default: first, locked, ...contentOf(content) } };
}
