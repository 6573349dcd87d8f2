"""Alerts to a symbol's new high or low of the session on `alerts:range`, at most once a second, symbol and side.

Invariant: the newest high and low of a session are always alerted: what comes within the second is conflated, not dropped.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Set
from typing import Literal

import msgspec

from mdc.writer import Flush
from mdp.analyzer import Analyzer
from mdp.conditions import EXTENDED, HIGH_LOW
from mdp.days.calendar import Calendars
from mdp.events import AnyTrade, IndexValue
from service.days.markets import Markets

PAUSE_MS = 1_000  # wall clock: it spares the readers
ALERTS_A_FLUSH_MAX = 50  # of one partition: an opening auction makes thousands; the rest waits for the next flush
Side = Literal["new_high", "new_low"]


class Alert(msgspec.Struct, gc=False):
    """One alert; fields in the order of mdc.channels.ALERT_FIELDS. `prev` is the high or low before."""

    sym: str
    kind: Side
    price: float
    prev: float
    ts: int


class Extremes(msgspec.Struct, array_like=True, gc=False):
    """The session's high and low of one symbol, the alerts that wait, and when each side was last alerted (wall clock, ms).

    They are those of `quote`: the regular session's; before its first trade of the day those of the extended hours.
    """

    calendar: str
    high: float
    low: float
    day_ms: int
    regular: bool
    high_waits: Alert | None = None
    low_waits: Alert | None = None
    high_alerted_ms: int = 0
    low_alerted_ms: int = 0


class RangeAnalyzer(Analyzer):
    """Watches session highs and lows. A trade may alert when its conditions let it change high and low."""

    name = "range"

    def __init__(self, markets: Markets | None = None) -> None:
        super().__init__()
        self._extremes: dict[str, Extremes] = {}
        self._waiting: dict[tuple[str, Side], None] = {}  # an ordered set: first come, first alerted
        self._changed: set[str] = set()
        self._calendars = Calendars(markets)
        self._now_ms = 0  # wall clock
        self._encode = msgspec.json.Encoder().encode
        self._cell = msgspec.json.Decoder(Extremes)

    def on_source(self, source: str) -> None:
        self._calendars.source = source

    def on_trade(self, trade: AnyTrade, rule: int, volume: int, notional: int) -> None:
        if rule & HIGH_LOW:
            self._see(trade.symbol, trade.price, trade.ts, trade.continuous, not rule & EXTENDED)

    def on_value(self, value: IndexValue) -> None:
        self._see(value.symbol, value.value, value.ts, value.continuous, regular=True)

    def on_days(self, days: Mapping[str, int]) -> None:
        for calendar, ts in self._calendars.behind(days):
            calendar.move(ts)

    def on_time(self, now_ms: int) -> None:
        self._now_ms = now_ms

    def collect(self, flush: Flush) -> None:
        if self._waiting:
            self._alert_due(flush)
        for symbol in flush.take(self._changed):
            flush.checkpoint += (f"range:{symbol}", self._encode(self._extremes[symbol]))
        for name, cell in self._calendars.cells():
            flush.checkpoint += (f"range:{name}", cell)

    @property
    def moved(self) -> bool:
        return self._calendars.moved

    @property
    def urgent(self) -> Set[str]:
        return {symbol for symbol, _ in self._waiting}

    def restore(self, cells: Iterable[tuple[str, bytes]]) -> None:
        for symbol, body in cells:
            if self._calendars.restore(symbol, body):
                continue
            extremes = self._cell.decode(body)
            self._calendars.rejoin(symbol, extremes.calendar)
            self._extremes[symbol] = extremes
            for alert in (extremes.high_waits, extremes.low_waits):
                if alert is not None:
                    self._waiting[symbol, alert.kind] = None

    def rewrite(self) -> None:
        self._changed.update(self._extremes)
        self._calendars.rewrite()

    def forget(self, symbol: str) -> None:
        self._extremes.pop(symbol, None)
        self._calendars.leave(symbol)
        self._changed.discard(symbol)
        for side in ("new_high", "new_low"):
            self._waiting.pop((symbol, side), None)

    def restart(self, symbol: str) -> None:
        extremes = self._extremes.get(symbol)
        if extremes is not None:
            extremes.day_ms = 0  # of no day: the next trade begins
            extremes.high_waits = extremes.low_waits = None
            self._changed.add(symbol)

    def restart_source(self, source: str) -> None:
        self._calendars.restart(source)

    def _see(self, symbol: str, price: float, ts: int, continuous: bool, regular: bool) -> None:
        calendar = self._calendars.of.get(symbol) or self._calendars.join(symbol, continuous)
        if ts >= calendar.change_ms:
            calendar.move(ts)
        elif ts < calendar.day_start_ms:
            return
        extremes = self._extremes.get(symbol)
        if extremes is None or extremes.day_ms < calendar.day_start_ms or regular > extremes.regular:
            self._extremes[symbol] = Extremes(calendar.name, price, price, calendar.day_start_ms, regular)
            self._changed.add(symbol)
        elif extremes.regular > regular:
            return
        elif price > extremes.high:
            prev = extremes.high_waits.prev if extremes.high_waits else extremes.high
            extremes.high, extremes.high_waits = price, Alert(symbol, "new_high", price, prev, ts)
            self._waiting[symbol, "new_high"] = None
            self._changed.add(symbol)
        elif price < extremes.low:
            prev = extremes.low_waits.prev if extremes.low_waits else extremes.low
            extremes.low, extremes.low_waits = price, Alert(symbol, "new_low", price, prev, ts)
            self._waiting[symbol, "new_low"] = None
            self._changed.add(symbol)

    def _alert_due(self, flush: Flush) -> None:
        now_ms, room = self._now_ms, ALERTS_A_FLUSH_MAX
        for symbol, side in list(self._waiting):
            if flush.only is not None and symbol not in flush.only:
                continue
            extremes = self._extremes[symbol]
            alert = extremes.high_waits if side == "new_high" else extremes.low_waits
            last_ms = extremes.high_alerted_ms if side == "new_high" else extremes.low_alerted_ms
            if last_ms <= now_ms < last_ms + PAUSE_MS:
                continue
            del self._waiting[symbol, side]
            if alert is None:
                continue  # of the day before
            flush.add_shared("alerts", "alerts:range", alert.ts, self._encode(alert))
            self._changed.add(symbol)
            if side == "new_high":
                extremes.high_waits, extremes.high_alerted_ms = None, now_ms
            else:
                extremes.low_waits, extremes.low_alerted_ms = None, now_ms
            room -= 1
            if not room:
                return
