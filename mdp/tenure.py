"""Knows how long a worker's leases are certainly its own. Pure; times are arguments (one monotonic clock, ns).

A lease lasts LEASE_MS from when Redis renewed it, which is later than when we asked. So what was renewed by a question asked
at T is ours until T + LEASE_MS for certain, whatever Redis says or does not say afterwards.
"""

from __future__ import annotations

from mdp.ownership import LEASE_MS

QUICK_ANSWERS = 3  # a second's worth
MARGIN = 0.25  # of the lease: closing the subscriptions takes a round trip to the broker


class Tenure:
    """The leases of one worker; one beat renews all of them. `stood_ns` are answers of Standstill."""

    def __init__(self, lease_ms: int = LEASE_MS) -> None:
        self._held_ns = int(lease_ms * 1_000_000 * (1 - MARGIN))
        self._excused_ns = 2 * lease_ms * 1_000_000
        self._asked_ns: int | None = None
        self._stood_ns = 0

    def renewed(self, asked_ns: int, stood_ns: int = 0) -> None:
        """A beat that was sent at `asked_ns` has renewed the leases."""
        self._asked_ns, self._stood_ns = asked_ns, stood_ns

    def certain(self, now_ns: int) -> bool:
        """Return whether the leases are certainly ours."""
        return self._asked_ns is not None and now_ns < self._asked_ns + self._held_ns

    def over(self, now_ns: int, stood_ns: int) -> bool:
        """Return whether to let go of everything now, without asking again.

        Who stood still, not the cache, asks first whether anybody has taken the leases, for two leases' time at most: letting go
        has everything delivered again. What is read meanwhile harms nobody: from who is not the owner the cache takes no flush.
        """
        if self._asked_ns is None:
            return True
        since_ns = now_ns - self._asked_ns
        return since_ns - (stood_ns - self._stood_ns) >= self._held_ns or since_ns >= self._excused_ns


class Steadiness:
    """Whether the cache answers us soon enough to own anything. Who has nothing and is answered too late takes nothing on.

    Otherwise a worker on a slow line takes its share whenever one of its beats gets through, and cannot keep it.
    """

    def __init__(self) -> None:
        self._quick = QUICK_ANSWERS

    def answered(self) -> None:
        self._quick += 1

    def late(self) -> None:
        self._quick = 0

    @property
    def proven(self) -> bool:
        """Return whether the newest answers were quick; none that was late has come yet, or enough since."""
        return self._quick >= QUICK_ANSWERS


class Standstill:
    """How long this process has not run although it was its turn: others had the cores, or one step of ours took long.

    Somebody sleeps for a short time over and over and says so: whoever wakes late has stood still.
    """

    def __init__(self) -> None:
        self._due_ns: int | None = None
        self._stood_ns = 0

    def sleeps_until(self, due_ns: int) -> None:
        self._due_ns = due_ns

    def woke(self, now_ns: int) -> None:
        self._stood_ns, self._due_ns = self.until(now_ns), None

    def until(self, now_ns: int) -> int:
        """Return the sum of all standstills until now, ns: the difference of two answers is that of the time between."""
        late_ns = 0 if self._due_ns is None else max(0, now_ns - self._due_ns)
        return self._stood_ns + late_ns
