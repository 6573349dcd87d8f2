"""Holds frames between the vendor's pace and ours: bounded in bytes and age, the oldest are dropped and counted.

Invariant: `bytes` is the sum of what is held and never exceeds `bytes_max` (a frame larger than that is itself dropped).
"""

from __future__ import annotations

from collections import deque

from mdl.feeds.feed import Frame

MS = 1_000_000


class FrameBuffer:
    """A FIFO in which the freshest wins. Events of dropped frames are counted by their `"ev"` keys, without decoding."""

    def __init__(self, bytes_max: int, age_ms_max: int) -> None:
        self.bytes_max = bytes_max
        self.age_ms_max = age_ms_max
        self.bytes = 0
        self.dropped_frames = 0
        self.dropped_events = 0
        self._frames: deque[Frame] = deque()

    def __len__(self) -> int:
        return len(self._frames)

    @property
    def next_run(self) -> int:
        """The run of the oldest frame.  Raises: IndexError when empty."""
        return self._frames[0].run

    def push(self, frame: Frame) -> None:
        """Take a frame in; what no longer fits goes out at the old end."""
        self._frames.append(frame)
        self.bytes += len(frame.data)
        while self.bytes > self.bytes_max:
            self._drop_oldest()

    def pop(self) -> Frame:
        """Return the oldest frame.  Raises: IndexError when empty."""
        frame = self._frames.popleft()
        self.bytes -= len(frame.data)
        return frame

    def expire(self, now_ns: int) -> int:
        """Drop what is older than the bound; return how many frames went."""
        oldest_ns, before = now_ns - self.age_ms_max * MS, self.dropped_frames
        while self._frames and self._frames[0].received_ns < oldest_ns:
            self._drop_oldest()
        return self.dropped_frames - before

    def age_ms(self, now_ns: int) -> float:
        """Return how long the oldest frame has waited; 0 when empty."""
        return max(0.0, (now_ns - self._frames[0].received_ns) / MS) if self._frames else 0.0

    def clear(self) -> None:
        """Drop everything, counted."""
        while self._frames:
            self._drop_oldest()

    def _drop_oldest(self) -> None:
        data = self.pop().data
        self.dropped_frames += 1
        self.dropped_events += data.count('"ev"') if isinstance(data, str) else data.count(b'"ev"')
