"""Alerts to new highs and lows of a session on `alerts:range`: of the pre-market, the regular session and after hours.

A trade alerts when it is beyond the range of its session, and the first of a session when it is beyond the whole day so far. The
first of a day never does. What comes within the pause after an alert of the same symbol, session and side is conflated: the
newest of it is told when the pause is over.

Who joins during the regular session does not know its range. Where the vendor is asked for the day so far, the alerts of such a
symbol wait for it (`snapshot_ms` at most): trades only widen the range meanwhile, and so does what the vendor has seen.

Invariant: the alerts of a session and side are a chain, each `prev` the `price` before, to the session's high or low, but where
the vendor's word on the session so far comes between.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Set
from heapq import heappop, heappush

import msgspec

from mdc.writer import Flush
from mdp.analyzer import Analyzer
from mdp.analyzers.alerts.alert import DEFAULT, Alert, Alerts, Thresholds, decimal, paused
from mdp.analyzers.quote import QuoteAnalyzer
from mdp.days.calendar import SEEN_MS, Calendar, Calendars
from mdp.enrich.facts import Seen
from mdp.events.conditions import EXTENDED, HIGH_LOW
from mdp.events.vendor import AnyTrade, IndexValue
from service.days.markets import Markets

LATE_MS = 3_000  # the feed's time ends a pause so much later than a trade does: late trades must not find it ended
NEVER_MS = 2**60
PRE, REGULAR, POST = range(3)
SESSIONS = ("pre", "regular", "post")
WHOSE = ("the pre-market", "the regular session's", "the after-hours")
VALUES = "/values"  # those of indices come on a queue of their own: neither hurries the other's pauses, nor ends its days
THE_DAYS = "the day's"  # of markets whose official values are made all day
KINDS = {True: ("new_high", "above", "high"), False: ("new_low", "below", "low")}  # of a high, of a low


class Side(msgspec.Struct, array_like=True, gc=False):
    """A session's high or low, the alert that waits for the end of a pause, and when one was told last (ms by the feed)."""

    edge: float
    waits: Alert | None = None
    told_ms: int = 0


class Span(msgspec.Struct, array_like=True, gc=False):
    """A session's range."""

    high: Side
    low: Side


class Extremes(msgspec.Struct, array_like=True, gc=False):
    """The ranges of one symbol's day, by PRE, REGULAR, POST. What has no extended hours has REGULAR alone."""

    calendar: str
    queue: str
    day_ms: int
    spans: list[Span | None]


class OneRange(msgspec.Struct, array_like=True, gc=False):
    """What a checkpoint of before there were sessions has of a symbol: the regular session's range, or that before it."""

    calendar: str
    high: float
    low: float
    day_ms: int
    regular: bool


Waiting = tuple[str, int, bool]  # symbol, session, whether it is a high


class Waits:
    """Which alerts wait, and until when; the next one first. Of one queue, whose events come in one order."""

    def __init__(self) -> None:
        self.due_ms = NEVER_MS
        self._heap: list[tuple[int, Waiting]] = []

    def add(self, due_ms: int, waiting: Waiting) -> None:
        heappush(self._heap, (due_ms, waiting))
        self.due_ms = self._heap[0][0]

    def take(self, now_ms: int) -> list[Waiting]:
        """Return what is due, by time and then by name: in an order that no restart changes."""
        due = []
        while self._heap and self._heap[0][0] <= now_ms:
            due.append(heappop(self._heap)[1])
        self.due_ms = self._heap[0][0] if self._heap else NEVER_MS
        return due


class RangeAnalyzer(Analyzer):
    """Watches the ranges of sessions. A trade may alert when its conditions let it change high and low."""

    name = "range"

    def __init__(
        self, quotes: QuoteAnalyzer, markets: Markets | None = None, thresholds: Thresholds = DEFAULT
    ) -> None:  # fmt: skip
        super().__init__()
        self.on_alert: Callable[[Alert], None] | None = None  # told of each alert in the moment in which it is told
        self._alerts = Alerts("alerts:range", quotes)
        self._quotes = quotes
        self._snapshot_ms = thresholds.snapshot_ms
        self._joined_ms: dict[str, int] = {}  # calendar → when we heard of it first, during a session; 0 = from its beginning
        self._blind: dict[str, int] = {}  # symbols whose range is not known yet → until when (ms by the feed) it is waited for
        self._pause_ms = thresholds.pause_ms
        self._extremes: dict[str, Extremes] = {}
        self._waits_of: defaultdict[str, Waits] = defaultdict(Waits)
        self._waits = Waits()  # of the trades of the source whose events come now
        self._changed: set[str] = set()
        self._calendars = Calendars(markets)
        self._encode = msgspec.json.Encoder().encode
        self._cell = msgspec.json.Decoder(Extremes)

    def on_source(self, source: str, market: str) -> None:
        self._calendars.source, self._calendars.market = source, market
        self._waits = self._waits_of[source]

    def on_trade(self, trade: AnyTrade, rule: int, volume: int, notional: int) -> None:
        if trade.ts >= self._waits.due_ms:
            self._tell_due(self._waits, trade.ts)
        if rule & HIGH_LOW:
            self._see(
                trade.symbol, trade.price, trade.ts, trade.continuous, rule & EXTENDED, self._calendars.source, trade.listed
            )

    def on_value(self, value: IndexValue) -> None:
        queue = self._calendars.source + VALUES
        if value.ts >= self._waits_of[queue].due_ms:
            self._tell_due(self._waits_of[queue], value.ts)
        self._see(value.symbol, value.value, value.ts, value.continuous, 0, queue, value.listed)

    def on_seen(self, day_ms: int, seen: Mapping[str, Seen]) -> None:
        for symbol in self._extremes.keys() & seen.keys():
            calendar = self._calendars.of[symbol]
            if calendar.day_start_ms == self._extremes[symbol].day_ms == day_ms and calendar.market == "stocks":
                self._catch_up(symbol, seen[symbol], calendar)

    def on_days(self, days: Mapping[str, int]) -> None:
        for calendar, ts in self._calendars.behind(days):
            calendar.move(ts)

    def on_feed_time(self, source: str, feed_ms: int) -> None:
        for queue in (source, source + VALUES):
            self._tell_due(self._waits_of[queue], feed_ms - LATE_MS)

    def collect(self, flush: Flush) -> None:
        self._alerts.collect(flush)
        for symbol in flush.take(self._changed):
            flush.checkpoint += (f"range:{symbol}", self._encode(self._extremes[symbol]))
        for name, cell in self._calendars.cells():
            flush.checkpoint += (f"range:{name}", cell)

    @property
    def moved(self) -> bool:
        return self._calendars.moved

    @property
    def urgent(self) -> Set[str]:
        return self._alerts.symbols

    def restore(self, cells: Iterable[tuple[str, bytes]]) -> None:
        for symbol, body in cells:
            if self._calendars.restore(symbol, body):
                continue
            extremes = self._read(body)
            if extremes.queue.endswith(VALUES) and VALUES not in extremes.calendar:  # of before values had days of their own
                extremes.calendar = f"{extremes.queue}|{extremes.calendar.rpartition('|')[2]}"
            self._calendars.rejoin(symbol, extremes.calendar)
            self._joined_ms[extremes.calendar] = 0  # whoever wrote it has seen more than we know
            self._extremes[symbol] = extremes
            for session, high, side in _sides(extremes):
                if side.waits is not None:
                    self._waits_of[extremes.queue].add(side.told_ms + self._pause_ms, (symbol, session, high))

    def _read(self, body: bytes) -> Extremes:
        try:
            return self._cell.decode(body)
        except msgspec.ValidationError:
            known = msgspec.json.decode(body, type=OneRange)
            spans: list[Span | None] = [None, None, None]
            spans[REGULAR if known.regular else PRE] = Span(Side(known.high), Side(known.low))
            return Extremes(known.calendar, known.calendar.partition("|")[0], known.day_ms, spans)

    def rewrite(self) -> None:
        self._alerts.rewrite()
        self._changed.update(self._extremes)
        self._calendars.rewrite()

    def forget(self, symbol: str) -> None:
        self._extremes.pop(symbol, None)
        self._blind.pop(symbol, None)
        self._calendars.leave(symbol)
        self._changed.discard(symbol)

    def restart(self, symbol: str) -> None:
        extremes = self._extremes.get(symbol)
        if extremes is not None:
            extremes.day_ms = 0  # of no day: the next trade begins
            extremes.spans = [None, None, None]
            self._changed.add(symbol)

    def restart_source(self, source: str) -> None:
        for queue in (source, source + VALUES):
            self._calendars.restart(queue)
            self._tell_due(self._waits_of[queue], NEVER_MS)  # the tape has ended in a pause

    def _see(
        self, symbol: str, price: float, ts: int, continuous: bool, extended: int, queue: str, listed: bool
    ) -> None:  # fmt: skip
        calendar = self._calendars.of.get(symbol) or self._calendars.join(symbol, continuous, listed, queue)
        if ts >= calendar.change_ms:
            calendar.move(ts)
        elif ts < calendar.day_start_ms:
            return
        session = REGULAR
        if extended:
            begins_ms, ends_ms = calendar.official
            if begins_ms <= ts < ends_ms:
                return  # said to be of the extended hours, and timed in the regular ones
            session = PRE if ts < begins_ms else POST
        if calendar.name not in self._joined_ms:
            begins_ms, ends_ms = calendar.official
            self._joined_ms[calendar.name] = ts if calendar.extended_hours and begins_ms + SEEN_MS < ts < ends_ms else 0
        extremes = self._extremes.get(symbol)
        if extremes is None or extremes.day_ms < calendar.day_start_ms:
            extremes = self._begin_day(symbol, calendar, queue)
            if self._snapshot_ms and self._joined_ms[calendar.name] >= calendar.day_start_ms:
                self._wait_for_range(symbol, calendar)
        span = extremes.spans[session]
        if span is None:
            self._begin_session(symbol, extremes, session, price, ts)
        elif price > span.high.edge:
            self._go_beyond(symbol, extremes, session, True, span.high, price, ts)
        elif price < span.low.edge:
            self._go_beyond(symbol, extremes, session, False, span.low, price, ts)

    def _begin_day(self, symbol: str, calendar: Calendar, queue: str) -> Extremes:
        before = self._extremes.get(symbol)
        for _, _, side in () if before is None else _sides(before):
            self._tell_waiting(side)
        made = self._extremes[symbol] = Extremes(calendar.name, queue, calendar.day_start_ms, [None, None, None])
        return made

    def _wait_for_range(self, symbol: str, calendar: Calendar) -> None:
        """We joined when the session had begun: what the vendor has seen of it counts as soon as it is known."""
        self._blind[symbol] = self._joined_ms[calendar.name] + self._snapshot_ms
        if (seen := self._quotes.seen(symbol, calendar)) is not None:
            self._catch_up(symbol, seen, calendar)

    def _catch_up(self, symbol: str, seen: Seen, calendar: Calendar) -> None:
        """Widen the regular session's range by what the vendor has seen of it. What is within that was no news."""
        self._blind.pop(symbol, None)
        if seen.high is None or seen.low is None or seen.ts < calendar.session_start_ms:
            return  # it says nothing of the session yet
        extremes = self._extremes[symbol]
        span = extremes.spans[REGULAR]
        if span is None:
            extremes.spans[REGULAR] = Span(Side(seen.high), Side(seen.low))
        else:
            for sign, side, edge in ((1, span.high, seen.high), (-1, span.low, seen.low)):
                if sign * edge > sign * side.edge:
                    side.edge, side.waits = edge, None
        self._changed.add(symbol)

    def _begin_session(self, symbol: str, extremes: Extremes, session: int, price: float, ts: int) -> None:
        """The first trade of a session, but not of the day, is told when it is beyond what the day has seen."""
        others = [span for span in extremes.spans if span is not None]
        span = extremes.spans[session] = Span(Side(price), Side(price))
        self._changed.add(symbol)
        highest = max((other.high.edge for other in others), default=price)
        lowest = min((other.low.edge for other in others), default=price)
        for high, side, edge in ((True, span.high, highest), (False, span.low, lowest)):
            if (price > edge) if high else (price < edge):
                side.edge = edge
                self._go_beyond(symbol, extremes, session, high, side, price, ts)

    def _go_beyond(
        self, symbol: str, extremes: Extremes, session: int, high: bool, side: Side, price: float, ts: int
    ) -> None:  # fmt: skip
        self._changed.add(symbol)
        prev, side.edge = side.edge, price
        if symbol in self._blind:
            if ts < self._blind[symbol]:
                return
            del self._blind[symbol]
        if session == PRE and extremes.spans[REGULAR] is not None:
            return  # reported when the pre-market was over
        waits = paused(ts, side.told_ms, self._pause_ms)
        if not waits:
            self._tell_waiting(side)
        elif side.waits is not None:
            prev = side.waits.prev  # type: ignore[assignment]  # a range alert has one
        else:
            self._waits_of[extremes.queue].add(side.told_ms + self._pause_ms, (symbol, session, high))
        alert = self._alert(symbol, extremes, session, high, price, prev, ts)
        if waits:
            side.waits = alert
        else:
            side.told_ms = ts
            self._tell(alert)

    def _alert(
        self, symbol: str, extremes: Extremes, session: int, high: bool, price: float, prev: float, ts: int
    ) -> Alert:  # fmt: skip
        """Return the alert, its note naming the farthest of the day's ranges that the price has left."""
        kind, beyond, edge_name = KINDS[high]
        sign = 1 if high else -1
        others = [(sign * side.edge, True, at) for at, of_high, side in _sides(extremes) if of_high is high and at != session]
        passed = [one for one in others if sign * prev <= one[0] < sign * price]
        edge, _, whose = max([*passed, (sign * prev, False, session)])
        all_day = not self._calendars.of[symbol].extended_hours
        words = f"{beyond} {THE_DAYS if all_day else WHOSE[whose]} {edge_name} of {decimal(sign * edge)}"
        return self._alerts.make(symbol, kind, price, prev, ts, words, "" if all_day else SESSIONS[session])

    def _tell_waiting(self, side: Side) -> None:
        if side.waits is not None:
            self._tell(side.waits)
            side.waits, side.told_ms = None, side.told_ms + self._pause_ms

    def _tell(self, alert: Alert) -> None:
        self._alerts.add(alert)
        if self.on_alert is not None:
            self.on_alert(alert)

    def _tell_due(self, waits: Waits, now_ms: int) -> None:
        for symbol, session, high in waits.take(now_ms):
            extremes = self._extremes.get(symbol)
            span = extremes.spans[session] if extremes is not None else None
            side = None if span is None else span.high if high else span.low
            if side is not None and side.waits is not None and side.told_ms + self._pause_ms <= now_ms:
                self._tell_waiting(side)
                self._changed.add(symbol)


def _sides(extremes: Extremes) -> Iterator[tuple[int, bool, Side]]:
    """Yield session, whether it is the high, and the side, of every session that there was."""
    for session, span in enumerate(extremes.spans):
        if span is not None:
            yield session, True, span.high
            yield session, False, span.low
