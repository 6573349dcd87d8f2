// Follows the channels that many widgets show, once for all of them: boards, alerts, news, the pipeline's report.
// Invariant: whoever listens later is told at once what is known by then.

import { AlertChannels } from "./alerts.ts";
import { Articles } from "./articles.ts";
import type { BoardRow } from "./boards.ts";
import type { PipelineDocument } from "./pipeline.ts";
import type { Stream, Subscription } from "./stream.ts";

export interface BoardDocument {
  order: readonly string[];
  rows: Readonly<Record<string, BoardRow>>;
}

export interface ChannelState {
  state: string;
  reason: string;
}

export interface NewsListener {
  /** There are other articles than before. */
  changed(): void;
  lost(n: number): void;
  status(state: ChannelState): void;
}

export interface BoardListener {
  board(document: BoardDocument): void;
  status(state: ChannelState): void;
}

const LIVE: ChannelState = { state: "live", reason: "" };

export class SharedChannels {
  readonly alerts: AlertChannels;
  pipeline: PipelineDocument | null = null;
  readonly news = new Articles();
  private readonly newsListeners = new Set<NewsListener>();
  private newsState = LIVE;
  private newsFollowed: Subscription | null = null; // while somebody shows them
  private readonly boards = new Map<string, BoardDocument>();
  private readonly boardStates = new Map<string, ChannelState>();
  private readonly boardListeners = new Map<string, Set<BoardListener>>();
  private readonly followed = new Map<string, Subscription>(); // a board is followed while somebody shows it

  constructor(
    private readonly stream: Stream,
    private readonly told: {
      pipeline(document: PipelineDocument): void;
      pipelineState(state: string, reason: string): void;
      board(channel: string, document: BoardDocument, at: number): void;
      seen(at: number): void;
    },
  ) {
    this.alerts = new AlertChannels(stream, told.seen);
  }

  start(): void {
    this.stream.subscribe(["status:pipeline"], { hz: "raw" }, {
      snapshot: (_, data) => this.heard(data as PipelineDocument),
      update: (_, __, whole) => this.heard(whole as PipelineDocument),
      status: (_, state, reason) => this.told.pipelineState(state, reason),
    });
    this.follow("volume"); // its first symbol is shown where none is chosen
    this.alerts.start();
  }

  /** Listen to a board; returns the function that ends it. */
  onBoard(name: string, listener: BoardListener): () => void {
    const listeners = this.boardListeners.get(name) ?? new Set();
    this.boardListeners.set(name, listeners.add(listener));
    this.follow(name);
    const known = this.boards.get(name);
    if (known) listener.board(known);
    listener.status(this.boardStates.get(name) ?? LIVE);
    return () => {
      listeners.delete(listener);
      if (listeners.size === 0 && name !== "volume") this.leave(name);
    };
  }

  private follow(name: string): void {
    if (this.followed.has(name)) return;
    this.followed.set(name, this.stream.subscribe([`board:${name}`], { hz: 4 }, {
      snapshot: (channel, data, at) => this.ranked(channel, data as BoardDocument, at),
      rows: (channel, order, rows, at) => this.ranked(channel, { order, rows: rows as Record<string, BoardRow> }, at),
      status: (channel, state, reason) => this.boardStatus(channel, { state, reason }),
    })); // prettier-ignore
  }

  private leave(name: string): void {
    this.followed.get(name)?.close();
    for (const known of [this.followed, this.boards, this.boardStates]) known.delete(name);
  }

  /** Listen to the news of all symbols; returns the function that ends it. */
  onNews(listener: NewsListener): () => void {
    this.newsListeners.add(listener);
    this.newsFollowed ??= this.followNews();
    listener.changed();
    listener.status(this.newsState);
    return () => {
      this.newsListeners.delete(listener);
      if (this.newsListeners.size > 0) return;
      this.newsFollowed?.close();
      this.newsFollowed = null;
      this.news.clear();
    };
  }

  private followNews(): Subscription {
    const tell = () => this.newsListeners.forEach((listener) => listener.changed());
    return this.stream.subscribe(["news:latest"], { hz: 4 }, {
      snapshot: (_, data) => {
        this.news.clear();
        for (const article of data as unknown[]) this.news.add(article);
        tell();
      },
      event: (_, data) => {
        if (this.news.add(data)) tell();
      },
      lost: (_, n) => this.newsListeners.forEach((listener) => listener.lost(n)),
      status: (_, state, reason) => {
        this.newsState = { state, reason };
        for (const listener of this.newsListeners) listener.status(this.newsState);
      },
    });
  }

  private heard(document: PipelineDocument): void {
    this.pipeline = document;
    this.told.pipeline(document);
  }

  private ranked(channel: string, document: BoardDocument, at: number): void {
    const name = channel.slice("board:".length);
    this.boards.set(name, document);
    this.told.board(channel, document, at);
    for (const listener of this.boardListeners.get(name) ?? []) listener.board(document);
  }

  private boardStatus(channel: string, state: ChannelState): void {
    const name = channel.slice("board:".length);
    this.boardStates.set(name, state);
    for (const listener of this.boardListeners.get(name) ?? []) listener.status(state);
  }
}
