// Wires the page: one stream, one table of quotes, one frame loop; everything else is a view of these.

import { Board, boardDecimals, type BoardRow } from "./board.ts";
import { Books } from "./books.ts";
import { CandleChart } from "./chart.ts";
import { Chips } from "./chips.ts";
import { byId, showState, Text } from "./dom.ts";
import { Finder } from "./finder.ts";
import { Focus } from "./focus.ts";
import { clock, count, decimalsOf, price, priceDecimals, short } from "./format.ts";
import { Frames } from "./frames.ts";
import { FreshnessJudge } from "./freshness.ts";
import { Grid } from "./grid.ts";
import { Ladder } from "./ladder.ts";
import { Market } from "./market.ts";
import { Meters } from "./meters.ts";
import { report, type PipelineDocument, type PipelineReport } from "./pipeline.ts";
import { FIELDS, QuoteTable } from "./quotes.ts";
import { Rest } from "./rest.ts";
import { Roll } from "./roll.ts";
import { openStream } from "./connect.ts";
import { Shortcuts } from "./shortcuts.ts";
import { Tabs } from "./tabs.ts";
import { startTheme, switchTheme } from "./theme.ts";
import { Ticket } from "./ticket.ts";

interface Alert {
  sym: string;
  kind: "new_high" | "new_low";
  price: number;
  prev: number | null;
  ts: number;
}

const BOARDS = [
  { name: "volume", title: "Most active", measure: "change_pct", wait: "Waiting for the first trades" },
  { name: "gainers", title: "Gainers", measure: "change_pct", wait: "Waiting for a symbol above its previous close" },
  { name: "losers", title: "Losers", measure: "change_pct", wait: "Waiting for a symbol below its previous close" },
  { name: "gappers", title: "Gappers", measure: "gap_pct", wait: "Waiting for an open away from the previous close" },
] as const;
const METERS_MS = 250;
const ALERTS_SHOWN_MAX = 60;
const FIRST_BOARD_MS_MAX = 2500;
const LONG_WAIT_MS = 1500; // a wait that is worth a button to end it
const SYMBOL = /^[A-Za-z0-9][A-Za-z0-9._:/^+-]{0,63}$/; // as the channel catalogue has it

const table = new QuoteTable();
const judge = new FreshnessJudge();
const frames = new Frames();
const stream = openStream();
let pipeline: PipelineReport | null = null;
let newestAt = NaN; // time of the newest market data, ms since the epoch
let applied = 0; // documents applied since the page opened
let alerts = 0;
let connectionText = "Connecting";

const seen = (at: number) => {
  applied++;
  if (!(at <= newestAt)) newestAt = at;
};

/** The address follows when the hand rests: a browser allows only so many changes of it. */
const address = new Rest(() => {
  history.replaceState(null, "", `#${focus.symbol}`);
  document.title = `${focus.symbol} · Tapeline`;
});

const select = (symbol: string) => {
  if (symbol === focus.symbol) return;
  focus.choose(symbol);
  grid.select(symbol);
  chips.select(symbol);
  address.touch();
};

/** Somebody pointed at this symbol to see it: on a phone its chart is shown instead of the list. */
const open = (symbol: string) => {
  select(symbol);
  tabs.show("chart");
};

const tabs = new Tabs();
const again = byId("again");
const chart = new CandleChart(byId("chart"));
const ticket = new Ticket(table);
const ladder = new Ladder(table, () => newestAt);
const chips = new Chips(byId("chips"), open);
const books = new Books(stream, (symbols) => chips.set(symbols));
const focus = new Focus(stream, table, chart, ticket, ladder, books, () => market.narrow());
const grid = new Grid(byId("grid"), table, select, open);
const market = new Market(stream, table, seen, function* () {
  if (focus.symbol) yield focus.symbol;
  yield* grid.inView();
});
const finder = new Finder(table, books, open);
const meters = new Meters(new URLSearchParams(location.search).has("fps"));
const quotesNote = new Text(byId("quotes-note"));
const alertsNote = new Text(byId("alerts-note"));
const alertsPanel = document.querySelector<HTMLElement>(".alerts")!;
const alertRoll = new Roll<Alert>(byId("alerts"), "Range alerts", 5, ALERTS_SHOWN_MAX, alertLine, (alert) => open(alert.sym), ({ ts }) => ts);
const boards = BOARDS.map(({ name, title, measure, wait }) => {
  const board = new Board(name, title, measure, (symbol, last) => boardDecimals(knownDecimals(symbol), last), open);
  board.waitFor(wait);
  byId("boards").append(board.element);
  return board;
});

function boardOf(channel: string): Board | undefined {
  return boards.find(({ name }) => channel === `board:${name}`);
}

function knownDecimals(symbol: string): number | undefined {
  const row = table.row(symbol);
  return row < 0 ? undefined : table.decimals[row];
}

function alertLine(alert: Alert): { texts: string[]; tone: string } {
  const high = alert.kind === "new_high";
  const decimals = knownDecimals(alert.sym) ?? priceDecimals(decimalsOf(alert.price));
  if (decimals > 5) alertsPanel.dataset["wide"] = ""; // long prices leave no room for the one before
  const before = alert.prev == null ? "" : `was ${price(alert.prev, decimals)}`;
  return { texts: [clock(alert.ts), high ? "▲ High" : "▼ Low", short(alert.sym, 12), price(alert.price, decimals), before], tone: high ? "up" : "down" };
}

function followEverything(): void {
  stream.subscribe(["status:pipeline"], { hz: "raw" }, {
    snapshot: (_, data) => heardPipeline(data as PipelineDocument),
    update: (_, __, whole) => heardPipeline(whole as PipelineDocument),
    status: (_, state, reason) => judge.channel(state, reason),
  });
  stream.subscribe(["board:*"], { hz: 4 }, {
    snapshot: (channel, data, at) => ranked(channel, data as { order: string[]; rows: Record<string, BoardRow> }, at),
    rows: (channel, order, rows, at) => ranked(channel, { order, rows: rows as Record<string, BoardRow> }, at),
    status: (channel, state, reason) => {
      const board = boardOf(channel);
      if (board) showState(board.element, state, reason);
    },
  });
  stream.subscribe(["alerts:range"], { hz: 10 }, {
    snapshot: (_, data, at) => {
      alertRoll.clear();
      for (const alert of data as Alert[]) alerted(alert, at);
    },
    event: (_, data, at) => alerted(data as Alert, at),
    lost: (_, n) => alertsNote.set(`${n} skipped`),
    status: (_, state, reason) => showState(alertsPanel, state, reason),
  });
  market.start(); // last: a pattern takes all the room that a limit leaves
}

function heardPipeline(document: PipelineDocument): void {
  applied++; // but it is no market data: the age that is shown goes on rising while only reports come
  pipeline = report(document);
  judge.heard(performance.now(), pipeline.freshness);
}

function ranked(channel: string, board: { order: readonly string[]; rows: Record<string, BoardRow> }, at: number): void {
  seen(at);
  market.learn(board.rows, performance.now());
  boardOf(channel)?.set(board);
  if (!focus.symbol && channel === "board:volume" && board.order[0]) select(board.order[0]);
}

function alerted(alert: Alert, at: number): void {
  seen(at);
  alerts++;
  alertRoll.add(alert);
}

let metersAt = 0;
let appliedBefore = 0;
let rate = 0;

function paintMeters(now: number): void {
  const since = now - metersAt;
  if (since < METERS_MS) return;
  rate = rate * 0.6 + (((applied - appliedBefore) * 1000) / since) * 0.4;
  appliedBefore = applied;
  metersAt = now;
  const freshness = judge.verdict(now);
  const ageMs = Number.isNaN(newestAt) ? NaN : Date.now() - stream.clockAheadMs - newestAt;
  meters.paint({ freshness, pipeline, ageMs, updatesPerSecond: rate, fps: frames.fps(1000), connection: connectionText });
  if (!focus.symbol && table.size > 0) selectSomething(now);
  quotesNote.set(table.size ? `${count(table.size)} ${table.size === 1 ? "symbol" : "symbols"}${market.everything ? "" : ", those in view live"}` : "");
  const flows = freshness.verdict === "live" || freshness.verdict === "partly";
  grid.waitFor(flows ? "Waiting for the first quote" : `No quotes yet: ${freshness.reason}`);
  alertRoll.waitFor("No new session high or low yet");
}

let quotedAt = 0;

/** Nobody traded yet, so no board has named a symbol: after a while the first one quoted will do. */
function selectSomething(now: number): void {
  quotedAt ||= now;
  if (now - quotedAt > FIRST_BOARD_MS_MAX && grid.first) select(grid.first);
}

/** A link or a reload names the symbol after the #. */
function selectFromAddress(): void {
  const asked = location.hash.slice(1).replace(/%2F/gi, "/").replace(/%5E/gi, "^");
  if (SYMBOL.test(asked)) select(asked);
}

let boardsTurn = 0;

function paintChosen(now: number): void {
  ticket.paint(now);
  focus.paint(now);
  ladder.paint();
}

function paintLists(now: number): void {
  boards[boardsTurn++ % boards.length]!.paint(now);
  alertRoll.paint();
  paintMeters(now);
}

frames.each((now) => market.paint(now));
frames.each((now) => books.paint(now));
frames.each((now) => grid.paint(now));
frames.inTurn((now) => grid.paintChanges(now), paintChosen, paintLists);

stream.onConnection((connection, reason, waitMs) => {
  judge.connected(connection, reason);
  again.hidden = connection !== "refused" && !(waitMs >= LONG_WAIT_MS);
  connectionText = connection === "open" ? "Connected" : reason;
});
again.addEventListener("click", () => stream.retry());
new Shortcuts({
  "/": () => finder.focus(),
  "1": () => focus.setLength("1s"),
  m: () => focus.setLength("1m"),
  d: () => ladder.turn(),
  t: switchTheme,
});
byId("account").addEventListener("click", () => void import("./account/dialog.ts").then(({ openAccount }) => openAccount()));
startTheme();
followEverything();
addEventListener("hashchange", selectFromAddress);
document.addEventListener("visibilitychange", () => document.hidden || judge.shown(performance.now()));
selectFromAddress();
void stream.start();
frames.start();

// What tests and people at the console read; nothing of the page depends on it.
Object.defineProperty(window, "tapeline", {
  value: {
    get updates() { return applied; },
    get symbols() { return table.size; },
    get frames() { return frames.rendered; },
    get fps() { return frames.fps(5000); },
    get reconnects() { return stream.reconnects; },
    get alerts() { return alerts; },
    get bars() { return chart.bars; },
    get prints() { return focus.prints; },
    get verdict() { return judge.verdict(performance.now()); },
    quote: (symbol: string) => Object.fromEntries(FIELDS.map((field) => [field, table.columns[field][table.row(symbol)]])),
  },
}); // prettier-ignore
