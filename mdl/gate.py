"""Decides whether a lossless replay may go on: nothing may grow old in the queues when a processor dies.

Events pass to a partition that somebody reads, and only while less is under way (handed over, not yet safely in the cache)
than the processors make safe in `BACKLOG_S`, and none of it for longer than `OLDEST_NS` in any queue (a broker may starve
one queue for seconds while the others flow). So a takeover of less than the queues' TTL - BACKLOG_S loses nothing, and a
replay without processors waits for them.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

from mdq.progress import Progress

BACKLOG_S = 1.0  # the way to the cache and back takes 0.1 to 0.3 s; with less than that the gate itself would be the brake
BACKLOG_EVENTS_MIN = 16_000  # to begin with; what the slowest processor does in that time
OLDEST_NS = 1_500_000_000
STAMP_NS = 50_000_000
FRESH_NS = 1_000_000_000  # reports come ten times a second; a partition not heard of for so long has no reader
MEASURE_NS = 500_000_000
# What was possible a moment ago counts for a while: with the last measurement alone one slow flush narrows the window, a
# narrow window makes the next measurement smaller still, and two processors on two cores settled at half their speed.
FADE = 0.85
STAMPS_MAX = 1_000  # of a source that is not paced nothing else bounds them

Key = tuple[str, int]


class ReplayGate:
    """Positions are of one `epoch` of one source and count its events from 0, per (stream, partition)."""

    def __init__(self, source: str, epoch: str) -> None:
        self._source = source
        self.safe_s = 0.0  # events made safe a second: the best of the last seconds, fading
        self._epoch = epoch
        self._handed: dict[Key, int] = {}
        self._safe: dict[Key, int] = {}
        self._stamps: dict[Key, deque[tuple[int, int]]] = {}  # (events handed by then, when), oldest first, not yet safe
        self._heard_ns: dict[int, int] = {}
        self._measured_ns: int | None = None
        self._safe_then = 0

    @property
    def under_way(self) -> int:
        """Events handed over and not yet reported safe."""
        return sum(max(0, handed - self._safe.get(key, 0)) for key, handed in self._handed.items())

    def handed(self, key: Key, events: int, now_ns: int) -> None:
        """Note what was given to the publisher; every event, also of sources that are not paced."""
        total = self._handed[key] = self._handed.get(key, 0) + events
        stamps = self._stamps.setdefault(key, deque(maxlen=STAMPS_MAX))
        if not stamps or now_ns - stamps[-1][1] >= STAMP_NS:
            stamps.append((total, now_ns))

    def oldest_ns(self, now_ns: int) -> int:
        """Return how long the oldest event that is not safe yet has been under way, to `STAMP_NS`."""
        oldest = 0
        for key, stamps in self._stamps.items():
            safe = self._safe.get(key, 0)
            while stamps and stamps[0][0] <= safe:
                stamps.popleft()
            if stamps:
                oldest = max(oldest, now_ns - stamps[0][1])
        return oldest

    def report(self, reports: Iterable[Progress], now_ns: int) -> None:
        """Take the workers' reports."""
        for progress in reports:
            for partition in progress.partitions:
                self._heard_ns[partition] = now_ns
            for source, stream, partition, position in progress.positions:
                if source == self._source and position.epoch == self._epoch:
                    key = (stream, partition)
                    self._safe[key] = max(position.seq, self._safe.get(key, 0))
        self._measure(now_ns)

    def unread(self, keys: Iterable[Key], now_ns: int) -> set[int]:
        """Return the partitions among `keys` that nobody reads."""
        return {p for _, p in keys if p not in self._heard_ns or now_ns - self._heard_ns[p] > FRESH_NS}

    def passes(self, keys: Iterable[Key], now_ns: int) -> bool:
        """Return whether events of these queues may go on now."""
        if self.under_way >= max(BACKLOG_EVENTS_MIN, BACKLOG_S * self.safe_s) or self.unread(keys, now_ns):
            return False
        return self.oldest_ns(now_ns) < OLDEST_NS

    def forget(self) -> None:
        """A new source: readers are to be heard again, and the measuring begins anew."""
        self._heard_ns.clear()
        self._stamps.clear()
        self._measured_ns = None

    def _measure(self, now_ns: int) -> None:
        safe = sum(self._safe.values())
        if self._measured_ns is None:
            self._measured_ns, self._safe_then = now_ns, safe
        elif now_ns - self._measured_ns >= MEASURE_NS:
            measured = (safe - self._safe_then) * 1e9 / (now_ns - self._measured_ns)
            self.safe_s = max(measured, FADE * self.safe_s)
            self._measured_ns, self._safe_then = now_ns, safe
