"""Reads a tape's clock from the times of its lines; a line far ahead of those behind it is not believed."""

from __future__ import annotations

from collections.abc import Sequence

AHEAD_NS_MAX = 60_000_000_000
LINES_AHEAD = 32  # a clock error is one line, or a few; a night between two lines is followed by the morning


class TapeClock:
    """The tape's time, line by line. It does not go back for lines out of order, only when the tape itself does."""

    def __init__(self) -> None:
        self.now_ns: int | None = None  # None until a line had a time

    def read(self, times: Sequence[int | None]) -> list[int | None]:
        """Return the clock at each of consecutive lines, whose own times (ns) may be wrong or missing."""
        return [self._step(at_ns, times[n + 1 : n + 1 + LINES_AHEAD]) for n, at_ns in enumerate(times)]

    def _step(self, at_ns: int | None, following: Sequence[int | None]) -> int | None:
        if at_ns is None or (self.now_ns is not None and self.now_ns <= at_ns <= self.now_ns + AHEAD_NS_MAX):
            self.now_ns = self.now_ns if at_ns is None else at_ns
            return self.now_ns
        known = sorted(time for time in following if time is not None)
        middle = known[len(known) // 2] if known else at_ns
        if self.now_ns is None or at_ns > self.now_ns:
            believed = at_ns <= middle + AHEAD_NS_MAX
        else:
            believed = middle < self.now_ns - AHEAD_NS_MAX  # most of what follows is behind us: the tape went back
        if believed or self.now_ns is None:
            self.now_ns = at_ns if believed else middle
        return self.now_ns
