"""Keeps what is known of a partition's symbols for each trading day: the operator's file first, then what the vendor says.

Invariant: facts of one trading day never show in another one.
"""

from __future__ import annotations

from collections.abc import Mapping
from operator import attrgetter
from typing import TypeVar

from msgspec import Struct

from mdp.days.calendar import Calendar
from mdp.reference import Known, Reference

DAYS_MAX = 4  # beside each other: a live feed and tapes of other days; the one that was told first makes room
_all = attrgetter(*Known.__struct_fields__)
T = TypeVar("T")


class Seen(Struct, frozen=True, array_like=True, gc=False):
    """What the vendor has seen of a symbol on a day until `ts` (ms); null = not known. `open high low` are the official ones."""

    ts: int
    volume: float | None = None
    vwap: float | None = None
    open: float | None = None
    high: float | None = None
    low: float | None = None


class Facts:
    """Facts by trading day (its start, ms) and symbol. The vendor's are of stocks."""

    def __init__(self, reference: Reference) -> None:
        self._reference = reference
        self._known: dict[int, dict[str, Known]] = {}
        self._seen: dict[int, dict[str, Seen]] = {}

    def learn(self, day_ms: int, known: Mapping[str, Known]) -> None:
        """Take what is known for a trading day; a symbol's later facts replace its earlier ones."""
        _day_of(self._known, day_ms).update(known)

    def learn_seen(self, day_ms: int, seen: Mapping[str, Seen]) -> None:
        """Take what the vendor has seen of a trading day."""
        _day_of(self._seen, day_ms).update(seen)

    def gives(self, symbol: str) -> bool:
        """Whether the operator's file has the symbol."""
        return symbol in self._reference

    def known(self, symbol: str, calendar: Calendar, given: bool) -> Known | None:
        """Return what is known of a symbol on the trading day of its calendar, None when nothing is.

        `given` = the file's previous day is the one before this day; else its lasting columns count alone.
        """
        file = self._reference.get(symbol)
        learned = self._known.get(calendar.day_start_ms, {}).get(symbol) if calendar.market == "stocks" else None
        if file is None:
            return learned
        if not given:
            file = Known(None, file.avg_volume, file.shares)
        if learned is None:
            return file
        return Known(*(theirs if ours is None else ours for ours, theirs in zip(_all(file), _all(learned), strict=True)))

    def seen(self, symbol: str, calendar: Calendar) -> Seen | None:
        """Return what the vendor has seen of a symbol on the trading day of its calendar."""
        return self._seen.get(calendar.day_start_ms, {}).get(symbol) if calendar.market == "stocks" else None


def _day_of(days: dict[int, dict[str, T]], day_ms: int) -> dict[str, T]:
    found = days.get(day_ms)
    if found is None:
        while len(days) >= DAYS_MAX:
            del days[next(iter(days))]
        found = days[day_ms] = {}
    return found
