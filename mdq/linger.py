"""Decides how long a batch stays open: until it is worth its message, as long as nobody has to wait noticeably for that.

Invariant: the answer lies between `least_ns` and `most_ns`; it leaves `least_ns` only where waiting brings events together.
A message costs the publisher, the broker and the consumer together as much as some twenty events do, however many it holds.
"""

from __future__ import annotations

WORTH_EVENTS = 25  # from here on the events cost more than their message
COMPANY_EVENTS = 2.5  # a batch that even the longest wait would not bring to so many leaves at once
LEARN_NS = 200_000_000  # judged by the batches of so long: dozens at any rate that matters


class Linger:
    """Tell it of every batch that was closed; `ns` is how long the next ones stay open."""

    def __init__(self, least_ns: int, most_ns: int) -> None:
        self.ns = least_ns
        self._least_ns = least_ns
        self._most_ns = max(least_ns, most_ns)
        self._events = self._batches = 0
        self._since_ns = 0

    def closed(self, events: int, now_ns: int) -> None:
        """Count a batch; five times a second the linger follows the rate."""
        self._events += events
        self._batches += 1
        if now_ns - self._since_ns >= LEARN_NS:
            self.ns = self._suited_ns(self._events / self._batches)
            self._events = self._batches = 0
            self._since_ns = now_ns

    def _suited_ns(self, mean_events: float) -> int:
        """Return the linger for batches that held so many events while they were open for the present one."""
        # The first event opened the batch, the others came while it was open: 6 events in 5 ms are one a ms.
        events_per_ns = (mean_events - 1) / max(1, self.ns)
        if 1 + events_per_ns * self._most_ns < COMPANY_EVENTS:
            return self._least_ns
        return min(self._most_ns, max(self._least_ns, int((WORTH_EVENTS - 1) / events_per_ns)))
