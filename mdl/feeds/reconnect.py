"""Decides how long to pause before a lost connection is tried again: exponential, full jitter.

A closed market is asked less often.
"""

from __future__ import annotations

from mdl.feeds.hours import market_open

FIRST_S, MOST_S = 0.5, 30.0
CLOSED_FIRST_S, CLOSED_MOST_S = 5.0, 60.0  # the cap is also how late we may notice the opening
STABLE_S = 60.0  # the vendor accepts the key before it says max_connections: only a lasting connection resets the backoff


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
