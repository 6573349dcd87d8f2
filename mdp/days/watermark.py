"""Tells how far the time of a feed has come: what all of its streams have reached. Pure.

Streams are queues of their own. One may hold a minute that another has left behind, so the newest time seen says nothing: a day
that was ended by it would take the trades that still wait in the other queue from the day they belong to.
"""

from __future__ import annotations

TELL_EVERY_MS = 1_000  # of the feed's time
SILENT_MS = 5_000  # the listener marks each queue once a second: what is not heard for so long does not exist any more
SETTLE_MS = 2_000  # after that time all streams have been heard once
SOURCES_MAX = 64


class Watermark:
    """The times of the streams of each source. `now_ms` = wall clock or any other that goes on by itself."""

    def __init__(self) -> None:
        self._sources: dict[str, _Source] = {}

    def note(self, source: str, stream: str, feed_ms: int, now_ms: int) -> int:
        """Take a batch's time; return what all streams have reached, or 0 when that was told less than a second before."""
        known = self._sources.get(source)
        if known is None:
            if len(self._sources) >= SOURCES_MAX:
                del self._sources[next(iter(self._sources))]
            known = self._sources[source] = _Source(now_ms)
        known.streams[stream] = feed_ms, now_ms
        if feed_ms < known.due_ms or now_ms - known.began_ms < SETTLE_MS:
            return 0
        silent = [name for name, (_, heard_ms) in known.streams.items() if now_ms - heard_ms > SILENT_MS]
        for name in silent:
            del known.streams[name]
        reached = min(ms for ms, _ in known.streams.values())
        if reached < known.due_ms:
            return 0
        known.due_ms = reached - reached % TELL_EVERY_MS + TELL_EVERY_MS  # sessions begin at whole seconds
        return reached

    def restart(self, source: str) -> None:
        """The tape of a source begins anew."""
        self._sources.pop(source, None)


class _Source:
    def __init__(self, began_ms: int) -> None:
        self.began_ms = began_ms
        self.due_ms = 0
        self.streams: dict[str, tuple[int, int]] = {}  # stream → (its time, when it was heard)
