"""Trades in, `alerts:range` out: a symbol's new session high or low, at most one alert a second, symbol and side."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

import msgspec

from mdc.writer import Flush
from mdp.analyzer import Analyzer
from mdp.conditions import HIGH_LOW
from mdp.events import AnyTrade, IndexValue
from mdp.sessions import Calendar

PAUSE_MS = 1_000
ALERTS_A_FLUSH_MAX = 50  # of one partition: an opening auction makes thousands; the rest waits for the next flush
Side = Literal["new_high", "new_low"]


class Alert(msgspec.Struct):
    """One alert; fields in the order of mdc.channels.ALERT_FIELDS. `prev` is the high or low before."""

    sym: str
    kind: Side
    price: float
    prev: float
    ts: int


class Extremes(msgspec.Struct, array_like=True):
    """The session's high and low of one symbol and when each was last alerted (event time, ms)."""

    high: float
    low: float
    day_ms: int
    high_alerted_ms: int = 0
    low_alerted_ms: int = 0


class RangeAnalyzer(Analyzer):
    """Watches session highs and lows. A trade may alert when its conditions let it change high and low."""

    name = "range"

    def __init__(self) -> None:
        self._extremes: dict[str, Extremes] = {}
        self._pending: dict[tuple[str, Side], Alert] = {}
        self._changed: set[str] = set()
        self._stocks = Calendar(continuous=False)
        self._always = Calendar(continuous=True)
        self._encode = msgspec.json.Encoder().encode
        self._cell = msgspec.json.Decoder(Extremes)

    def on_trade(self, trade: AnyTrade, rule: int, volume: int, notional: int) -> None:
        if rule & HIGH_LOW:
            self._see(trade.symbol, trade.price, trade.ts, self._always if trade.continuous else self._stocks)

    def on_value(self, value: IndexValue) -> None:
        self._see(value.symbol, value.value, value.ts, self._stocks)

    def collect(self, flush: Flush) -> None:
        for key in [key for key, alert in self._pending.items() if self._due(alert)][:ALERTS_A_FLUSH_MAX]:
            alert = self._pending.pop(key)
            flush.add_shared("alerts", "alerts:range", alert.ts, self._encode(alert))
            extremes = self._extremes[alert.sym]
            if alert.kind == "new_high":
                extremes.high_alerted_ms = alert.ts
            else:
                extremes.low_alerted_ms = alert.ts
        for symbol in self._changed:
            flush.checkpoint += (f"range:{symbol}", self._encode(self._extremes[symbol]))
        self._changed.clear()

    def restore(self, cells: Iterable[tuple[str, bytes]]) -> None:
        for symbol, body in cells:
            self._extremes[symbol] = self._cell.decode(body)

    def rewrite(self) -> None:
        self._changed.update(self._extremes)

    def _see(self, symbol: str, price: float, ts: int, calendar: Calendar) -> None:
        if ts >= calendar.change_ms:
            calendar.move(ts)
        extremes = self._extremes.get(symbol)
        if extremes is None or extremes.day_ms < calendar.day_start_ms:
            self._extremes[symbol] = Extremes(price, price, calendar.day_start_ms)
            self._changed.add(symbol)
        elif ts < calendar.day_start_ms:
            return
        elif price > extremes.high:
            self._alert(symbol, "new_high", price, extremes.high, ts)
            extremes.high = price
        elif price < extremes.low:
            self._alert(symbol, "new_low", price, extremes.low, ts)
            extremes.low = price

    def _alert(self, symbol: str, kind: Side, price: float, before: float, ts: int) -> None:
        waiting = self._pending.get((symbol, kind))
        prev = waiting.prev if waiting is not None else before
        self._pending[symbol, kind] = Alert(symbol, kind, price, prev, ts)
        self._changed.add(symbol)

    def _due(self, alert: Alert) -> bool:
        extremes = self._extremes[alert.sym]
        last = extremes.high_alerted_ms if alert.kind == "new_high" else extremes.low_alerted_ms
        return alert.ts >= last + PAUSE_MS or alert.ts < last
