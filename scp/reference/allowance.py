"""Decides who may ask the vendor how much: one rate for all, and of it a quarter at most for each person. Pure.

A person has a burst of half of what all have, so that a page that opens is served at once and nobody takes the others' turn.
"""

from __future__ import annotations

from collections import OrderedDict

BURST_S = 10.0  # of the rate may be asked at once
BURST_MIN = 12.0  # two companies
PERSONS_MAX = 10_000
SHARE, BURST_SHARE = 4.0, 2.0


class Bucket:
    """Fills with `rate_s` a second up to `most`."""

    def __init__(self, rate_s: float, most: float, now_s: float) -> None:
        self._rate_s, self._most = rate_s, most
        self._level, self._at_s = most, now_s

    def wait_s(self, now_s: float) -> float:
        """Return how long until one may be taken, 0 = now."""
        self._level = min(self._most, self._level + (now_s - self._at_s) * self._rate_s)
        self._at_s = now_s
        return max(0.0, (1.0 - self._level) / self._rate_s)

    def take(self) -> None:
        self._level -= 1.0


class Allowance:
    """`rate` = questions a minute. Times are seconds of a clock that never goes back."""

    def __init__(self, rate: float) -> None:
        self._rate_s = rate / 60.0
        self._most = max(BURST_MIN, self._rate_s * BURST_S)
        self._all: Bucket | None = None
        self._persons: OrderedDict[int, Bucket] = OrderedDict()

    def wait_s(self, person: int, now_s: float) -> tuple[float, bool]:
        """Return how long the person has to wait, and whether it is for what they asked themselves; (0, …) takes one."""
        if self._all is None:
            self._all = Bucket(self._rate_s, self._most, now_s)
        own = self._persons.get(person)
        if own is None:
            own = self._persons[person] = Bucket(self._rate_s / SHARE, self._most / BURST_SHARE, now_s)
            if len(self._persons) > PERSONS_MAX:
                self._persons.popitem(last=False)
        self._persons.move_to_end(person)
        for bucket, mine in ((own, True), (self._all, False)):
            if wait_s := bucket.wait_s(now_s):
                return wait_s, mine
        own.take()
        self._all.take()
        return 0.0, False
