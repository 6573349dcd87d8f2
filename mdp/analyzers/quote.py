"""Keeps `quote:SYMBOL` from trades, quotes and aggregates: last, best bid and offer, totals of the trading day.

Invariant: volume, vwap and trades are exact over all trades of the trading day that were processed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Set
from copy import copy
from enum import IntEnum

import msgspec

from mdc.writer import Flush
from mdp.analyzer import Analyzer, Outlet
from mdp.days import held
from mdp.days.calendar import Calendar, Calendars
from mdp.days.held import MINUTES, SECONDS, VALUES, Held, Waiting
from mdp.enrich.facts import Facts, Seen
from mdp.events.bbo import Venues, best
from mdp.events.conditions import CANCEL, EXTENDED, HIGH_LOW, LAST, VOLUME
from mdp.events.exact import number, ratio, units
from mdp.events.vendor import AnyBar, AnyQuote, AnyTrade, Article, IndexValue
from mdp.reference import Known, Reference
from service.days.markets import Markets

UNQUOTED_MAX = 10_000  # symbols with news and without a quote; further ones have their news when they are quoted and named again
# Fields of a quote that are told, and what they are called in `Known`.
INFORMED = (
    *((name, name) for name in ("prev_close", "prev_open", "prev_high", "prev_low", "prev_volume", "prev_vwap", "avg_volume")),
    ("free_float", "shares"),
)


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
    prev_open: float | None = None
    prev_high: float | None = None
    prev_low: float | None = None
    prev_volume: int | float | None = None
    prev_vwap: float | None = None
    avg_volume: int | float | None = None
    free_float: int | float | None = msgspec.field(name="float", default=None)
    open_change: float | None = None
    spread: float | None = None
    last_size: int | float | None = None
    news_ts: int | None = None


class Totals(msgspec.Struct, array_like=True, gc=False):
    """What is summed up behind a quote; `volume` in units, `notional` in units²."""

    calendar: str  # the name of the one it lives by
    volume: int = 0
    notional: int = 0
    last_ts: int = 0
    official_volume: int = 0  # of the vendor's aggregates: more than ours when we joined during the day
    official_vwap: float | None = None
    open_ts: int = 0  # of the trade that gave the open; 0 = the vendor gave it
    by_seconds: bool = False  # official volume is summed from second aggregates, so minutes must not add to it
    regular: bool = False  # high and low are the regular session's; until then they are those of the extended hours
    close: float | None = None  # the regular session's last price: tomorrow's previous close
    close_ts: int = 0
    opened: bool = False  # the regular session's first trade was seen
    given: bool = False  # the operator's file says what was before this day


class Cell(msgspec.Struct, array_like=True, gc=False):
    """The checkpoint of one symbol."""

    seq: int
    data: QuoteData
    totals: Totals
    venues: Venues | None = None
    held: list[Held] | None = None


class Opening(IntEnum):
    """What `on_open` is told of: a trade before the regular session's, the first one of that, the open as the vendor says it."""

    BEFORE = 0
    TRADE = 1
    OFFICIAL = 2


OnOpen = Callable[[str, float, int, Calendar, Opening], None]  # (symbol, price, ts, calendar, what it is)


class QuoteAnalyzer(Analyzer):
    """Keeps the quote of every symbol of a partition. `reference` knows what the feed does not say of symbols."""

    name = "quote"

    def __init__(self, reference: Reference, markets: Markets | None = None) -> None:
        super().__init__()
        self.quotes: dict[str, QuoteData] = {}
        self.rounds = 0  # flushes in which a trade or a total changed: tells who ranks quotes when to look
        self.unranked: set[str] = set()  # symbols whose trades or totals changed; who ranks them takes them out
        self.on_open: OnOpen | None = None
        self._news_ts: dict[str, int] = {}  # of symbols that nobody quotes yet
        self._totals: dict[str, Totals] = {}
        self._venues: dict[str, Venues] = {}
        self._facts = Facts(reference)
        self._calendars = Calendars(markets)
        self._calendar_of = self._calendars.of.get
        self._waiting = Waiting()  # aggregates and index values of days that have not begun
        self._changed: set[str] = set()
        self._traded: set[str] = set()
        self.outlet = self._out = Outlet("quote")
        self._encode = msgspec.json.Encoder().encode
        self._cell = msgspec.json.Decoder(Cell)

    def on_source(self, source: str, market: str) -> None:
        self._calendars.source, self._calendars.market = source, market

    def on_feed_time(self, source: str, feed_ms: int) -> None:
        for calendar in self._calendars.due(source, feed_ms):
            self._move(calendar, feed_ms)

    def on_trade(self, trade: AnyTrade, rule: int, volume: int, notional: int) -> None:
        symbol, ts, price = trade.symbol, trade.ts, trade.price
        calendar = self._calendar_of(symbol) or self._new(symbol, trade)
        if ts >= calendar.change_ms:
            self._move(calendar, ts)
        elif ts < calendar.day_start_ms:
            self.earlier_day += 1
            self.passed.add(symbol)
            return  # a correction of an earlier day; today's totals are none of its business
        totals, data = self._totals[symbol], self.quotes[symbol]
        if ts > data.ts:
            data.ts = ts
        if rule & VOLUME:
            totals.volume += volume
            totals.notional += notional
            data.trades += 1
        elif rule & CANCEL:
            _take_back(data, totals, volume, notional)
        if rule & HIGH_LOW:
            if rule & EXTENDED or not totals.regular:
                self._range(data, totals, price, price, not rule & EXTENDED)
            elif price > data.high:  # type: ignore[operator]  # the first regular trade gave both
                data.high = price
            elif price < data.low:  # type: ignore[operator]
                data.low = price
        if rule & LAST:
            if ts >= totals.last_ts:
                totals.last_ts = ts
                data.last = price
                data.last_size = trade.size
            if not rule & EXTENDED:
                if ts >= totals.close_ts:
                    totals.close, totals.close_ts = price, ts
                if data.open is None or ts < totals.open_ts:
                    data.open, totals.open_ts = price, ts
                if not totals.opened:
                    totals.opened = True
                    if self.on_open is not None:
                        self.on_open(symbol, price, ts, calendar, Opening.TRADE)
            elif not totals.opened and self.on_open is not None:
                self.on_open(symbol, price, ts, calendar, Opening.BEFORE)
        self._traded.add(symbol)

    def on_article(self, article: Article, source: str) -> None:
        """Remember when a symbol's newest article was published: a grid shows it without a channel more for each row."""
        symbol, data = article.symbol, self.quotes.get(article.symbol)
        if data is None:
            if symbol and (symbol in self._news_ts or len(self._news_ts) < UNQUOTED_MAX):
                self._news_ts[symbol] = max(article.ts, self._news_ts.get(symbol, 0))
        elif data.news_ts is None or article.ts > data.news_ts:
            data.news_ts = article.ts
            self._changed.add(symbol)

    def on_quote(self, quote: AnyQuote) -> None:
        symbol, ts = quote.symbol, quote.ts
        calendar = self._calendar_of(symbol) or self._new(symbol, quote)
        if not calendar.day_start_ms:  # later ones move nothing: trades of before may still wait in their queue
            self._move(calendar, ts)
        data = self.quotes[symbol]
        if quote.venue is None:
            bid, ask, data.bid_size, data.ask_size = quote.bid, quote.ask, quote.bid_size, quote.ask_size
        else:
            venues = self._venues.get(symbol)
            if venues is None:
                venues = self._venues[symbol] = {}
            bid, data.bid_size, ask, data.ask_size = best(venues, quote)
        data.bid = bid or None
        data.ask = ask or None
        if ts > data.ts:
            data.ts = ts
        self._changed.add(symbol)

    def on_second_bar(self, bar: AnyBar) -> None:
        self._on_bar(bar, SECONDS)

    def on_minute_bar(self, bar: AnyBar) -> None:
        self._on_bar(bar, MINUTES)

    def _on_bar(self, bar: AnyBar, kind: int) -> None:
        symbol, start = bar.symbol, bar.start
        calendar = self._calendar_of(symbol) or self._new(symbol, bar)
        if not calendar.day_start_ms:
            self._move(calendar, start)
        if start >= calendar.day_end_ms:
            day_ms, regular = calendar.ahead(start)
            if self._hold(symbol, held.of_bar(bar, day_ms, kind, regular), calendar):
                return
        if start >= calendar.day_start_ms:
            self._take_bar(symbol, bar, kind == SECONDS, calendar)

    def _take_bar(self, symbol: str, bar: AnyBar | Held, seconds: bool, calendar: Calendar) -> None:
        """Aggregates fill in what trades cannot: a feed without trades, or totals from before we joined."""
        totals, data = self._totals[symbol], self.quotes[symbol]
        official = data.open is not None and not totals.open_ts
        if bar.day_volume is not None and units(bar.day_volume) > totals.official_volume:
            totals.official_volume, totals.official_vwap = units(bar.day_volume), bar.day_vwap
        if bar.day_open:
            data.open, totals.open_ts = bar.day_open, 0
        if not data.trades:  # no trades in this feed: the aggregates are all there is
            totals.by_seconds = totals.by_seconds or seconds
            if bar.day_volume is None and seconds == totals.by_seconds:  # pairs have no day's volume of the vendor's
                totals.official_volume += units(bar.volume)
            self._from_bar(data, totals, bar, not calendar.extended(bar.start))
        self._traded.add(symbol)
        if not official and data.open is not None and not totals.open_ts and self.on_open is not None:
            self.on_open(symbol, data.open, bar.start, calendar, Opening.OFFICIAL)

    def on_value(self, value: IndexValue) -> None:
        symbol, ts = value.symbol, value.ts
        calendar = self._calendar_of(symbol) or self._new(symbol, value)
        if not calendar.day_start_ms:
            self._move(calendar, ts)
        made = held.of_value(value.value, ts, calendar.day_start_ms)
        if ts >= calendar.day_end_ms:
            made.day_ms, _ = calendar.ahead(ts)
            if self._hold(symbol, made, calendar):
                return
        self._take_values(symbol, made, calendar)

    def _take_values(self, symbol: str, values: Held, calendar: Calendar) -> None:
        totals, data = self._totals[symbol], self.quotes[symbol]
        if values.end >= max(totals.last_ts, calendar.day_start_ms):
            totals.last_ts = totals.close_ts = data.ts = values.end
            self._range(data, totals, values.high, values.low, regular=True)
            data.last = totals.close = values.close
            first = data.open is None
            if first:
                data.open = values.open
            self._traded.add(symbol)
            if first and self.on_open is not None:
                self.on_open(symbol, values.open, values.start, calendar, Opening.OFFICIAL)

    def _hold(self, symbol: str, made: Held, calendar: Calendar) -> bool:
        """Let something wait for its day: trades of before may still be in their queue. False = its day has come after all."""
        while made.start >= calendar.day_end_ms:
            if self._waiting.add(symbol, made):
                self._traded.add(symbol)
                return True
            self._move(calendar, min(made.day_ms, self._waiting.oldest_ms(symbol)))
        return False

    def on_days(self, days: Mapping[str, int]) -> None:
        for calendar, ts in self._calendars.behind(days):
            self._move(calendar, ts)

    def on_facts(self, day_ms: int, known: Mapping[str, Known]) -> None:
        self._facts.learn(day_ms, known)
        for symbol in self.quotes.keys() & known.keys():
            if self._calendars.of[symbol].day_start_ms == day_ms:
                self._inform(symbol)

    def on_seen(self, day_ms: int, seen: Mapping[str, Seen]) -> None:
        self._facts.learn_seen(day_ms, seen)
        for symbol in self.quotes.keys() & seen.keys():
            if self._calendars.of[symbol].day_start_ms == day_ms:
                self._catch_up(symbol)

    def seen(self, symbol: str, calendar: Calendar) -> Seen | None:
        """Return what the vendor has seen of a symbol on the trading day of a calendar."""
        return self._facts.seen(symbol, calendar)

    @property
    def trading_days(self) -> Set[int]:
        return self._calendars.days_of("stocks")

    def collect(self, flush: Flush) -> None:
        if not (self._changed or self._traded or self._out.announce or self._out.late):
            return
        write, encode, out = self._out.begin(flush), self._encode, self._out
        quotes, totals, checkpoint, of = self.quotes, self._totals, flush.checkpoint, self._calendars.of
        changed = flush.chosen(self._changed | self._traded)
        flush.take(self._changed)
        traded = flush.take(self._traded)
        self.rounds += bool(traded)
        self.unranked.update(traded)
        for symbol in traded:
            self._derive(quotes[symbol], totals[symbol])
        due, waits = out.due(flush, changed)
        for symbol in due:
            data = quotes[symbol]
            bid, ask = data.bid, data.ask
            data.session = of[symbol].session
            data.spread = None if bid is None or ask is None else round(ask - bid, 10)
            body = encode(data)
            if symbol not in waits:
                write(symbol, data.ts, body)
            more, waiting = b"", self._waiting.of(symbol)
            if waiting is not None or symbol in self._venues:
                more = b",%b,%b" % (encode(self._venues.get(symbol)), encode(waiting))
            checkpoint += (f"quote:{symbol}", b"[%d,%b,%b%b]" % (out.seq(symbol), body, encode(totals[symbol]), more))
        for name, cell_body in self._calendars.cells():
            checkpoint += (f"quote:{name}", cell_body)

    def restore(self, cells: Iterable[tuple[str, bytes]]) -> None:
        for symbol, body in cells:
            if self._calendars.restore(symbol, body):
                continue
            cell = self._cell.decode(body)
            self._calendars.rejoin(symbol, cell.totals.calendar)
            self.quotes[symbol] = cell.data
            self._totals[symbol] = cell.totals
            if cell.venues is not None:
                self._venues[symbol] = cell.venues
            if cell.held is not None:
                self._waiting.restore(symbol, cell.held)
            self.unranked.add(symbol)
            self._out.restore(symbol, cell.seq)
            self._inform(symbol)

    @property
    def moved(self) -> bool:
        return self._calendars.moved

    def resume(self, symbol: str, seq: int) -> None:
        self._out.restore(symbol, seq)

    def rewrite(self) -> None:
        self._traded.update(self.quotes)
        self._calendars.rewrite()
        self._out.announce = True

    def forget(self, symbol: str) -> None:
        if self.quotes.pop(symbol, None) is not None:
            del self._totals[symbol]
            self._venues.pop(symbol, None)
            self._waiting.forget(symbol)
            self._calendars.leave(symbol)
            self._changed.discard(symbol)
            self._traded.discard(symbol)
            self.unranked.add(symbol)
            self.rounds += 1

    def restart(self, symbol: str) -> None:
        if symbol in self.quotes:
            self._venues.pop(symbol, None)
            self._waiting.forget(symbol)
            self._blank(symbol, self._totals[symbol].calendar)
            self._traded.add(symbol)

    def restart_source(self, source: str) -> None:
        self._calendars.restart(source)

    def day_start(self, symbol: str, ts: int) -> int | None:
        """Return the start (ms) of the trading day that holds `ts`, None for a symbol that is not known."""
        calendar = self._calendar_of(symbol)
        return None if calendar is None else calendar.day_start_of(ts)

    def snapshot(self, symbol: str) -> QuoteData | None:
        """Return a copy of a symbol's quote as it is now, None for a symbol that is not known."""
        data = self.quotes.get(symbol)
        if data is None:
            return None
        self._derive(data, self._totals[symbol])
        data.session = self._calendars.of[symbol].session
        data.spread = None if data.bid is None or data.ask is None else difference(data.ask, data.bid)
        return copy(data)

    def volumes(self, symbol: str) -> tuple[int, int]:
        """Return a known symbol's volume of the day in units: of the trades that were seen, and the vendor's own."""
        totals = self._totals[symbol]
        return totals.volume, totals.official_volume

    def _new(self, symbol: str, event: AnyTrade | AnyQuote | AnyBar | IndexValue) -> Calendar:
        calendar = self._calendars.join(symbol, event.continuous, event.listed)
        self._blank(symbol, calendar.name)
        return calendar

    def _blank(self, symbol: str, calendar: str) -> None:
        self.quotes[symbol] = QuoteData(news_ts=self._news_ts.pop(symbol, None))
        self._totals[symbol] = Totals(calendar, given=self._facts.gives(symbol))
        self._inform(symbol)
        self._catch_up(symbol)

    def _inform(self, symbol: str) -> None:
        """Put what is known of the symbol for its trading day into its quote; what is not known stays as it is."""
        data, given = self.quotes[symbol], self._totals[symbol].given
        known = self._facts.known(symbol, self._calendars.of[symbol], given)
        if known is None:
            return
        for field, name in INFORMED:
            if (value := getattr(known, name)) is not None:
                setattr(data, field, value)
        self._traded.add(symbol)

    def _catch_up(self, symbol: str) -> None:
        """Work in what the vendor has seen of the day, as if an aggregate with the day's values had come."""
        calendar = self._calendars.of[symbol]
        seen = self._facts.seen(symbol, calendar)
        if seen is None:
            return
        totals, data = self._totals[symbol], self.quotes[symbol]
        if seen.volume is not None and units(seen.volume) > totals.official_volume:
            totals.official_volume, totals.official_vwap = units(seen.volume), seen.vwap
        self._traded.add(symbol)
        if seen.ts < calendar.session_start_ms:
            return  # official values are made later
        if seen.high is not None and seen.low is not None:
            self._range(data, totals, seen.high, seen.low, regular=True)
        official = data.open is not None and not totals.open_ts
        if seen.open is not None and not official:
            data.open, totals.open_ts = seen.open, 0
            if self.on_open is not None:
                self.on_open(symbol, seen.open, seen.ts, calendar, Opening.OFFICIAL)

    def _move(self, calendar: Calendar, ts: int) -> None:
        """Go to the session of `ts`; days of which something was held come one after the other."""
        for day_ms in self._waiting.days(calendar.symbols, ts):
            if day_ms >= calendar.change_ms:
                self._go_to(calendar, day_ms)
            for symbol, one in self._waiting.take(calendar.symbols, day_ms):
                if one.kind == VALUES:
                    self._take_values(symbol, one, calendar)
                else:
                    self._take_bar(symbol, one, one.kind == SECONDS, calendar)
        if ts >= calendar.change_ms:
            self._go_to(calendar, ts)

    def _go_to(self, calendar: Calendar, ts: int) -> None:
        before, first = calendar.session, not calendar.day_start_ms
        new_day = calendar.move(ts)
        if new_day:
            self._new_day(calendar)
        elif first:  # what is known of this day could not be told before
            for symbol in calendar.symbols:
                self._inform(symbol)
                self._catch_up(symbol)
        if new_day or calendar.session != before:  # also symbols that are silent now are in the new session
            self._changed.update(calendar.symbols)

    def _new_day(self, calendar: Calendar) -> None:
        for symbol in calendar.symbols:
            data, totals = self.quotes[symbol], self._totals[symbol]
            close = totals.close if totals.close is not None else data.prev_close
            self.quotes[symbol] = QuoteData(
                data.last, data.bid, data.ask, data.bid_size, data.ask_size, ts=data.ts, prev_close=close,
                last_size=data.last_size, news_ts=data.news_ts,
            )  # fmt: skip
            self._totals[symbol] = Totals(calendar.name)
            self._inform(symbol)
            self._catch_up(symbol)
            self._traded.add(symbol)

    def _range(self, data: QuoteData, totals: Totals, high: float, low: float, regular: bool) -> None:
        if regular and not totals.regular:
            totals.regular = True
            data.high, data.low = high, low
        elif regular or not totals.regular:
            if data.high is None or high > data.high:
                data.high = high
            if data.low is None or low < data.low:
                data.low = low

    def _from_bar(self, data: QuoteData, totals: Totals, bar: AnyBar | Held, regular: bool) -> None:
        self._range(data, totals, bar.high, bar.low, regular)
        if bar.end >= totals.last_ts:
            totals.last_ts = bar.end
            data.last, data.last_size = bar.close, None
            data.ts = max(data.ts, bar.end)
        if regular:
            if bar.end >= totals.close_ts:
                totals.close, totals.close_ts = bar.close, bar.end
            if data.open is None:
                data.open = bar.open

    def _derive(self, data: QuoteData, totals: Totals) -> None:
        if totals.official_volume > totals.volume:
            data.volume, data.vwap = number(totals.official_volume), totals.official_vwap
        else:
            data.volume, data.vwap = number(totals.volume), ratio(totals.notional, totals.volume)
        last, first = data.last, data.open
        base = data.prev_close if data.prev_close is not None else first
        if last is not None and base:
            data.change = round(last - base, 10)
            data.change_pct = round(100 * (last - base) / base, 4)
        if last is not None and first is not None:
            data.open_change = round(last - first, 10)
        if data.avg_volume:
            data.rel_volume = round(data.volume / data.avg_volume, 4)


def _take_back(data: QuoteData, totals: Totals, volume: int, notional: int) -> None:
    """An earlier trade of this size and worth is none any more. It may be of before we joined: nothing falls below 0."""
    if data.trades and volume <= totals.volume and notional <= totals.notional:
        totals.volume -= volume
        totals.notional -= notional
        data.trades -= 1


def difference(price: float, base: float) -> float:
    """Return price - base as a decimal without the dust of float subtraction (up to ten places)."""
    return round(price - base, 10)
