"""Trades, quotes and aggregates in, `quote:SYMBOL` out: last, best bid and offer, session totals.

Invariant: volume, vwap and trades are exact over all trades of the trading day that were processed.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from mdc.writer import Flush
from mdp.analyzer import Analyzer, Outlet, check_room
from mdp.conditions import ALL, HIGH_LOW, LAST, VOLUME
from mdp.events import AnyBar, AnyQuote, AnyTrade, IndexValue
from mdp.exact import number, ratio, units
from mdp.reference import Reference
from mdp.sessions import Calendar, Calendars


class QuoteData(msgspec.Struct, gc=False):
    """The published state; fields in the order of mdc.channels.QUOTE_FIELDS; null = not known."""

    last: float | None = None
    bid: float | None = None
    ask: float | None = None
    bid_size: int | float | None = None
    ask_size: int | float | None = None
    open: float | None = None
    high: float | None = None
    low: float | None = None
    volume: int | float = 0
    vwap: float | None = None
    trades: int = 0
    prev_close: float | None = None
    change: float | None = None
    change_pct: float | None = None
    rel_volume: float | None = None
    session: str = "closed"
    ts: int = 0


class Totals(msgspec.Struct, array_like=True, gc=False):
    """What is summed up behind a quote; `volume` in units, `notional` in units²."""

    volume: int = 0
    notional: int = 0
    last_ts: int = 0
    official_volume: int = 0  # of the vendor's aggregates: more than ours when we joined during the day
    official_vwap: float | None = None
    continuous: bool = False
    open_ts: int = 0  # of the trade that gave the open; 0 = the vendor gave it
    by_seconds: bool = False  # official volume is summed from second aggregates, so minutes must not add to it


class Cell(msgspec.Struct, array_like=True, gc=False):
    """The checkpoint of one symbol."""

    seq: int
    data: QuoteData
    totals: Totals


class QuoteAnalyzer(Analyzer):
    """Keeps the quote of every symbol of a partition. `reference` knows previous closes and average volumes."""

    name = "quote"

    def __init__(self, reference: Reference) -> None:
        self.quotes: dict[str, QuoteData] = {}
        self.rounds = 0  # flushes in which a trade or a total changed: tells who ranks quotes when to look
        self._totals: dict[str, Totals] = {}
        self._reference = reference
        self._calendars = Calendars()
        self._stocks, self._always = self._calendars.stocks, self._calendars.always
        self._changed: set[str] = set()
        self._traded: set[str] = set()
        self._out = Outlet("quote")
        self._announce = False
        self._encode = msgspec.json.Encoder().encode
        self._cell = msgspec.json.Decoder(Cell)

    def on_trade(self, trade: AnyTrade, rule: int, volume: int, notional: int) -> None:
        symbol, ts, price = trade.symbol, trade.ts, trade.price
        calendar = self._always if trade.continuous else self._stocks
        if ts >= calendar.change_ms:
            self._move(calendar, ts)
        totals = self._totals.get(symbol)
        if totals is None:
            totals = self._new(symbol, trade.continuous)
        data = self.quotes[symbol]
        if ts < calendar.day_start_ms:
            return  # a correction of an earlier day; today's totals are none of its business
        if ts > data.ts:
            data.ts = ts
        if rule & VOLUME:
            totals.volume += volume
            totals.notional += notional
            data.trades += 1
        if rule == ALL or rule & HIGH_LOW:
            if data.high is None or price > data.high:
                data.high = price
            if data.low is None or price < data.low:
                data.low = price
        if rule & LAST:
            if ts >= totals.last_ts:
                totals.last_ts = ts
                data.last = price
                if data.open is None:
                    data.open, totals.open_ts = price, ts
            elif ts < totals.open_ts:
                data.open, totals.open_ts = price, ts
        self._traded.add(symbol)

    def on_quote(self, quote: AnyQuote) -> None:
        symbol, ts = quote.symbol, quote.ts
        calendar = self._always if quote.continuous else self._stocks
        if ts >= calendar.change_ms:
            self._move(calendar, ts)
        data = self.quotes.get(symbol)
        if data is None:
            self._new(symbol, quote.continuous)
            data = self.quotes[symbol]
        data.bid = quote.bid or None
        data.ask = quote.ask or None
        data.bid_size = quote.bid_size
        data.ask_size = quote.ask_size
        if ts > data.ts:
            data.ts = ts
        self._changed.add(symbol)

    def on_second_bar(self, bar: AnyBar) -> None:
        self._on_bar(bar, seconds=True)

    def on_minute_bar(self, bar: AnyBar) -> None:
        self._on_bar(bar, seconds=False)

    def _on_bar(self, bar: AnyBar, seconds: bool) -> None:
        """Aggregates fill in what trades cannot: a feed without trades, or totals from before we joined."""
        calendar = self._always if bar.continuous else self._stocks
        if bar.start >= calendar.change_ms:
            self._move(calendar, bar.start)
        totals = self._totals.get(bar.symbol) or self._new(bar.symbol, bar.continuous)
        data = self.quotes[bar.symbol]
        if bar.start < calendar.day_start_ms:
            return
        if bar.day_volume is not None and units(bar.day_volume) > totals.official_volume:
            totals.official_volume, totals.official_vwap = units(bar.day_volume), bar.day_vwap
        if bar.day_open:
            data.open, totals.open_ts = bar.day_open, 0
        if not data.trades:  # no trades in this feed: the aggregates are all there is
            totals.by_seconds = totals.by_seconds or seconds
            if bar.day_volume is None and seconds == totals.by_seconds:  # pairs have no day's volume of the vendor's
                totals.official_volume += units(bar.volume)
            self._from_bar(data, totals, bar)
        self._traded.add(bar.symbol)

    def on_value(self, value: IndexValue) -> None:
        if value.ts >= self._stocks.change_ms:
            self._move(self._stocks, value.ts)
        totals = self._totals.get(value.symbol) or self._new(value.symbol, False)
        if value.ts >= max(totals.last_ts, self._stocks.day_start_ms):
            data = self.quotes[value.symbol]
            totals.last_ts = data.ts = value.ts
            _extend(data, value.value, value.value)
            data.last = value.value
            if data.open is None:
                data.open = value.value
            self._traded.add(value.symbol)

    def on_time(self, now_ms: int) -> None:
        self._calendars.now_ms = now_ms

    def collect(self, flush: Flush) -> None:
        if not (self._changed or self._traded or self._announce):
            return
        write, encode, out = self._out.begin(flush), self._encode, self._out
        if self._announce:
            self._announce = False
            out.announce()
        quotes, totals, checkpoint = self.quotes, self._totals, flush.checkpoint
        self.rounds += bool(self._traded)
        for symbol in self._traded:
            self._derive(quotes[symbol], totals[symbol], symbol)
        stocks, always = self._stocks.session, self._always.session
        for symbol in self._changed | self._traded:
            data, total = quotes[symbol], totals[symbol]
            data.session = always if total.continuous else stocks
            body = encode(data)
            write(symbol, data.ts, body)
            checkpoint += (f"quote:{symbol}", b"[%d,%b,%b]" % (out.seq(symbol), body, encode(total)))
        for name, cell_body in self._calendars.cells():
            checkpoint += (f"quote:{name}", cell_body)
        self._changed.clear()
        self._traded.clear()

    def restore(self, cells: Iterable[tuple[str, bytes]]) -> None:
        for symbol, body in cells:
            if self._calendars.restore(symbol, body):
                continue
            cell = self._cell.decode(body)
            self.quotes[symbol] = cell.data
            self._totals[symbol] = cell.totals
            self._out.restore(symbol, cell.seq)

    def resume(self, symbol: str, seq: int) -> None:
        self._out.restore(symbol, seq)

    def rewrite(self) -> None:
        self._traded.update(self.quotes)
        self._calendars.rewrite()
        self._announce = True

    def _new(self, symbol: str, continuous: bool) -> Totals:
        check_room(self.quotes)
        known = self._reference.get(symbol)
        self.quotes[symbol] = QuoteData(prev_close=known.prev_close if known else None)
        totals = self._totals[symbol] = Totals(continuous=continuous)
        return totals

    def _move(self, calendar: Calendar, ts: int) -> None:
        before = calendar.session
        new_day = self._calendars.move(calendar, ts)
        continuous = calendar is self._always
        if new_day:
            self._new_day(continuous)
        if new_day or calendar.session != before:  # also symbols that are silent now are in the new session
            self._changed.update(symbol for symbol, totals in self._totals.items() if totals.continuous is continuous)

    def _new_day(self, continuous: bool) -> None:
        for symbol, totals in self._totals.items():
            if totals.continuous is continuous:
                data = self.quotes[symbol]
                close = data.last if data.last is not None else data.prev_close
                self.quotes[symbol] = QuoteData(
                    data.last, data.bid, data.ask, data.bid_size, data.ask_size, ts=data.ts, prev_close=close
                )
                self._totals[symbol] = Totals(continuous=continuous)
                self._traded.add(symbol)

    def _from_bar(self, data: QuoteData, totals: Totals, bar: AnyBar) -> None:
        _extend(data, bar.high, bar.low)
        if bar.end >= totals.last_ts:
            totals.last_ts = bar.end
            data.last = bar.close
            data.ts = max(data.ts, bar.end)
        if data.open is None:
            data.open = bar.open

    def _derive(self, data: QuoteData, totals: Totals, symbol: str) -> None:
        if totals.official_volume > totals.volume:
            data.volume, data.vwap = number(totals.official_volume), totals.official_vwap
        else:
            data.volume, data.vwap = number(totals.volume), ratio(totals.notional, totals.volume)
        base = data.prev_close if data.prev_close is not None else data.open
        if data.last is not None and base:
            data.change = difference(data.last, base)
            data.change_pct = round(100 * (data.last - base) / base, 4)
        known = self._reference.get(symbol)
        if known is not None and known.avg_volume:
            data.rel_volume = round(data.volume / known.avg_volume, 4)


def _extend(data: QuoteData, high: float, low: float) -> None:
    if data.high is None or high > data.high:
        data.high = high
    if data.low is None or low < data.low:
        data.low = low


def difference(price: float, base: float) -> float:
    """Return price - base as a decimal without the dust of float subtraction (up to ten places)."""
    return round(price - base, 10)
