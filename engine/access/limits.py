"""Counts what each caller may still ask for now: token buckets that fill with time.

A bucket holds what a second allows, twice over, so that a burst passes and a flood does not. Buckets that are full again are
forgotten first; there are never more than `BUCKETS_MAX`.
"""

from __future__ import annotations

from collections import OrderedDict

BUCKETS_MAX = 10_000
BURST_S = 2.0


class Bucket:
    """What one caller may still do: `per_s` a second, `BURST_S` of that at once. 0 = no limit."""

    __slots__ = ("_at_ns", "_left", "_per_s")

    def __init__(self, per_s: float, now_ns: int) -> None:
        self._per_s = per_s
        self._left = per_s * BURST_S
        self._at_ns = now_ns

    def take(self, now_ns: int, count: int = 1) -> float:
        """Take `count` out and return 0.0, or leave all as it is and return the seconds after which they will be there."""
        if not self._per_s:
            return 0.0
        most = self._per_s * BURST_S
        left = min(most, self._left + max(0, now_ns - self._at_ns) * self._per_s / 1e9)
        self._left, self._at_ns = left, max(self._at_ns, now_ns)
        if left >= min(count, most):  # who asks for more than fits waits for a full one
            self._left = left - count
            return 0.0
        return (min(count, most) - left) / self._per_s


class Limits:
    """The buckets of all callers of one kind of request."""

    def __init__(self, per_s: float) -> None:
        self.per_s = per_s
        self._buckets: OrderedDict[str, Bucket] = OrderedDict()

    def take(self, who: str, now_ns: int, count: int = 1) -> float:
        """Return 0.0 when `who` may do this now, else after how many seconds."""
        bucket = self._buckets.get(who)
        if bucket is None:
            bucket = self._buckets[who] = Bucket(self.per_s, now_ns)
            if len(self._buckets) > BUCKETS_MAX:
                self._buckets.popitem(last=False)
        else:
            self._buckets.move_to_end(who)
        return bucket.take(now_ns, count)


class Places:
    """How many connections each of some names has; `most` 0 = no limit."""

    def __init__(self, most: int) -> None:
        self.most = most
        self._taken: dict[str, int] = {}

    def enter(self, who: str) -> bool:
        """Take a place; False when there is none."""
        taken = self._taken.get(who, 0)
        if self.most and taken >= self.most:
            return False
        self._taken[who] = taken + 1
        return True

    def leave(self, who: str) -> None:
        """Give a place back."""
        self._taken[who] -= 1
        if not self._taken[who]:
            del self._taken[who]
