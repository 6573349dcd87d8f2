"""Decides whether a live feed's silence is a fault: nothing arrives although its market trades.

Invariant: a closed market, and what is rightly rare, never accuses a feed. On a day that no table of holidays knows, the feed
of a market that would be open is said to be silent.
"""

from __future__ import annotations

from collections.abc import Sequence

from mdl.feeds.hours import session_of

PER_MINUTE = frozenset({"AM", "XA", "CA"})  # one a symbol and minute
RARE = frozenset({"LULD", "NOI", "FMV"})  # when something happens, and days may pass
MINUTE_S = 60.0
DELAY_NS = 15 * 60 * 1_000_000_000  # of the vendor's delayed feed: its market opens, and closes, so much later


class Silence:
    """What one connection may be expected to send. `limit_s` 0 = it is never judged."""

    def __init__(self, market: str, topics: Sequence[str], limit_s: float, delayed: bool = False) -> None:
        kinds = {topic.partition(".")[0] for topic in topics}
        often = [topic for topic in topics if topic.partition(".")[0] not in RARE]
        self._market = market
        self._limit_s = limit_s + (MINUTE_S if kinds <= PER_MINUTE | RARE else 0)
        self._judged = limit_s > 0 and bool(often)
        # Outside the regular session a few stocks may be quiet for minutes; the whole market is not.
        self._always = market == "stocks" and any(topic == "*" or topic.endswith(".*") for topic in often)
        self._delay_ns = DELAY_NS if delayed else 0

    def reason(self, silent_s: float, wall_ns: int) -> str:
        """Return why a silence of so many seconds is a fault at that time, empty when it is none."""
        if not self._judged or silent_s < self._limit_s:
            return ""
        now_ns = wall_ns - self._delay_ns
        before_ns = now_ns - int(self._limit_s * 1e9)  # it must have been open for as long as we have waited
        if not (self._expected(now_ns) and self._expected(before_ns)):
            return ""
        return f"no data for {silent_s:.0f} s while the market is open"

    def _expected(self, wall_ns: int) -> bool:
        session = session_of(self._market, wall_ns)
        return session == "regular" or (session == "extended" and self._always)
