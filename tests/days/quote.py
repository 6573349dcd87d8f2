"""Works out the quote of one symbol from its events, by the table in mdp/README.md."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

from tests.days.calendar import TradingDay, session_of
from tests.days.conditions import Rule
from tests.days.windows import Number, number

Event = dict[str, Any]


def percent(value: Number | None, base: Number | None) -> float | None:
    """Return by how many per cent `value` is away from `base`, to four places."""
    return None if value is None or not base else round(100 * (value - base) / base, 4)


class Quote:
    """A symbol's day, and what stays of the days before. `known` = its row of the operator's file."""

    def __init__(self, known: dict[str, Number]) -> None:
        self._known = known
        self.prev_close: Number | None = known.get("prev_close")
        self.last: tuple[int, float, Number] | None = None  # time, price, size
        self.day: TradingDay | None = None
        self.book: Event | None = None
        self.ts = 0
        self._begin()

    def _begin(self) -> None:
        self.last_ts = 0
        self.trades, self.volume, self.worth = 0, Decimal(0), Decimal(0)
        self.first: tuple[int, float] | None = None  # of the regular session
        self.close: tuple[int, float] | None = None
        self.ranges: dict[bool, list[float]] = {False: [], True: []}  # by whether it is of the extended hours

    def move(self, day: TradingDay) -> None:
        """Go on to a trading day."""
        if self.day is not None and day.start > self.day.start:
            self.prev_close = self.close[1] if self.close is not None else self.prev_close
            self._begin()
        self.day = day

    def take_book(self, event: Event) -> None:
        self.book, self.ts = event, max(self.ts, event["t"])

    def take(self, event: Event, rule: Rule, size: Decimal) -> None:
        """Take a trade of this day."""
        ts, price = event["t"], float(event["p"])
        self.ts = max(self.ts, ts)
        if rule.volume:
            self.trades, self.volume, self.worth = self.trades + 1, self.volume + size, self.worth + size * event["p"]
        if rule.range:
            self.ranges[rule.extended].append(price)
        if not rule.last:
            return
        if ts >= self.last_ts:
            self.last, self.last_ts = (ts, price, number(size)), ts
        if not rule.extended:
            if self.close is None or ts >= self.close[0]:
                self.close = ts, price
            if self.first is None or ts < self.first[0]:
                self.first = ts, price

    @property
    def open(self) -> float | None:
        return None if self.first is None else self.first[1]

    def told(self, now_ms: int) -> dict[str, Any]:
        """Return the fields that trades decide, with the session of `now_ms`."""
        last = None if self.last is None else self.last[1]
        prices = self.ranges[False] or self.ranges[True]
        first, volume, average = self.open, number(self.volume), self._known.get("avg_volume")
        base = self.prev_close if self.prev_close is not None else first
        return {
            "last": last, "last_size": None if self.last is None else self.last[2], "open": first,
            "high": max(prices, default=None), "low": min(prices, default=None), "volume": volume, "trades": self.trades,
            "vwap": float(self.worth / self.volume) if self.volume else None, "prev_close": self.prev_close,
            "change": None if last is None or not base else round(last - base, 10), "change_pct": percent(last, base),
            "open_change": None if last is None or first is None else round(last - first, 10), "avg_volume": average,
            "rel_volume": round(volume / average, 4) if average else None, "float": self._known.get("float"),
            "session": session_of(now_ms), **dict.fromkeys(("prev_open", "prev_high", "prev_low", "prev_volume", "prev_vwap")),
        }  # fmt: skip

    def with_book(self, now_ms: int) -> dict[str, Any]:
        """Return the whole quote."""
        bid, ask = (None, None) if self.book is None else (float(self.book["bp"]), float(self.book["ap"]))
        sizes = (None, None) if self.book is None else (self.book["bs"], self.book["as"])
        spread = None if bid is None or ask is None else round(ask - bid, 10)
        return self.told(now_ms) | {
            "bid": bid, "ask": ask, "bid_size": sizes[0], "ask_size": sizes[1], "spread": spread, "ts": self.ts
        }  # fmt: skip
