"""Queue depths in, whether a lossless replay may go on out: nothing may grow old in the queues when a processor dies.

A queue is proven when a mark that was confirmed in it has been taken: then somebody reads. The gate is open while less is
ready than the processors took in the last moments, and once shut opens only when all queues are empty. (Marks come every
second and live 5 s, so a queue without a reader is never empty.) So at any time at most `BACKLOG_S` of events wait, and a
takeover of less than the TTL - BACKLOG_S - one sampling period loses nothing.
"""

from __future__ import annotations

BACKLOG_S = 0.4
BURST_EVENTS_MIN = 8_000  # between two samples; enough to start with and to find out what the processors can take
BACKLOG_EVENTS_MIN = 4_000  # below this nothing can grow old: the slowest processor takes so many in a tenth of a second
MEASURE_NS = 500_000_000
SAMPLE_S = 0.05

Key = tuple[str, int]


class ReplayGate:
    """Fed with samples of the queues; `passes(keys)` tells whether events of those queues may be published."""

    def __init__(self) -> None:
        self.open = True
        self.drained_s = 0.0
        self.budget = BURST_EVENTS_MIN
        self.proven: set[Key] = set()
        self._since_ns: int | None = None
        self._taken_then = 0.0

    def passes(self, keys: set[Key]) -> bool:
        """Return whether events of these queues may go on now."""
        return self.open and self.budget > 0 and keys <= self.proven

    def spend(self, events: int) -> None:
        """Note what went on. Between two samples at most twice of what is taken in that time passes, so no burst grows old."""
        self.budget -= events

    def prove(self, depths: dict[Key, int]) -> None:
        """Note which queues were found empty after a mark was confirmed in each of them."""
        self.proven.update(key for key, ready in depths.items() if ready == 0)

    def sample(self, ready: int, events: int, batches: int, now_ns: int) -> None:
        """Take one sample of all proven queues: batches ready, and what was published so far."""
        backlog = ready * events / batches if batches else 0.0
        self._measure(events - backlog, now_ns)
        self.budget = max(BURST_EVENTS_MIN, int(2 * self.drained_s * SAMPLE_S))
        if self.open:
            self.open = backlog <= max(BACKLOG_EVENTS_MIN, BACKLOG_S * self.drained_s)
        else:
            self.open = ready == 0

    def shut(self) -> None:
        """The queues cannot be seen: their readers are to be proven again."""
        self.proven.clear()
        self._since_ns = None

    def _measure(self, taken: float, now_ns: int) -> None:
        if self._since_ns is None:
            self._since_ns, self._taken_then = now_ns, taken
        elif now_ns - self._since_ns >= MEASURE_NS:
            self.drained_s = max(0.0, (taken - self._taken_then) * 1e9 / (now_ns - self._since_ns))
            self._since_ns, self._taken_then = now_ns, taken
