// Asks the control plane for what only it knows of the vendor: older bars, companies.

import { send, type Refusal } from "../api/ask.ts";
import { clock } from "../format.ts";
import type { OlderBars } from "./history.ts";

const AGAIN_MS = 10_000;
const LIMIT = 500;
const STOCK = /^[A-Z][A-Za-z0-9.]{0,15}$/; // as the control plane has it
const OPTION = /^O:[A-Z0-9]{1,40}$/;
let there = false;

/** The session said whether operators have set the vendor's service up: without it nothing is asked. */
export function learnReference(is: boolean): void {
  there = is;
}

/** How it stands with what was asked: `again` = when to try once more, in the page's time. */
export interface Older {
  state: "idle" | "asking" | "none" | "away";
  said: string;
  again?: number;
}

export function isStock(symbol: string): boolean {
  return STOCK.test(symbol);
}

export function hasReference(): boolean {
  return there;
}

/** Bars of before a time. Never rejects: what went wrong is in `said`, for people. */
export async function olderBars(symbol: string, span: string, before: number): Promise<Older & { page?: OlderBars }> {
  if (!there || !(STOCK.test(symbol) || OPTION.test(symbol))) return { state: "none", said: "" };
  try {
    const path = `/api/v1/candles/${encodeURIComponent(symbol)}?span=${span}&before=${before}&limit=${LIMIT}`;
    const page = (await send("GET", path)) as OlderBars;
    return { state: "idle", said: page.stale ? `older ones as of ${clock(page.as_of_ms)}` : "", page };
  } catch (error) {
    const { status } = error as Refusal;
    if (status === 404) return { state: "none", said: "" };
    return { state: "away", said: "older bars do not come just now", again: performance.now() + AGAIN_MS };
  }
}

export type PartState = "known" | "none" | "stale" | "refused" | "pending" | "failed";

export interface Company {
  symbol: string;
  overview: Readonly<Partial<Record<string, string | number | boolean | null>>> | null;
  short_interest: { settled_on: string; shares: number; usual_volume: number | null; days_to_cover: number | null } | null;
  short_volume: { on: string; shares: number; of: number; pct: number | null } | null;
  splits: readonly { on: string; before: number; after: number }[];
  events: readonly { on: string; ticker: string }[];
  filings: readonly { on: string; form: string; url: string | null }[];
  logo: boolean;
  parts: Readonly<Record<string, PartState>>;
  as_of_ms: number | null;
  again_s: number | null;
}

/** What is known of a company; a text for people where it is nothing. `again`: it is worth asking once more. */
export async function company(symbol: string): Promise<Company | { said: string; again: boolean }> {
  if (!there) return { said: "Company data are not set up here", again: false };
  if (!STOCK.test(symbol)) return { said: `${symbol} is no stock: companies are known of stocks`, again: false };
  try {
    return (await send("GET", `/api/v1/company/${encodeURIComponent(symbol)}`)) as Company;
  } catch (error) {
    const { status, detail } = error as Refusal;
    return { said: status === 404 ? `Nothing is known of ${symbol}` : detail, again: status !== 404 };
  }
}
