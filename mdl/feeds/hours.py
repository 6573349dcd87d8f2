"""Knows when each market trades, in New York's time; holidays are not known here."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from typing import Literal

Session = Literal["regular", "extended", "closed"]
WHOLE_DAYS = (0, 1, 2, 3)  # Monday to Thursday
FRIDAY, SUNDAY = 4, 6


def session_of(market: str, wall_ns: int) -> Session:
    """Return which session `market` is in at that time.

    Stocks trade 9:30 to 16:00, and from 4:00 to 20:00 in extended hours, in which only some options and indices move; crypto
    always; forex Sunday 17:00 to Friday 17:00; futures (CME's hours) the same from 18:00, with an hour's break every day.
    """
    local = eastern(wall_ns)
    day, minute = local.weekday(), local.hour * 60 + local.minute
    if market == "crypto":
        return "regular"
    if market == "forex":
        return "regular" if _week(day, minute, 1020) else "closed"
    if market.startswith("futures"):
        return "regular" if _week(day, minute, 1080) and not 1020 <= minute < 1080 else "closed"
    if day > FRIDAY or not 240 <= minute < 1200:
        return "closed"
    return "regular" if 570 <= minute < 960 else "extended"


def market_open(market: str, wall_ns: int) -> bool:
    """Return whether `market` trades at that time (extended hours count as open)."""
    return session_of(market, wall_ns) != "closed"


def eastern(wall_ns: int) -> datetime:
    """Return New York's local time. The rule since 2007 is written out: images often carry no time-zone database."""
    utc = datetime.fromtimestamp(wall_ns / 1e9, UTC)
    begins = datetime(utc.year, 3, _sunday(utc.year, 3, 2), 7, tzinfo=UTC)  # 2:00 EST
    ends = datetime(utc.year, 11, _sunday(utc.year, 11, 1), 6, tzinfo=UTC)  # 2:00 EDT
    return utc - timedelta(hours=4 if begins <= utc < ends else 5)


def _week(day: int, minute: int, opens: int) -> bool:
    """Return whether a week is on that begins on Sunday at minute `opens` and ends on Friday at 17:00."""
    return day in WHOLE_DAYS or (day == FRIDAY and minute < 1020) or (day == SUNDAY and minute >= opens)


def _sunday(year: int, month: int, nth: int) -> int:
    return 1 + (6 - date(year, month, 1).weekday()) % 7 + 7 * (nth - 1)
