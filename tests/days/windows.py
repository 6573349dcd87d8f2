"""Works out the sliding windows and the bars of one symbol from a list of all its trades."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

SLICE_MS, MINUTE_MS = 10_000, 60_000
KEEPS = {"1s": 120, "1m": 390, "5s": 120, "5m": 234, "1h": 120, "1d": 30}
Number = int | float


def number(value: Decimal) -> Number:
    """Return a decimal as JSON readers see it."""
    return int(value) if value == value.to_integral_value() else float(value)


@dataclass
class Counted:
    """A trade that counts as volume, in the slice (ms) that was in the making when it came. `side` 1 = bought, -1 = sold."""

    slice_ms: int
    size: Decimal
    worth: Decimal
    side: int


class Windows:
    """The trades of a symbol by slices; sums are made anew from all of them."""

    def __init__(self) -> None:
        self.trades: list[Counted] = []
        self.slice_ms = 0

    def add(self, ts: int, size: Decimal, worth: Decimal, side: int) -> bool:
        """Take a trade; return whether it is the first one of its slice."""
        own = ts - ts % SLICE_MS
        first = own > self.slice_ms
        self.slice_ms = max(self.slice_ms, own)
        self.trades.append(Counted(self.slice_ms, size, worth, side))
        return first

    def last(self, minutes: int, now_ms: int) -> list[Counted]:
        """Return what a window holds whose newest slice is `now_ms`: whole slices, for the hour whole minutes."""
        if minutes == 60:
            first = now_ms - now_ms % MINUTE_MS - 60 * MINUTE_MS
            return self._since(first + MINUTE_MS)
        return self._since(now_ms - (6 * minutes - 1) * SLICE_MS)

    def usual(self, now_ms: int) -> tuple[int, Decimal]:
        """Return how many minutes of the hour before the one in the making had trades, and their volume."""
        this = now_ms - now_ms % MINUTE_MS
        found = [one for one in self.last(60, now_ms) if one.slice_ms < this]
        return len({one.slice_ms // MINUTE_MS for one in found}), sum((one.size for one in found), Decimal(0))

    def _since(self, first_ms: int) -> list[Counted]:
        return self.trades[bisect_left(self.trades, first_ms, key=lambda one: one.slice_ms) :]

    def told(self, now_ms: int) -> dict[str, Number | None]:
        """Return the fields of the statistics, without their time."""
        found: dict[str, Number | None] = {}
        for minutes in (1, 5, 60):
            window, name = self.last(minutes, now_ms), f"{minutes}m"
            volume = sum((one.size for one in window), Decimal(0))
            found[f"trades_{name}"] = len(window)
            found[f"volume_{name}"] = number(volume)
            found[f"notional_{name}"] = float(sum((one.worth for one in window), Decimal(0)))
            found[f"average_{name}"] = number(volume) / len(window) if window else None
            found[f"largest_{name}"] = number(max((one.size for one in window), default=Decimal(0)))
            found[f"bought_{name}"] = number(sum((one.size for one in window if one.side > 0), Decimal(0)))
            found[f"sold_{name}"] = number(sum((one.size for one in window if one.side < 0), Decimal(0)))
        return found


Piece = dict[str, Any]  # t open high low close volume worth trades


class Bars:
    """The bars of one width: the trades of each, as far as they came while it could be corrected."""

    def __init__(self, width_ms: int, retained: int) -> None:
        self._width_ms, self._retained = width_ms, retained
        self._starts: list[int] = []
        self._trades: dict[int, list[tuple[Any, int, Decimal, Decimal]]] = {}
        self.late = 0

    def add(self, rule: Any, ts: int, price: Decimal, size: Decimal) -> None:
        """Take a trade, or count it as too late: all bars that are closed, but the newest few, stay as they are."""
        start = ts - ts % self._width_ms
        closed = self._starts[:-1][-self._retained :]
        if len(closed) == self._retained and start < closed[0]:
            self.late += 1
            return
        if start not in self._trades:
            insort(self._starts, start)
            self._trades[start] = []
        self._trades[start].append((rule, ts, price, size))

    def made(self) -> list[Piece]:
        """Return all bars, oldest first."""
        return [_bar(start, self._trades[start]) for start in self._starts]


def _bar(start: int, trades: list[tuple[Any, int, Decimal, Decimal]]) -> Piece:
    prices = [price for rule, _, price, _ in trades if rule.range]
    lasts = [(ts, n, price) for n, (rule, ts, price, _) in enumerate(trades) if rule.last]
    counted = [(price, size) for rule, _, price, size in trades if rule.volume]
    return {
        "t": start, "open": min(lasts)[2] if lasts else None, "high": max(prices, default=None), "low": min(prices, default=None),
        "close": max(lasts)[2] if lasts else None, "volume": sum((size for _, size in counted), Decimal(0)),
        "worth": sum((price * size for price, size in counted), Decimal(0)), "trades": len(counted),
    }  # fmt: skip


def widened(bars: list[Piece], start_of: Callable[[int], int]) -> list[Piece]:
    """Return wider bars that are made of narrow ones."""
    groups: dict[int, list[Piece]] = {}
    for bar in bars:
        groups.setdefault(start_of(bar["t"]), []).append(bar)
    return [
        {
            "t": start, "open": next((one["open"] for one in group if one["open"] is not None), None),
            "high": max((one["high"] for one in group if one["high"] is not None), default=None),
            "low": min((one["low"] for one in group if one["low"] is not None), default=None),
            "close": next((one["close"] for one in reversed(group) if one["close"] is not None), None),
            "volume": sum((one["volume"] for one in group), Decimal(0)), "worth": sum((one["worth"] for one in group), Decimal(0)),
            "trades": sum(one["trades"] for one in group),
        }
        for start, group in sorted(groups.items())
    ]  # fmt: skip


def row(bar: Piece) -> list[Number | None]:
    """Return a bar as a row of the history."""
    volume = bar["volume"]
    prices = [None if bar[name] is None else float(bar[name]) for name in ("open", "high", "low", "close")]
    return [bar["t"], *prices, number(volume), float(bar["worth"] / volume) if volume else None, bar["trades"]]
