"""Tells how far the time of a feed has come: what all of its streams have reached. Pure.

Streams are queues of their own. One may hold a minute that another has left behind, so the newest time seen says nothing: a day
that was ended by it would take the trades that still wait in the other queue from the day they belong to.

A listener's clock alone is not believed: one that is a day ahead would end every day at once. What counts is the clock less the
lag of the newest events: a wrong clock, and the delay of a delayed feed, cancel out. Until events have come, nothing is told.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping

TELL_EVERY_MS = 1_000  # of the feed's time
SILENT_MS = 5_000  # the listener marks each queue once a second: what is not heard for so long does not exist any more
SETTLE_MS = 2_000  # after that time all streams have been heard once
JUMP_MS = 60_000  # a clock that goes on by so much more than ours was set anew, or its tape skipped a pause
LAGS = 3  # the smallest of so many: a late report is no clock
SOURCES_MAX = 64


class Watermark:
    """The times of the streams of each source. `now_ms` = wall clock or any other that goes on by itself."""

    def __init__(self) -> None:
        self._sources: dict[str, _Source] = {}

    def note(
        self, source: str, epoch: str, stream: str, feed_ms: int, now_ms: int, event_ms: int = 0, tape: bool = False
    ) -> int:  # fmt: skip
        """Take a batch's time and that of its newest event (0 = a mark, it has none); `tape` = it is of a replay.

        Returns: the time that all streams have reached, or 0 when that is not known, or was told less than a second before.
        """
        known = self._sources.get(source)
        if known is None or known.epoch != epoch:
            if known is None and len(self._sources) >= SOURCES_MAX:
                del self._sources[next(iter(self._sources))]
            known = self._sources[source] = _Source(epoch, now_ms, known.due_ms if known is not None else 0)
        known.hear(stream, feed_ms, now_ms, event_ms, tape)
        if not known.lags or now_ms - known.began_ms < SETTLE_MS:
            return 0
        lag_ms = known.lag_ms
        if feed_ms - lag_ms < known.due_ms:
            return 0
        reached = known.slowest(now_ms) - lag_ms
        if reached < known.due_ms:
            return 0
        known.due_ms = reached - reached % TELL_EVERY_MS + TELL_EVERY_MS  # sessions begin at whole seconds
        return reached

    def lags(self) -> dict[str, tuple[str, int]]:
        """Return source → (epoch, lag in ms) of those whose lag is known: for the checkpoint.

        Without it whoever takes a partition over would hear marks alone until something is traded, and tell no time: at the end
        of a tape windows stood still, and sessions did not end.
        """
        return {name: (source.epoch, source.lag_ms) for name, source in self._sources.items() if source.lags}

    def restore(self, lags: Mapping[str, tuple[str, int]], now_ms: int) -> None:
        """Take it back; it counts for the same epoch of a source alone."""
        for name, (epoch, lag_ms) in lags.items():
            source = self._sources[name] = _Source(epoch, now_ms, 0)
            source.lags.append(lag_ms)

    def restart(self, source: str) -> None:
        """The tape of a source begins anew."""
        self._sources.pop(source, None)


class _Source:
    def __init__(self, epoch: str, began_ms: int, due_ms: int) -> None:
        self.epoch = epoch
        self.began_ms = began_ms
        self.due_ms = due_ms
        self.lags: deque[int] = deque(maxlen=LAGS)
        self._streams: dict[str, tuple[int, int]] = {}  # stream → (its time, when it was heard)
        self._last = 0, 0  # the newest time heard, and when

    def hear(self, stream: str, feed_ms: int, now_ms: int, event_ms: int, tape: bool) -> None:
        newest_ms, heard_ms = self._last
        # A tape's clock is the times of its lines, and goes on by hours when one queue is behind another: what it said of its
        # lag stays true. At the tape's end no event comes any more that could say it anew.
        if not tape and newest_ms and feed_ms - newest_ms > max(0, now_ms - heard_ms) + JUMP_MS:
            self.lags.clear()
        if feed_ms >= newest_ms or event_ms:
            self._last = feed_ms, now_ms
        if event_ms:
            lag_ms = feed_ms - event_ms
            # At full speed a batch carries the time of the last of many frames, minutes past its own events: of a tape the
            # smallest lag ever seen is the one it was recorded with.
            self.lags.append(min([lag_ms, *self.lags]) if tape else lag_ms)
        self._streams[stream] = feed_ms, now_ms

    @property
    def lag_ms(self) -> int:
        return max(0, min(self.lags))

    def slowest(self, now_ms: int) -> int:
        silent = [name for name, (_, heard_ms) in self._streams.items() if now_ms - heard_ms > SILENT_MS]
        for name in silent:
            del self._streams[name]
        return min(ms for ms, _ in self._streams.values())
