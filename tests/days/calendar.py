"""Knows the few trading days that are simulated: their sessions in New York, and which day a moment belongs to.

Written down by hand, so that a mistake in the product's calendar is not repeated here.
"""

from __future__ import annotations

from bisect import bisect_right
from datetime import date, datetime, time
from typing import NamedTuple
from zoneinfo import ZoneInfo

NEW_YORK = ZoneInfo("America/New_York")


class TradingDay(NamedTuple):
    """When what begins, in ms: the pre-market, the regular session, the evening, and the night."""

    start: int
    opens: int
    closes: int
    ends: int


def at(on: date, hour: int, minute: int = 0, second: int = 0, ms: int = 0) -> int:
    """Return the moment (ms) of a time of day in New York."""
    moment = datetime.combine(on, time(hour, minute, second), NEW_YORK)
    return round(moment.timestamp()) * 1000 + ms


def _whole(on: date) -> TradingDay:
    return TradingDay(at(on, 4), at(on, 9, 30), at(on, 16), at(on, 20))


def _half(on: date) -> TradingDay:
    return TradingDay(at(on, 4), at(on, 9, 30), at(on, 13), at(on, 17))


SPRING = date(2026, 3, 6), date(2026, 3, 9)  # clocks go forward in between
AUTUMN = date(2026, 10, 30), date(2026, 11, 2)  # and back
THANKSGIVING = date(2026, 11, 26)  # closed
AROUND_IT = date(2026, 11, 25), date(2026, 11, 27)  # the second one ends at 13:00
BEFORE = date(2026, 3, 5), date(2026, 10, 29), date(2026, 11, 24)  # to which very late reports belong
_ALL = sorted([*BEFORE, *SPRING, *AUTUMN, *AROUND_IT])
DAYS = {on: _half(on) if on == AROUND_IT[1] else _whole(on) for on in _ALL}
_STARTS = [day.start for day in DAYS.values()]
_IN_ORDER = list(DAYS.values())


def day_of(ts: int) -> TradingDay:
    """Return the trading day of a moment: nights, weekends and holidays belong to the day before."""
    return _IN_ORDER[bisect_right(_STARTS, ts) - 1]


def session_of(ts: int) -> str:
    """Return the session of a moment."""
    day = day_of(ts)
    if ts < day.opens:
        return "pre"
    if ts < day.closes:
        return "regular"
    return "post" if ts < day.ends else "closed"
