// The face of wds/static/tapeline.js that the page uses; vite.config.ts says where "tapeline" lies.

declare module "tapeline" {
  export interface Info {
    type: "snap" | "upd" | "rows" | "event" | "lost" | "status";
    ch: string;
    ts: number;
    state: string;
    reason: string;
    changed?: Record<string, unknown>;
    event?: unknown;
    lost?: number;
    error?: { code: string; message?: string };
  }

  export interface State {
    state: "connecting" | "open" | "waiting" | "closed";
    code?: number;
    reason?: string;
    inMs?: number;
  }

  export class Tapeline {
    constructor(
      url: string,
      options: { token: () => Promise<string>; onState: (state: State) => void },
    );
    /** What the stream has announced. */
    readonly limits: { readonly subs: number };
    on(
      name: string,
      listener: (data: unknown, info: Info) => void,
      options: { hz?: number | "raw"; fields?: readonly string[] },
    ): () => void;
    get(names: readonly string[]): Promise<{ ch: string; ts: number; data?: unknown; error?: { code: string } }[]>;
    connect(): Promise<void>;
  }
}
