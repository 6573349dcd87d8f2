// Wires the page: one stream, one table of quotes, one frame loop; every widget is a view of these.

import { pipelineNow } from "./data/clock.ts";
import { openStream } from "./data/connect.ts";
import { Books } from "./data/books.ts";
import { FreshnessJudge } from "./data/freshness.ts";
import { Market } from "./data/market.ts";
import { matches } from "./data/matches.ts";
import { report, type PipelineReport } from "./data/pipeline.ts";
import { FIELDS, QuoteTable } from "./data/quotes.ts";
import { SharedChannels } from "./data/shared.ts";
import { byId } from "./dom.ts";
import { Frames, onHand } from "./frames.ts";
import { Finder } from "./head/finder.ts";
import { Meters } from "./head/meters.ts";
import { Shortcuts } from "./head/shortcuts.ts";
import { Tabs } from "./head/tabs.ts";
import { startTheme, switchPalette, switchTheme } from "./head/theme.ts";
import { commandsOf } from "./layout/commands.ts";
import { Desk } from "./layout/desk.ts";
import { Hands } from "./layout/hands.ts";
import { FIRST, type Link } from "./layout/links.ts";
import { Menu } from "./layout/menu.ts";
import { Notice } from "./layout/notice.ts";
import { Shelf } from "./layout/shelf.ts";
import { Rest } from "./rest.ts";
import { Candles } from "./widgets/candles.ts";
import { Prints } from "./widgets/prints.ts";
import { Watchlist } from "./widgets/watchlist.ts";

const METERS_MS = 250;
const FIRST_BOARD_MS_MAX = 2500;
const LONG_WAIT_MS = 1500; // a wait that is worth a button to end it
const PALETTE_SYMBOLS = 6;
const SHARED_CHANNELS = 11; // boards, alerts, status
const CHANNELS_A_SYMBOL = 8; // bars, prints, halts, book, and their successors while one is swapped for another
const SYMBOL = /^[A-Za-z0-9][A-Za-z0-9._:/^+-]{0,63}$/; // as the channel catalogue has it

const table = new QuoteTable();
const judge = new FreshnessJudge();
const frames = new Frames(() => desk.rounds);
const stream = openStream(() => frames.wake());
let pipeline: PipelineReport | null = null;
let newestAt = NaN; // time of the newest market data, ms since the epoch
let applied = 0; // documents applied since the page opened
let connectionText = "Connecting";

const seen = (at: number) => {
  applied++;
  if (!(at <= newestAt)) newestAt = at;
};

/** The address follows when the hand rests: a browser allows only so many changes of it. */
const address = new Rest(() => {
  history.replaceState(null, "", `#${desk.first.symbol}`);
  document.title = `${desk.first.symbol} · Tapeline`;
});

/** Somebody pointed at this symbol to see it: on a phone its chart is shown instead of the list. */
const open = (link: Link, symbol: string) => {
  link.choose(symbol);
  tabs.show("chart");
};

/** The list of news that shows the chosen symbol of this link: the one there is, else a new one. */
const openNews = (link: Link, symbol: string) => {
  const found = desk.newsOf(link);
  if (!found) return open(link, symbol);
  found.link.choose(symbol);
  tabs.show("more");
  found.widget.element.scrollIntoView({ block: "nearest" });
};

const tabs = new Tabs();
const again = byId("again");
const books = new Books(stream);
const shared = new SharedChannels(stream, {
  pipeline: (document) => {
    applied++; // but it is no market data: the age that is shown goes on rising while only reports come
    pipeline = report(document);
    judge.heard(performance.now(), pipeline.freshness);
  },
  pipelineState: (state, reason) => judge.channel(state, reason),
  board: (channel, board, at) => {
    seen(at);
    market.learn(board.rows, performance.now());
    if (channel === "board:volume" && board.order[0]) desk.chooseWhereNone(board.order[0]);
  },
  seen,
});
const inView = function* () {
  yield* desk.symbols();
  for (const { grid } of desk.widgets(Watchlist)) yield* grid.inView();
};
const market = new Market(stream, table, seen, inView, () => SHARED_CHANNELS + CHANNELS_A_SYMBOL * new Set(desk.symbols()).size);
const desk = new Desk(
  byId("desk"),
  {
    stream, table, books, shared,
    get everything() { return market.everything; },
    newestAt: () => newestAt,
    open,
    openNews,
    makeRoom: () => market.narrow(),
  },
  tabs,
  {
    changed: (slight) => shelf.saver.touch(slight),
    chosen: (colour) => colour === FIRST && address.touch(),
    menu: (mounted, from) => menu.open(mounted, from),
  },
); // prettier-ignore
const notice = new Notice();
const shelf = new Shelf(desk, notice, byId("layouts"));
const hands = new Hands(desk, (text) => notice.say(text));
const menu = new Menu(desk, {
  settings: (mounted) => void import("./layout/dialogs/settings.ts").then(({ openSettings }) => openSettings(desk, mounted)),
  move: (mounted) => hands.byKeys(mounted),
});
const finder = new Finder(table, books, (symbol) => open(desk.active, symbol));
const meters = new Meters(new URLSearchParams(location.search).has("fps"));

const does = {
  layouts: () => void import("./layout/dialogs/layouts.ts").then(({ openLayouts }) => openLayouts(desk, shelf)),
  widgets: () => void import("./layout/dialogs/layouts.ts").then(({ openWidgets }) => openWidgets(desk)),
  account: () => void import("./account/dialog.ts").then(({ openAccount }) => openAccount()),
  theme: switchTheme,
  palette: switchPalette,
  settings: (id: string) => {
    const mounted = desk.mounted.get(id);
    if (mounted) void import("./layout/dialogs/settings.ts").then(({ openSettings }) => openSettings(desk, mounted));
  },
  move: (id: string) => hands.byKeys(desk.mounted.get(id)!),
};

function openPalette(): void {
  const link = desk.active; // the palette takes the focus
  const focused = document.activeElement?.closest<HTMLElement>("[data-widget]")?.dataset["widget"] ?? "";
  const symbols = (typed: string) => matches(table.symbols, typed, (row) => table.columns.volume[row]!, PALETTE_SYMBOLS);
  void import("./layout/dialogs/palette.ts").then(({ openPalette: show }) => {
    if (!document.querySelector("dialog[open]")) show(commandsOf(desk, shelf, focused, does), symbols, (symbol) => open(link, symbol));
  });
}

let metersAt = 0;
let appliedBefore = 0;
let rate = 0;
let quotedAt = 0;

function paintMeters(now: number): void {
  const since = now - metersAt;
  if (since < METERS_MS) return;
  rate = rate * 0.6 + (((applied - appliedBefore) * 1000) / since) * 0.4;
  appliedBefore = applied;
  metersAt = now;
  const freshness = judge.verdict(now);
  const ageMs = Number.isNaN(newestAt) ? NaN : pipelineNow() - newestAt;
  meters.paint({ freshness, pipeline, ageMs, updatesPerSecond: rate, fps: frames.fps(1000), connection: connectionText });
  if (!desk.first.symbol && table.size > 0) chooseSomething(now);
  const flows = freshness.verdict === "live" || freshness.verdict === "partly";
  for (const list of desk.widgets(Watchlist)) list.waitFor(flows ? "" : freshness.reason);
}

/** Nobody traded yet, so no board has named a symbol: after a while the first one quoted will do. */
function chooseSomething(now: number): void {
  quotedAt ||= now;
  if (now - quotedAt > FIRST_BOARD_MS_MAX) desk.chooseWhereNone(table.symbols[0]!);
}

/** A link or a reload names the symbol after the #. */
function selectFromAddress(): void {
  const asked = location.hash.slice(1).replace(/%2F/gi, "/").replace(/%5E/gi, "^");
  if (SYMBOL.test(asked)) desk.first.choose(asked);
}

function paintQuotes(now: number): void {
  desk.turn(0, now);
  const grids = [...desk.widgets(Watchlist)].map(({ grid }) => grid);
  table.drain((row, bits) => {
    for (const grid of grids) grid.changed(row, bits, now);
  });
}

frames.each((now) => market.paint(now));
frames.each((now) => books.paint(now));
frames.each((now) => desk.paint(now));
frames.inTurn(
  paintQuotes,
  (now) => desk.turn(1, now),
  (now) => {
    desk.turnLists(now);
    paintMeters(now);
  },
);

stream.onConnection((connection, reason, waitMs) => {
  judge.connected(connection, reason);
  again.hidden = connection !== "refused" && !(waitMs >= LONG_WAIT_MS);
  connectionText = connection === "open" ? "Connected" : reason;
});
again.addEventListener("click", () => stream.retry());
const tellWidgets = (what: string) => {
  for (const { widget } of desk.mounted.values()) widget.key?.(what);
};
new Shortcuts({
  "/": () => finder.focus(),
  "1": () => tellWidgets("1s"),
  m: () => tellWidgets("1m"),
  d: () => tellWidgets("measure"),
  t: switchTheme,
});
document.addEventListener("keydown", (event) => {
  if (event.key.toLowerCase() !== "k" || !(event.ctrlKey || event.metaKey) || event.altKey || event.shiftKey) return;
  event.preventDefault(); // browsers put the cursor into their address otherwise
  openPalette();
});
byId("account").addEventListener("click", does.account);
byId("layouts").addEventListener("click", does.layouts);
byId("add").addEventListener("click", does.widgets);
startTheme();
shared.start();
market.start(); // last: a pattern takes all the room that a limit leaves
addEventListener("hashchange", selectFromAddress);
document.addEventListener("visibilitychange", () => document.hidden || judge.shown(performance.now()));
selectFromAddress();
onHand(() => frames.wake());
void stream.start();
void shelf.start();
frames.start();

/** The first widget of a kind: what tests look at. */
const firstOf = <T>(found: Iterable<T>): T | undefined => [...found][0];

// What tests and people at the console read; nothing of the page depends on it.
Object.defineProperty(window, "tapeline", {
  value: {
    get updates() { return applied; },
    get symbols() { return table.size; },
    get frames() { return frames.rendered; },
    get fps() { return frames.fps(5000); },
    get reconnects() { return stream.reconnects; },
    get alerts() { return shared.alerts.count; },
    get bars() { return firstOf(desk.widgets(Candles))?.bars ?? 0; },
    get drawn() { return firstOf(desk.widgets(Candles))?.drawn ?? []; },
    get prints() { return firstOf(desk.widgets(Prints))?.count ?? 0; },
    get verdict() { return judge.verdict(performance.now()); },
    get layout() { return desk.layout; },
    get saving() { return { id: shelf.saver.id, revision: shelf.saver.revision, state: shelf.saver.state }; },
    quote: (symbol: string) => Object.fromEntries(FIELDS.map((field) => [field, table.columns[field][table.row(symbol)]])),
  },
}); // prettier-ignore
