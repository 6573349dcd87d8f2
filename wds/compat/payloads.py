"""Says what a document of ours is in the payloads of the original service: its field names, null for what nobody here knows.

Invariant: every payload has all fields of its kind, whatever is known. A number that nobody knows is null and never 0: the
original's 0 for an unknown float or volume would be read as one.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

import msgspec
from msgspec import Struct

from service.days.markets import Day, Markets

Number = int | float | None
SESSIONS = {"pre": "pre_market", "regular": "regular", "continuous": "regular", "post": "after_hours"}
RANGES = "bars:5m"  # the kind that the highs and lows of sessions are made of: its history holds a whole trading day
STATS_WINDOW = "60m"
STATS_WINDOW_MS = 3_600_000
SECOND_MS, FIVE_MINUTES_MS, DAY_MS = 1_000, 300_000, 86_400_000
# The original's app shows a ticker of an article only when it is listed at one of three exchanges of the United States. Our news
# does not say where, so what looks like a ticker of theirs is given one of the three.
US_TICKER = re.compile(r"[A-Z]{1,5}(\.[A-Z])?")
US_EXCHANGE = "XNAS"
MARKETS = Markets()


class Quote(Struct):
    """What is read of `quote:SYMBOL`."""

    last: Number = None
    bid: Number = None
    ask: Number = None
    bid_size: Number = None
    ask_size: Number = None
    open: Number = None
    high: Number = None
    low: Number = None
    volume: Number = None
    vwap: Number = None
    trades: int | None = None
    prev_close: Number = None
    change: Number = None
    change_pct: Number = None
    rel_volume: Number = None
    session: str = ""
    ts: int = 0
    prev_open: Number = None
    prev_high: Number = None
    prev_low: Number = None
    prev_volume: Number = None
    prev_vwap: Number = None
    avg_volume: Number = None
    free_float: Number = msgspec.field(default=None, name="float")


class Row(Struct):
    """What is read of a board's row."""

    last: Number = None
    change: Number = None
    change_pct: Number = None
    volume: Number = None
    open_change_pct: Number = None
    dollar_volume: Number = None
    rel_volume: Number = None
    free_float: Number = msgspec.field(default=None, name="float")
    trades: int | None = None


class Board(Struct):
    """What is read of `board:NAME`."""

    order: list[str] = []
    rows: dict[str, Row] = {}


class Alert(Struct):
    """What is read of an alert."""

    sym: str = ""
    kind: str = ""
    price: Number = None
    prev: Number = None
    session: str = ""
    note: str = ""
    quote: Quote | None = None
    ts: int = 0


class Article(Struct):
    """What is read of `news:SYMBOL`."""

    title: str = ""
    url: str = ""
    source: str = ""
    summary: str = ""
    tickers: list[str] = []
    ts: int = 0


class Bands(Struct):
    """What is read of `halts:SYMBOL`."""

    high_band: Number = None
    low_band: Number = None
    indicators: list[int] = []
    ts: int = 0


class Bar(Struct):
    """What is read of `bars:…:SYMBOL`; rows of the history are `[t,open,high,low,close,volume,vwap,trades]`."""

    t: int = 0
    open: Number = None
    high: Number = None
    low: Number = None
    close: Number = None
    volume: Number = None
    vwap: Number = None
    trades: int | None = None
    i: int = 0
    rev: int = 0
    prev: list[Number] | None = None
    history: list[list[Number]] = []


class Print(Struct):
    """What is read of `trades:SYMBOL`."""

    price: Number = None
    size: Number = None
    ts: int = 0
    exchange: Any = None
    conditions: Any = None
    id: Any = None


class Stats(Struct):
    """What is read of `stats:SYMBOL`: the longest window."""

    trades: int | None = msgspec.field(default=None, name=f"trades_{STATS_WINDOW}")
    volume: Number = msgspec.field(default=None, name=f"volume_{STATS_WINDOW}")
    average: Number = msgspec.field(default=None, name=f"average_{STATS_WINDOW}")
    largest: Number = msgspec.field(default=None, name=f"largest_{STATS_WINDOW}")
    ts: int = 0


Edge = tuple[str, str]  # a session, and high or low of it


class Ranges:
    """The highs and lows of a symbol's five-minute bars, and of the sessions of a day that they make."""

    __slots__ = ("_bars", "_day_ms", "_edges", "_fresh")

    def __init__(self) -> None:
        self._bars: dict[int, tuple[Number, Number]] = {}  # by when they began, ms
        self._day_ms = 0  # of the edges
        self._edges: dict[Edge, Number] = {}
        self._fresh: dict[int, None] = {}  # bars that are not in them yet

    def __len__(self) -> int:
        return len(self._bars)

    def see(self, bar: Bar) -> None:
        """Take the bar in the making, and the one before it, which late trades may have corrected."""
        if bar.t:
            self._take(bar.t, bar.high, bar.low)
        for row in (*bar.history, bar.prev or ()):
            if len(row) > 3 and isinstance(row[0], int):
                self._take(row[0], row[2], row[3])
        if len(self._bars) > 2 * DAY_MS // FIVE_MINUTES_MS:
            newest = max(self._bars)
            self._bars = {t: edges for t, edges in self._bars.items() if t > newest - DAY_MS}
            self._fresh = {t: None for t in self._fresh if t in self._bars}

    def _take(self, t: int, high: Number, low: Number) -> None:
        before = self._bars.get(t)
        if before == (high, low):
            return
        self._bars[t] = high, low
        self._fresh[t] = None
        if before is not None and (_fell(before[0], high, 1) or _fell(before[1], low, -1)):
            self._day_ms = 0  # a bar that has become narrower may have made an edge: all of them anew

    def sessions(self, day: Day) -> dict[Edge, Number]:
        """Return high and low of each session of a day.  Cost: O(bars that changed since)."""
        if self._day_ms != day.start_ms:
            self._day_ms, self._edges, self._fresh = day.start_ms, {}, dict.fromkeys(self._bars)
        for t in self._fresh:
            if day.start_ms <= t < day.end_ms:
                session = next(name for start, name in reversed(day.changes) if start <= t)
                widen(self._edges, "regular" if session == "continuous" else session, *self._bars[t])
        self._fresh = {}
        return dict(self._edges)


def _fell(before: Number, now: Number, sign: int) -> bool:
    return before is not None and (now is None or sign * now < sign * before)


def widen(edges: dict[Edge, Number], session: str, high: Number, low: Number) -> None:
    """Let a session's range hold these prices, too."""
    for side, value, better in (("high", high, max), ("low", low, min)):
        if value is not None:
            known = edges.get((session, side))
            edges[session, side] = value if known is None else better(known, value)


DECODERS: Mapping[str, msgspec.json.Decoder[Any]] = {
    "quote": msgspec.json.Decoder(Quote),
    "board": msgspec.json.Decoder(Board),
    "alerts": msgspec.json.Decoder(Alert),
    "news": msgspec.json.Decoder(Article),
    "halts": msgspec.json.Decoder(Bands),
    "bars:1s": msgspec.json.Decoder(Bar),
    "bars:5m": msgspec.json.Decoder(Bar),
    "trades": msgspec.json.Decoder(Print),
    "stats": msgspec.json.Decoder(Stats),
}
Shape = Callable[[str, Sequence[Any]], Any]  # (symbol, what was read of each source; None = nothing) → payload; None = none


# What a document may be the cause of: not what its kind says, numbers that nobody can compute with, a time of no calendar.
FAULTS = (msgspec.MsgspecError, ArithmeticError, ValueError, OSError)


def read(kind: str, data: bytes) -> Any:
    """Return a document, or one event of an event channel, as the shapes below take it.  Raises: msgspec.DecodeError."""
    return DECODERS[kind].decode(data)


def quote(symbol: str, read: Sequence[Any]) -> dict[str, Any]:
    """The payload of `quote:SYMBOL`."""
    return _quote(symbol, read[0])


def _quote(symbol: str, one: Quote | None) -> dict[str, Any]:
    one = one or Quote()
    since = None if one.last is None or one.open is None else round(one.last - one.open, 10)
    return {
        "symbol": symbol,
        **_traded(one.volume, one.rel_volume, one.trades, one.open, one.vwap, one.last),
        "high": one.high,
        "low": one.low,
        "free_float": one.free_float,
        "prev_day_close": one.prev_close,
        "prev_day_open": one.prev_open,
        "prev_day_high": one.prev_high,
        "prev_day_low": one.prev_low,
        "prev_day_volume": one.prev_volume,
        "prev_day_vwap": one.prev_vwap,
        **({} if one.avg_volume is None else {"avg_volume": one.avg_volume}),
        "change": one.change,
        "pct_change": one.change_pct,
        "change_since_open": since,
        "pct_change_since_open": None if since is None or not one.open else round(100 * since / one.open, 4),
        "start_timestamp": one.ts - one.ts % SECOND_MS,
        "end_timestamp": one.ts - one.ts % SECOND_MS + SECOND_MS,
    }


def _traded(
    volume: Number, rel_volume: Number, trades: int | None, opened: Number, vwap: Number, last: Number
) -> dict[str, Any]:  # fmt: skip
    average = None if not rel_volume or volume is None else round(volume / rel_volume)
    return {
        "volume": None,  # of the last aggregate alone; ours counts the day
        "accumulated_volume": volume,
        "relative_volume": rel_volume,
        "official_open_price": opened,
        "vwap": vwap,
        "open": opened,
        "close": last,
        "aggregate_vwap": vwap,
        "average_size": None if not trades or volume is None else round(volume / trades),
        "avg_volume": average,
        "prev_day_open": None,
        "prev_day_high": None,
        "prev_day_low": None,
        "prev_day_volume": None,
        "prev_day_vwap": None,
    }


def board(_: str, read: Sequence[Any]) -> list[dict[str, Any]]:
    """The payload of `scanners:…`: rows in their order, the rank in them."""
    found: Board = read[0] or Board()
    ranked = [(symbol, found.rows[symbol]) for symbol in found.order if symbol in found.rows]
    return [{"rank": at, **_row(symbol, row)} for at, (symbol, row) in enumerate(ranked, 1)]


def _row(symbol: str, row: Row) -> dict[str, Any]:
    # A row has no open: it follows from the change since then, which has four decimals.
    opened = None
    if row.last is not None and row.open_change_pct is not None and row.open_change_pct > -100:
        opened = round(row.last / (1 + row.open_change_pct / 100), 4)
    before = None if row.last is None or row.change is None else round(row.last - row.change, 10)
    vwap = None if not row.volume or row.dollar_volume is None else round(row.dollar_volume / row.volume, 4)
    return {
        "symbol": symbol,
        **_traded(row.volume, row.rel_volume, row.trades, opened, vwap, row.last),
        "high": None,
        "low": None,
        "free_float": row.free_float,
        "prev_day_close": before,
        "change": row.change,
        "pct_change": row.change_pct,
        "change_since_open": None if opened is None or row.last is None else round(row.last - opened, 4),
        "pct_change_since_open": row.open_change_pct,
        "start_timestamp": None,
        "end_timestamp": None,
    }


def daily_range(symbol: str, read: Sequence[Any]) -> dict[str, Any]:
    """The payload of `daily_range:SYMBOL`: the quote, with the highs and lows of the day's sessions."""
    one: Quote = read[0] or Quote()
    edges = _by_session(symbol, one, read[1])
    return {
        **_quote(symbol, one),
        **{
            f"{name}_{side}": edges.get((session, side))
            for session, name in (("pre", "pre_market"), ("regular", "regular_session"), ("post", "after_hours"))
            for side in ("high", "low")
        },
    }


def _by_session(symbol: str, one: Quote, ranges: Ranges | None) -> dict[Edge, Number]:
    day = _day(MARKETS.of(symbol, one.session == "continuous").name, one.ts // FIVE_MINUTES_MS)
    found = ranges.sessions(day) if ranges is not None else {}
    if one.session in ("pre", "regular", "continuous"):  # the quote's own range is of that session, and newer than a bar
        widen(found, "regular" if one.session == "continuous" else one.session, one.high, one.low)
    return found


@lru_cache(64)
def _day(market: str, five_minutes: int) -> Day:
    # Days begin and end at whole minutes that five divides: one look a market and five minutes is enough.
    return MARKETS.named(market).day_of(five_minutes * FIVE_MINUTES_MS)


def high_alert(_: str, read: Sequence[Any]) -> dict[str, Any] | None:
    """The payload of `daily_range_hod_alert`; None for other alerts."""
    return _alert(read[0], "new_high", "high")


def low_alert(_: str, read: Sequence[Any]) -> dict[str, Any] | None:
    """The payload of `daily_range_lod_alert`; None for other alerts."""
    return _alert(read[0], "new_low", "low")


def _alert(one: Alert, kind: str, direction: str) -> dict[str, Any] | None:
    if one.kind != kind:
        return None
    return {
        "session": SESSIONS.get(one.session, "regular"),  # markets without extended hours have one session
        "direction": direction,
        "price": one.price,
        "previous": one.prev,
        "timestamp": one.ts / 1000,
        "note": one.note,
        **_quote(one.sym, one.quote),
    }


def article(_: str, read: Sequence[Any]) -> dict[str, Any]:
    """The payload of `news:…`."""
    one: Article = read[0]
    return {
        "title": one.title,
        "link": one.url,
        "source": one.source,
        "summary": one.summary,
        "publishDate": iso(one.ts),
        "language": None,
        "sentiment": None,
        "confidence": None,
        "content": None,
        "images": [],
        "companies": [_company(ticker) for ticker in one.tickers],
    }


def _company(ticker: str) -> dict[str, Any]:
    listed = US_EXCHANGE if US_TICKER.fullmatch(ticker) else None
    return {
        "ticker": ticker,
        "name": ticker,
        "companyId": None,
        "primaryListing": {"ticker": ticker, "exchangeCode": listed, "exchangeCountry": "US" if listed else None},
    }


def bands(symbol: str, read: Sequence[Any]) -> dict[str, Any]:
    """The payload of `stocks:luld:SYMBOL`."""
    one: Bands = read[0] or Bands()
    return {
        "event_type": "LULD", "symbol": symbol, "high_price": one.high_band, "low_price": one.low_band,
        "indicators": one.indicators, "tape": None, "timestamp": one.ts, "sequence_number": None,
    }  # fmt: skip


def aggregate(symbol: str, read: Sequence[Any]) -> dict[str, Any]:
    """The payload of `stocks:agg:SYMBOL`: the second's bar, with the day's totals."""
    bar, day = read[0] or Bar(), read[1] or Quote()
    average = None if not bar.trades or bar.volume is None else round(bar.volume / bar.trades)
    return {
        "event_type": "A", "symbol": symbol, "volume": bar.volume, "accumulated_volume": day.volume,
        "official_open_price": day.open, "vwap": bar.vwap, "open": bar.open, "close": bar.close, "high": bar.high, "low": bar.low,
        "aggregate_vwap": day.vwap, "average_size": average,
        "start_timestamp": bar.t, "end_timestamp": bar.t + SECOND_MS, "otc": None,
    }  # fmt: skip


def trade(symbol: str, read: Sequence[Any]) -> dict[str, Any]:
    """The payload of `stocks:trades:SYMBOL`."""
    one: Print = read[0]
    return {
        "event_type": "T", "symbol": symbol, "exchange": one.exchange, "id": one.id, "tape": None, "price": one.price,
        "size": one.size, "conditions": one.conditions, "timestamp": one.ts, "sequence_number": None, "trf_id": None,
        "trf_timestamp": None,
    }  # fmt: skip


def best_prices(symbol: str, read: Sequence[Any]) -> dict[str, Any]:
    """The payload of `stocks:quotes:SYMBOL`."""
    one: Quote = read[0] or Quote()
    return {
        "event_type": "Q", "symbol": symbol, "bid_exchange_id": None, "bid_price": one.bid, "bid_size": one.bid_size,
        "ask_exchange_id": None, "ask_price": one.ask, "ask_size": one.ask_size, "condition": None, "indicators": None,
        "timestamp": one.ts, "sequence_number": None, "tape": None,
    }  # fmt: skip


def activity(symbol: str, read: Sequence[Any]) -> dict[str, Any]:
    """The payload of `tta:SYMBOL:widget`: the original sums up the last 1,000 trades, we the last hour."""
    one, day = read[0] or Stats(), read[1] or Quote()
    return {
        "timestamp": iso(one.ts), "symbol": symbol, "total_volume": one.volume, "trade_count": one.trades,
        "avg_size": None if one.average is None else round(one.average, 2), "max_size": one.largest,
        "time_span_ms": STATS_WINDOW_MS, "latest_price": day.last, "latest_timestamp": day.ts, "latest_exchange": "",
    }  # fmt: skip


def iso(ts: int) -> str:
    """Return a time (ms) as browsers and Python read it: 2026-11-22T14:30:00.250+00:00."""
    try:
        return datetime.fromtimestamp(ts / 1000, UTC).isoformat(timespec="milliseconds")
    except (ValueError, OverflowError, OSError):  # of no calendar: a time that somebody wrote in microseconds
        return datetime.fromtimestamp(0, UTC).isoformat(timespec="milliseconds")
