"""Keeps what aggregates and index values say of a trading day that has not begun yet. Pure.

Streams are queues of their own: aggregates may be read far ahead of the trades of the day before, above all in a replay at full
speed. Were a day ended by them, those trades would be thrown away as too late. So they wait, added up by symbol: a day costs a
symbol a few records, however many aggregates there are, and they are in its checkpoint.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec

from mdp.events.exact import number, units

SECONDS, MINUTES, VALUES = range(3)
HELD_MAX = 16  # records of a symbol, some four days: what is more ends the day, whatever still waits elsewhere


class Held(msgspec.Struct, array_like=True, gc=False):
    """Aggregates (or index values) of one day and kind, added up as they came; fields as an aggregate has them.

    Those of the regular session and those that name the day's open are apart from others: they are told of as such.
    """

    day_ms: int  # when their trading day begins
    kind: int
    regular: bool
    start: int
    end: int
    open: float
    high: float
    low: float
    close: float
    volume: int | float = 0
    day_volume: int | float | None = None
    day_vwap: float | None = None
    day_open: float | None = None

    def like(self, other: Held) -> bool:
        """Whether both can be one record."""
        mine, its = (self.day_ms, self.kind, self.regular), (other.day_ms, other.kind, other.regular)
        return mine == its and bool(self.day_open) == bool(other.day_open)

    def add(self, newer: Held) -> None:
        """Take in what came later."""
        self.high, self.low = max(self.high, newer.high), min(self.low, newer.low)
        if newer.end >= self.end:
            self.end, self.close = newer.end, newer.close
        self.volume = number(units(self.volume) + units(newer.volume))
        if newer.day_volume is not None and (self.day_volume is None or newer.day_volume > self.day_volume):
            self.day_volume, self.day_vwap = newer.day_volume, newer.day_vwap
        self.day_open = newer.day_open or self.day_open


class Waiting:
    """What is held of the symbols of a partition."""

    def __init__(self) -> None:
        self._held: dict[str, list[Held]] = {}

    def add(self, symbol: str, held: Held) -> bool:
        """Hold something; return False when a symbol has as much as it may, and nothing was held."""
        own = self._held.setdefault(symbol, [])
        for known in own:
            if known.like(held):
                known.add(held)
                return True
        if len(own) >= HELD_MAX:
            return False
        own.append(held)
        return True

    def oldest_ms(self, symbol: str) -> int:
        """Return the first day of which something is held of a symbol, which must have something."""
        return min(one.day_ms for one in self._held[symbol])

    def of(self, symbol: str) -> list[Held] | None:
        """Return what a symbol's checkpoint has to keep, None = nothing."""
        return self._held.get(symbol)

    def restore(self, symbol: str, held: list[Held]) -> None:
        self._held[symbol] = held

    def forget(self, symbol: str) -> None:
        self._held.pop(symbol, None)

    def days(self, symbols: Iterable[str], until_ms: int) -> list[int]:
        """Return the days up to `until_ms` of which something is held of these symbols, the oldest first."""
        if not self._held:
            return []
        own = (self._held.get(symbol, ()) for symbol in symbols)
        return sorted({one.day_ms for many in own for one in many if one.day_ms <= until_ms})

    def take(self, symbols: Iterable[str], day_ms: int) -> list[tuple[str, Held]]:
        """Return (symbol, record) of a day in the order in which each symbol's came; they are held no longer."""
        found: list[tuple[str, Held]] = []
        for symbol in sorted(self._held.keys() & set(symbols)):
            own = self._held[symbol]
            found += ((symbol, one) for one in own if one.day_ms == day_ms)
            left = [one for one in own if one.day_ms != day_ms]
            if left:
                self._held[symbol] = left
            else:
                del self._held[symbol]
        return found


def of_bar(bar: Any, day_ms: int, kind: int, regular: bool) -> Held:
    """Return an aggregate as it is held."""
    return Held(
        day_ms, kind, regular, bar.start, bar.end, bar.open, bar.high, bar.low, bar.close, bar.volume,
        bar.day_volume, bar.day_vwap, bar.day_open,
    )  # fmt: skip


def of_value(value: float, ts: int, day_ms: int) -> Held:
    """Return an index's value as it is held; an index has no hours of its own that count apart."""
    return Held(day_ms, VALUES, True, ts, ts, value, value, value, value)
