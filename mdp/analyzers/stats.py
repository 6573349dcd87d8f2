"""Sums up what was traded in the last 1, 5 and 60 minutes on `stats:SYMBOL`: trades, volume, worth, the largest, bought and sold.

Invariant: a window is whole slices: the one in the making and as many closed ones as it holds (10 s for 1 and 5 minutes, a
minute for 60). A trade counts in the slice that is in the making when it comes, however late it is, so that the sums are those
of the order of the feed. Time is the symbol's newest trade's, or the feed's less 3 s when that is further: a trade that comes a
little late counts in the same slice at any speed of a replay.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable

import msgspec

from mdc.writer import Flush
from mdp.analyzer import NONE, Analyzer, Outlet
from mdp.analyzers.quote import QuoteAnalyzer
from mdp.events.conditions import VOLUME
from mdp.events.exact import UNITS, number
from mdp.events.vendor import AnyTrade

SLICE_MS, MINUTE_MS = 10_000, 60_000
SLICES_1M, SLICES_5M, MINUTES_60M = 6, 30, 60
LATE_MS = 3_000
NEVER = 2**200  # more than any volume
CLOSED, HOUR = "|closed", "|hour"  # no symbol contains a bar
BUYER, SELLER = 2, 1  # conditions of crypto: who took


class Slice(msgspec.Struct, array_like=True, gc=False):
    """What was traded from `start` (ms) on; `volume`, `bought`, `sold`, `largest` in units, `notional` in units²."""

    start: int
    trades: int = 0
    volume: int = 0
    notional: int = 0
    largest: int = 0
    bought: int = 0
    sold: int = 0

    def add(self, other: Slice) -> None:
        self.trades += other.trades
        self.volume += other.volume
        self.notional += other.notional
        self.largest = max(self.largest, other.largest)
        self.bought += other.bought
        self.sold += other.sold


class Activity(msgspec.Struct, gc=False):
    """The windows of one symbol. `of_minute` = the closed slices of the minute in the making; `trades_…` are sums."""

    source: str
    current: Slice
    of_minute: Slice
    closed: deque[Slice]
    minutes: deque[Slice]
    trades_closed: int = 0
    trades_minutes: int = 0
    volume_minutes: int = 0  # of `minutes`
    look_at: int = 0  # the volume of the slice in the making, in units, at which `on_volume` is asked; 0 = at the first trade

    def trades(self, minutes: int) -> int:
        """Return how many trades the window of 1, 5 or 60 minutes holds."""
        if minutes == 60:
            return self.trades_minutes + self.of_minute.trades + self.current.trades
        if minutes == 5:
            return self.trades_closed + self.current.trades
        return sum(part.trades for part in self.window(minutes))

    def volume(self, minutes: int) -> int:
        """Return the volume of a window, in units."""
        return sum(part.volume for part in self.window(minutes))

    def window(self, minutes: int) -> list[Slice]:
        """Return the slices of a window."""
        if minutes == 60:
            return [*self.minutes, self.of_minute, self.current]
        if minutes == 5:
            return [*self.closed, self.current]
        first, parts = self.current.start - (SLICES_1M - 1) * SLICE_MS, [self.current]
        for part in reversed(self.closed):
            if part.start < first:
                break
            parts.append(part)
        return parts

    def move(self, ts: int) -> bool:
        """Let the slice of `ts` (ms) be the one in the making; return whether a slice was closed."""
        start = ts - ts % SLICE_MS
        if start <= self.current.start:
            return False
        self._close()
        self.current, self.look_at = Slice(start), 0
        minute = start - start % MINUTE_MS
        if minute > self.of_minute.start:
            if self.of_minute.trades:
                self.minutes.append(self.of_minute)
                self.trades_minutes += self.of_minute.trades
                self.volume_minutes += self.of_minute.volume
            self.of_minute = Slice(minute)
        while self.closed and self.closed[0].start <= start - SLICES_5M * SLICE_MS:
            self.trades_closed -= self.closed.popleft().trades
        while self.minutes and self.minutes[0].start <= minute - MINUTES_60M * MINUTE_MS:
            gone = self.minutes.popleft()
            self.trades_minutes -= gone.trades
            self.volume_minutes -= gone.volume
        return True

    def _close(self) -> None:
        if self.current.trades:
            self.closed.append(self.current)
            self.trades_closed += self.current.trades
            self.of_minute.add(self.current)

    @property
    def empty(self) -> bool:
        return not (self.current.trades or self.of_minute.trades or self.minutes)


class StatsData(msgspec.Struct, gc=False):
    """The published state; fields in the order of mdc.channels.STATS_FIELDS. `average` and `largest` are sizes of a trade."""

    trades_1m: int
    volume_1m: int | float
    notional_1m: float
    average_1m: float | None
    largest_1m: int | float
    bought_1m: int | float
    sold_1m: int | float
    trades_5m: int
    volume_5m: int | float
    notional_5m: float
    average_5m: float | None
    largest_5m: int | float
    bought_5m: int | float
    sold_5m: int | float
    trades_60m: int
    volume_60m: int | float
    notional_60m: float
    average_60m: float | None
    largest_60m: int | float
    bought_60m: int | float
    sold_60m: int | float
    ts: int


class Head(msgspec.Struct, array_like=True, gc=False):
    """The checkpoint of one symbol; its closed slices and minutes are cells of their own, written when they change."""

    seq: int
    source: str
    current: Slice


# Returns the volume of the slice in the making, in units, at which to be asked again; in a new slice it is asked anyway.
OnVolume = Callable[[AnyTrade, Activity], int]


class StatsAnalyzer(Analyzer):
    """Keeps the windows of every symbol. `quotes` knows the best bid and offer: above the middle somebody bought."""

    name = "stats"
    cells = ("", CLOSED, HOUR)

    def __init__(self, quotes: QuoteAnalyzer) -> None:
        super().__init__()
        self.active: dict[str, Activity] = {}
        self.unranked: set[str] = set()  # windows that changed; who ranks them takes them out
        self.on_volume: OnVolume | None = None
        self._quotes = quotes.quotes
        self._source = ""
        self._swept: dict[str, int] = {}  # source → the slice to which all of its symbols were moved
        self._changed: set[str] = set()
        self._closed: set[str] = set()  # a slice was closed: its cells, and what nobody watches, are written
        self.outlet = self._out = Outlet("stats")
        self._encode = msgspec.json.Encoder().encode
        self._head = msgspec.json.Decoder(Head)
        self._slices = msgspec.json.Decoder(list[Slice])

    def on_source(self, source: str, market: str) -> None:
        self._source = source

    def on_trade(self, trade: AnyTrade, rule: int, volume: int, notional: int) -> None:
        if not rule & VOLUME or not volume:
            return
        symbol, ts = trade.symbol, trade.ts
        activity = self.active.get(symbol)
        if activity is None:
            activity = self.active[symbol] = _begin(self._source, ts)
        elif ts >= activity.current.start + SLICE_MS and activity.move(ts):
            self._closed.add(symbol)
        current = activity.current
        current.trades += 1
        current.volume += volume
        current.notional += notional
        if volume > current.largest:
            current.largest = volume
        if current.volume >= activity.look_at:
            activity.look_at = NEVER if self.on_volume is None else self.on_volume(trade, activity)
        side = self._side(trade)
        if side > 0:
            current.bought += volume
        elif side < 0:
            current.sold += volume
        self._changed.add(symbol)

    def on_feed_time(self, source: str, feed_ms: int) -> None:
        start = feed_ms - LATE_MS - (feed_ms - LATE_MS) % SLICE_MS
        if start == self._swept.get(source):
            return
        self._swept[source] = start
        for symbol, activity in self.active.items():
            if activity.source == source and not activity.empty and activity.move(start):
                self._closed.add(symbol)
                self._changed.add(symbol)

    def collect(self, flush: Flush) -> None:
        if not (self._changed or self._out.announce):
            return
        write = self._out.begin(flush)
        encode, checkpoint = self._encode, flush.checkpoint
        closed, watched = set(flush.take(self._closed)), flush.watched.get(self.name, NONE)
        for symbol in flush.take(self._changed):
            activity = self.active[symbol]
            self.unranked.add(symbol)
            if symbol in closed or symbol in watched or not self._out.seq(symbol):
                write(symbol, activity.current.start, encode(_data(activity)))
            checkpoint += (
                f"stats:{symbol}", encode(Head(self._out.seq(symbol), activity.source, activity.current)),
            )  # fmt: skip
            if symbol in closed:
                checkpoint += (f"stats:{symbol}{CLOSED}", encode(list(activity.closed)))
                checkpoint += (f"stats:{symbol}{HOUR}", encode(list(activity.minutes)))

    def restore(self, cells: Iterable[tuple[str, bytes]]) -> None:
        heads: dict[str, Head] = {}
        slices: dict[str, list[Slice]] = {}
        for key, body in cells:
            if "|" in key:
                slices[key] = self._slices.decode(body)
            else:
                heads[key] = self._head.decode(body)
        for symbol, head in heads.items():
            closed, minutes = slices.get(symbol + CLOSED, []), slices.get(symbol + HOUR, [])
            minute = Slice(head.current.start - head.current.start % MINUTE_MS)
            for part in closed:
                if part.start >= minute.start:
                    minute.add(part)
            looked = -1 if head.current.trades else 0  # not at the first trade of the slice: that was before
            self.active[symbol] = Activity(
                head.source, head.current, minute, deque(closed), deque(minutes),
                sum(part.trades for part in closed), sum(part.trades for part in minutes), sum(part.volume for part in minutes),
                looked,
            )  # fmt: skip
            self._out.restore(symbol, head.seq)
            self.unranked.add(symbol)

    def resume(self, symbol: str, seq: int) -> None:
        self._out.restore(symbol, seq)

    def rewrite(self) -> None:
        self._changed.update(self.active)
        self._closed.update(self.active)
        self._out.announce = True

    def forget(self, symbol: str) -> None:
        if self.active.pop(symbol, None) is not None:
            self._changed.discard(symbol)
            self._closed.discard(symbol)
            self.unranked.add(symbol)

    def restart(self, symbol: str) -> None:
        activity = self.active.get(symbol)
        if activity is not None:
            self.active[symbol] = _begin(activity.source, 0)
            self._changed.add(symbol)
            self._closed.add(symbol)

    def restart_source(self, source: str) -> None:
        self._swept.pop(source, None)

    def _side(self, trade: AnyTrade) -> int:
        """Return 1 when a buyer took, -1 when a seller did, 0 when it cannot be told."""
        if trade.continuous:
            codes = trade.conditions or ()
            return 1 if BUYER in codes else -1 if SELLER in codes else 0
        quote = self._quotes.get(trade.symbol)
        if quote is None or quote.bid is None or quote.ask is None:
            return 0
        twice, middle = trade.price * 2, quote.bid + quote.ask
        return 1 if twice > middle else -1 if twice < middle else 0


def _begin(source: str, ts: int) -> Activity:
    return Activity(source, Slice(ts - ts % SLICE_MS), Slice(ts - ts % MINUTE_MS), deque(), deque())


def _data(activity: Activity) -> StatsData:
    values: list[int | float | None] = []
    for minutes in (1, 5, 60):
        total = Slice(0)
        for part in activity.window(minutes):
            total.add(part)
        average = number(total.volume) / total.trades if total.trades else None
        worth = total.notional / (UNITS * UNITS)
        values += [
            total.trades, number(total.volume), worth, average, number(total.largest), number(total.bought), number(total.sold),
        ]  # fmt: skip
    return StatsData(*values, activity.current.start)  # type: ignore[call-arg, arg-type]
