"""The market, the clock and what happened in, how long to pause before the next try out: exponential, full jitter.

A closed market is asked less often. Holidays are not known here: on one, the pauses are those of an open market, which
costs nothing but a few connections.
"""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta

FIRST_S, MOST_S = 0.5, 30.0
CLOSED_FIRST_S, CLOSED_MOST_S = 5.0, 60.0  # the cap is also how late we may notice the opening
STABLE_S = 60.0  # the vendor accepts the key before it says max_connections: only a lasting connection resets the backoff
DAY_MIN = 24 * 60


class Reconnect:
    """The pauses of one feed. `dice` is uniform in [0, 1); seconds are of any monotonic clock."""

    def __init__(self, market: str) -> None:
        self.market = market
        self.attempt = 0
        self._live_since_s: float | None = None

    def connected(self, now_s: float) -> None:
        """The vendor accepted us."""
        self._live_since_s = now_s

    def lost(self, now_s: float, wall_ns: int, dice: float) -> float:
        """The connection is gone or could not be made; return the seconds to wait before the next try."""
        if self._live_since_s is not None and now_s - self._live_since_s >= STABLE_S:
            self.attempt = 0
        self._live_since_s = None
        first_s, most_s = (FIRST_S, MOST_S) if market_open(self.market, wall_ns) else (CLOSED_FIRST_S, CLOSED_MOST_S)
        ceiling_s = min(most_s, first_s * 2 ** min(self.attempt, 20))
        self.attempt += 1
        return float(dice * ceiling_s)


def market_open(market: str, wall_ns: int) -> bool:
    """Return whether `market` trades at that time (holidays aside; extended hours count as open)."""
    local = eastern(wall_ns)
    day, minute = local.weekday(), local.hour * 60 + local.minute  # Monday is 0
    if market == "crypto":
        return True
    if market == "forex":  # Sunday 17:00 to Friday 17:00
        return day in (0, 1, 2, 3) or (day == 4 and minute < 1020) or (day == 6 and minute >= 1020)
    if market.startswith("futures"):  # the same from 18:00, with an hour's break every day
        week = day in (0, 1, 2, 3) or (day == 4 and minute < 1020) or (day == 6 and minute >= 1080)
        return week and not 1020 <= minute < 1080
    return day < 5 and 240 <= minute < 1200  # stocks, options, indices: 4:00 to 20:00


def eastern(wall_ns: int) -> datetime:
    """Return New York's local time. The rule since 2007 is written out: images often carry no time-zone database."""
    utc = datetime.fromtimestamp(wall_ns / 1e9, UTC)
    begins = datetime(utc.year, 3, _sunday(utc.year, 3, 2), 7, tzinfo=UTC)  # 2:00 EST
    ends = datetime(utc.year, 11, _sunday(utc.year, 11, 1), 6, tzinfo=UTC)  # 2:00 EDT
    return utc - timedelta(hours=4 if begins <= utc < ends else 5)


def _sunday(year: int, month: int, nth: int) -> int:
    return 1 + (6 - date(year, month, 1).weekday()) % 7 + 7 * (nth - 1)
