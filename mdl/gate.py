"""Queue depths in, whether a lossless replay may go on out: nothing may grow old in the queues when a processor dies.

The gate begins closed. It opens when every watched queue is empty although marks were put into all of them: then somebody
reads. (Marks come every second and live 5 s, so a queue without a reader is never empty.) It closes as soon as more is
ready than the processors took in the last moments, and opens again only when everything is empty. So at any time at most
`BACKLOG_S` of events wait, and a takeover of less than TTL - BACKLOG_S - the sampling period loses nothing.
"""

from __future__ import annotations

BACKLOG_S = 0.4
BACKLOG_EVENTS_MIN = 4_000  # below this nothing can grow old: the slowest processor takes so many in a tenth of a second
MEASURE_NS = 1_000_000_000


class ReplayGate:
    """Fed with samples of the queues; `open` tells whether the replay may publish. Counts are of this publisher."""

    def __init__(self) -> None:
        self.open = False
        self.drained_s = 0.0
        self._since_ns: int | None = None
        self._taken_then = 0.0

    def sample(self, depths: dict[str, int], events: int, batches: int, now_ns: int) -> bool:
        """Take one sample: ready batches by queue, events and batches published so far; return whether the gate is open.

        Call it only with depths that were read after marks had been confirmed on every watched queue.
        """
        ready = sum(depths.values())
        backlog = ready * events / batches if batches else 0.0
        self._measure(events - backlog, now_ns)
        if self.open:
            self.open = backlog <= max(BACKLOG_EVENTS_MIN, BACKLOG_S * self.drained_s)
        else:
            self.open = ready == 0
        return self.open

    def shut(self) -> None:
        """Close it: the queues cannot be seen, or the readers are to be proven again."""
        self.open = False
        self._since_ns = None

    def _measure(self, taken: float, now_ns: int) -> None:
        if self._since_ns is None:
            self._since_ns, self._taken_then = now_ns, taken
        elif now_ns - self._since_ns >= MEASURE_NS:
            self.drained_s = max(0.0, (taken - self._taken_then) * 1e9 / (now_ns - self._since_ns))
            self._since_ns, self._taken_then = now_ns, taken
