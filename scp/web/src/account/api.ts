// What the account's panes ask the control plane for. Shapes are those of /openapi.json.
import { send } from "../api/ask.ts";

export interface Me {
  username: string;
  role: string;
  scopes: string[];
  second_factor: boolean;
  csrf: string;
}

export interface SessionShown {
  id: string;
  created_ms: number;
  seen_ms: number;
  address: string;
  agent: string;
  this: boolean;
}

export interface TokenShown {
  id: string;
  name: string;
  scopes: string[];
  ends_ms: number;
  used_ms: number | null;
}

export interface User {
  id: number;
  username: string;
  email: string;
  role: string;
  disabled: boolean;
  invited: boolean;
  second_factor: boolean;
}

/** What became of the paper account of somebody who may not trade any more. */
export interface PaperLeft {
  canceled: number;
  open_orders: number;
  positions: number;
  problem: string;
}

export interface Entry {
  id: number;
  at_ms: number;
  who: string;
  action: string;
  target: string;
  detail: Record<string, unknown>;
  address: string;
}

/** The API with the word that proves that this page asks; it is asked for anew when the session's secret has changed. */
export class Api {
  constructor(public me: Me) {}

  static async open(): Promise<Api> {
    return new Api((await send("GET", "/api/v1/me")) as Me);
  }

  async get<T>(path: string): Promise<T> {
    return (await send("GET", `/api/v1/${path}`)) as T;
  }

  async change<T = null>(method: string, path: string, body?: unknown, headers: Record<string, string> = {}): Promise<T> {
    return (await send(method, `/api/v1/${path}`, body, this.me.csrf, headers)) as T;
  }

  async again(): Promise<void> {
    this.me = (await send("GET", "/api/v1/me")) as Me;
  }

  may(scope: string): boolean {
    return this.me.scopes.includes(scope);
  }
}
