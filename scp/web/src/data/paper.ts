// Keeps one's paper account: it is pushed while somebody looks, and asked for once a second where that cannot be; sends orders.
// Invariant: what a hand did goes out under one key, however often it is sent; while nobody knows whether it arrived, the same order
// again is the same key. So no order is ever entered twice.

import { Api } from "../account/api.ts";
import type { Refusal } from "../api/ask.ts";

export interface Contract {
  symbol: string;
  tick_size: string;
  lot_size: string;
  qty_max: number;
  mark: number;
}

export interface Position {
  symbol: string;
  qty: number;
  entry: number;
  mark: number;
  profit: number;
}

export interface Order {
  id: string;
  symbol: string;
  side: string;
  kind: string;
  price: number | null;
  qty: number;
  left: number;
  filled: number;
  average: number;
  state: string;
}

export interface Fill {
  id: string;
  symbol: string;
  side: string;
  qty: number;
  price: number;
  fee: number;
  at: string;
  maker: boolean;
}

export interface PaperDesk {
  account: number | null;
  deposit: number;
  suspended: readonly string[];
  contracts: readonly Contract[];
  money: { balance: number; equity: number; initial_margin: number; available: number } | null;
  positions: readonly Position[];
  orders: readonly Order[];
  fills: readonly Fill[];
}

export interface Watcher {
  /** Everything as it is now. */
  desk(desk: PaperDesk): void;
  /** What is shown may be old, and why; "" = it is not. */
  away(why: string): void;
  /** Who is signed in may not trade. */
  forbidden(): void;
}

const ASK_MS = 1_000;
const AGAIN_MS = [500, 1_500, 3_000]; // an answer that was lost is asked for again after these
const UNKNOWN_MAX = 20;
const SILENCE_MS = 6_000; // the stream says something every two seconds
const STREAM_AGAIN_MS = 3_000;
const PATH = "/api/v1/paper";

export class PaperAccount {
  private readonly watchers = new Set<Watcher>();
  private readonly unknown = new Map<string, string>(); // what was sent without an answer → its key
  private api: Promise<Api> | null = null;
  private desk: PaperDesk | null = null;
  private tag = "";
  private timer: ReturnType<typeof setTimeout> | undefined;
  private asking = false;
  private stream: EventSource | null = null;
  private live = false; // the stream has told everything: nothing is asked for
  private silence: ReturnType<typeof setTimeout> | undefined;
  private streamNotBefore = 0;

  constructor() {
    document.addEventListener("visibilitychange", () => {
      if (document.hidden) this.close();
      else if (this.watchers.size > 0) void this.ask();
    });
  }

  watch(watcher: Watcher): () => void {
    this.watchers.add(watcher);
    if (this.desk) watcher.desk(this.desk);
    if (this.watchers.size === 1) void this.ask();
    return () => {
      this.watchers.delete(watcher);
      if (this.watchers.size > 0) return;
      clearTimeout(this.timer);
      this.close();
    };
  }

  /** Open the account, or send an order, an amend, a cancel. Throws a Refusal. */
  async send<T>(method: string, path: string, body?: unknown): Promise<T> {
    const said = JSON.stringify([method, path, body]);
    const key = this.unknown.get(said) ?? crypto.randomUUID();
    for (let again = 0; ; again++) {
      try {
        const answer = await this.change<T>(method, path, body, key);
        this.unknown.delete(said);
        void this.ask();
        return answer;
      } catch (fault) {
        const { status } = fault as Refusal;
        if (status !== 0 && status < 500) {
          this.unknown.delete(said);
          throw fault;
        }
        this.unknown.set(said, key);
        if (this.unknown.size > UNKNOWN_MAX) this.unknown.delete(this.unknown.keys().next().value!);
        if (again >= AGAIN_MS.length) throw fault;
        await new Promise((done) => setTimeout(done, AGAIN_MS[again]));
      }
    }
  }

  private async change<T>(method: string, path: string, body: unknown, key: string): Promise<T> {
    this.api ??= Api.open();
    try {
      return await (await this.api).change<T>(method, `paper/${path}`, body, { "Idempotency-Key": key });
    } catch (fault) {
      this.api = null; // the session may have another word for changes by now
      if ((fault as Refusal).code !== "csrf") throw fault;
      this.api = Api.open();
      return await (await this.api).change<T>(method, `paper/${path}`, body, { "Idempotency-Key": key });
    }
  }

  private async ask(): Promise<void> {
    if (this.asking || this.live) return;
    clearTimeout(this.timer);
    this.asking = true;
    let next = ASK_MS;
    try {
      if (!document.hidden) next = await this.read();
    } finally {
      this.asking = false;
      clearTimeout(this.timer);
      if (this.watchers.size > 0 && next > 0 && !this.live) this.timer = setTimeout(() => void this.ask(), next);
    }
  }

  /** Ask once and tell; return when to ask again, ms, 0 = never. */
  private async read(): Promise<number> {
    let answer: Response;
    try {
      answer = await fetch(PATH, { cache: "no-store", headers: this.tag ? { "If-None-Match": this.tag } : {}, signal: AbortSignal.timeout(8_000) });
    } catch {
      if (!this.live) this.tell((one) => one.away("The control plane does not answer."));
      return 2 * ASK_MS;
    }
    if (this.live) return ASK_MS; // what was pushed meanwhile is newer
    if (answer.status === 304) this.tell((one) => one.away(""));
    else if (answer.ok) {
      this.desk = (await answer.json()) as PaperDesk;
      this.tag = answer.headers.get("ETag") ?? "";
      this.tell((one) => (one.away(""), one.desk(this.desk!)));
    } else if (answer.status === 403) {
      this.tell((one) => one.forbidden());
      return 0;
    } else {
      const { detail = "" } = (await answer.json().catch(() => ({}))) as { detail?: string };
      this.tell((one) => one.away(detail || `The control plane answered ${answer.status}.`));
      return 2 * ASK_MS;
    }
    if (answer.status < 400) this.open();
    return ASK_MS;
  }

  // The push

  private open(): void {
    if (this.stream || !this.desk?.account || document.hidden || this.watchers.size === 0 || Date.now() < this.streamNotBefore) return;
    const stream = (this.stream = new EventSource(`${PATH}/stream`));
    const hear = (event: string, what: (data: string) => void): void =>
      stream.addEventListener(event, (message) => {
        if (this.stream !== stream) return;
        this.heard();
        what((message as MessageEvent<string>).data);
      });
    hear("desk", (data) => {
      this.live = true;
      this.tag = "";
      this.desk = JSON.parse(data) as PaperDesk;
      this.tell((one) => (one.away(""), one.desk(this.desk!)));
    });
    hear("away", (data) => this.tell((one) => one.away((JSON.parse(data) as { detail: string }).detail)));
    hear("alive", () => {});
    hear("end", () => this.lost());
    stream.addEventListener("error", () => this.stream === stream && this.lost());
    this.heard();
  }

  private heard(): void {
    clearTimeout(this.silence);
    this.silence = setTimeout(() => {
      this.tell((one) => one.away("The control plane does not answer."));
      this.lost();
    }, SILENCE_MS);
  }

  /** The stream has ended: ask, which says why, and open another one a little later. */
  private lost(): void {
    this.close();
    this.streamNotBefore = Date.now() + STREAM_AGAIN_MS;
    void this.ask();
  }

  private close(): void {
    clearTimeout(this.silence);
    this.stream?.close();
    this.stream = null;
    this.live = false;
  }

  private tell(what: (watcher: Watcher) => void): void {
    for (const watcher of this.watchers) what(watcher);
  }
}

/** One for the page, however many widgets show it. */
export const paper = new PaperAccount();
