"""Knows how long a worker's leases are certainly its own. Pure; times are arguments (one monotonic clock, ns).

A lease lasts LEASE_MS from when Redis renewed it, which is later than when we asked. So what was renewed by a question asked
at T is ours until T + LEASE_MS for certain, whatever Redis says or does not say afterwards.
"""

from __future__ import annotations

from mdp.ownership import LEASE_MS

MARGIN = 0.25  # of the lease: closing the subscriptions takes a round trip to the broker


class Tenure:
    """The leases of one worker; one beat renews all of them."""

    def __init__(self, lease_ms: int = LEASE_MS) -> None:
        self._held_ns = int(lease_ms * 1_000_000 * (1 - MARGIN))
        self._asked_ns: int | None = None

    def renewed(self, asked_ns: int) -> None:
        """A beat that was sent at `asked_ns` has renewed the leases."""
        self._asked_ns = asked_ns

    def runs_out_ns(self) -> int:
        """Return when to let go of everything unless a beat succeeds before."""
        return 0 if self._asked_ns is None else self._asked_ns + self._held_ns

    def certain(self, now_ns: int) -> bool:
        """Return whether the leases are certainly ours."""
        return now_ns < self.runs_out_ns()
