"""Alerts to gaps on `alerts:gap`: the first trade of the pre-market, and the open, against the previous close.

Each at most once a day. Who joined when the session had begun takes no trade for the first one: then the open is what the
vendor's aggregates say. Else, where there are trades, a trade makes it, so that no other queue has a say in what is told.
"""

from __future__ import annotations

from collections.abc import Iterable, Set

import msgspec

from mdc.writer import Flush
from mdp.analyzer import Analyzer
from mdp.analyzers.alerts.alert import DEFAULT, Alerts, Thresholds, amount, decimal
from mdp.analyzers.quote import Opening, QuoteAnalyzer
from mdp.days.calendar import SEEN_MS, Calendar


class Opened(msgspec.Struct, array_like=True, gc=False):
    """What of a symbol's day was looked at: its pre-market, or also its open. `day_ms` 0 = nothing yet."""

    day_ms: int
    regular: bool
    missed: bool = False  # the session had begun when we joined


class GapAnalyzer(Analyzer):
    """Is told by `quotes` what opens a day, and what trades before it does."""

    name = "gap"

    def __init__(self, quotes: QuoteAnalyzer, thresholds: Thresholds = DEFAULT) -> None:
        super().__init__()
        quotes.on_open = self._open
        self._quotes = quotes.quotes
        self._pct = thresholds.gap_pct
        self._alerts = Alerts("alerts:gap", quotes)
        self._opened: dict[str, Opened] = {}
        self._traded: set[str] = set()  # calendars whose symbols trade: their aggregates are not all there is
        self._changed: set[str] = set()
        self._encode = msgspec.json.Encoder().encode
        self._cell = msgspec.json.Decoder(Opened)

    def collect(self, flush: Flush) -> None:
        self._alerts.collect(flush)
        for symbol in flush.take(self._changed):
            flush.checkpoint += (f"gap:{symbol}", self._encode(self._opened[symbol]))

    @property
    def urgent(self) -> Set[str]:
        return self._alerts.symbols

    def restore(self, cells: Iterable[tuple[str, bytes]]) -> None:
        for symbol, body in cells:
            self._opened[symbol] = self._cell.decode(body)

    def rewrite(self) -> None:
        self._alerts.rewrite()
        self._changed.update(self._opened)

    def forget(self, symbol: str) -> None:
        self._opened.pop(symbol, None)
        self._changed.discard(symbol)

    def restart(self, symbol: str) -> None:
        if symbol in self._opened:
            self._opened[symbol] = Opened(0, False)
            self._changed.add(symbol)

    def _open(self, symbol: str, price: float, ts: int, calendar: Calendar, opening: Opening) -> None:
        known, day_ms, regular = self._opened.get(symbol), calendar.day_start_ms, opening is not Opening.BEFORE
        if known is not None and known.day_ms == day_ms and (known.regular or not regular):
            return
        if not regular and ts >= calendar.session_start_ms:
            return  # after the close of a day without an open
        begins_ms = calendar.session_start_ms if regular else day_ms
        before = known is not None and known.day_ms > 0 and not (known.missed and known.day_ms == day_ms)
        seen = before or calendar.since_ms <= begins_ms + SEEN_MS
        official = opening is Opening.OFFICIAL
        if not official:
            self._traded.add(calendar.name)
        elif seen and calendar.name in self._traded:
            return  # the trade comes
        tell = seen or official
        self._opened[symbol] = Opened(day_ms, regular and tell, regular and not tell)
        self._changed.add(symbol)
        if tell:
            self._tell(symbol, price, ts, calendar, regular)

    def _tell(self, symbol: str, price: float, ts: int, calendar: Calendar, regular: bool) -> None:
        close = self._quotes[symbol].prev_close
        if not close:
            return
        gap_pct = round(100 * (price - close) / close, 4)
        if not gap_pct or abs(gap_pct) < self._pct:
            return
        kind, side = ("gap_up", "above") if gap_pct > 0 else ("gap_down", "below")
        begins = "opens" if regular else "the pre-market opens"
        note = f"{begins} {amount(abs(gap_pct))} % {side} the previous close of {decimal(close)}"
        session = "" if not calendar.extended_hours else "regular" if regular else "pre"
        self._alerts.add(self._alerts.make(symbol, kind, price, close, ts, note, session, gap_pct))
