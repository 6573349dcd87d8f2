"""Keeps the newest messages, and how many lie above an index since when. Bounded, whatever comes.

`Frames` keeps the newest frames themselves: every frame above its `floor` is there. `Places` keeps where messages are: index
and time of each of the newest ones, of older ones every 256th, so that a backlog of hours costs kilobytes.
"""

from __future__ import annotations

from array import array
from bisect import bisect_right
from typing import NamedTuple

FRAMES_MAX = 65_536
FRAMES_BYTES_MAX = 64 << 20
RELEASED_MAX, RELEASED_WITH = 4_096, 8  # frames that are freed at once, and with each one that comes
EXACT_MAX = 262_144  # places kept one by one: 4 MB
STEP = 256  # of those that are older only every so many
CUT_MIN = 4_096  # fewer entries than that are not worth moving a list


class Frame(NamedTuple):
    """One message: its command index and its JSON."""

    message_index: int
    data: bytes


class Backlog(NamedTuple):
    """How many messages lie above an index, and when the oldest of them came (ns since the epoch, 0 without any)."""

    messages: int
    oldest_ns: int


class Frames:
    """The newest frames, bounded by count and bytes; the oldest leave first."""

    def __init__(self, floor: int = 0, count_max: int = FRAMES_MAX, bytes_max: int = FRAMES_BYTES_MAX) -> None:
        self.floor = floor
        self.bytes = 0
        self._count_max = count_max
        self._bytes_max = bytes_max
        self._indices: list[int] = []
        self._frames: list[bytes] = []
        self._head = 0  # what is before it has left; cut off now and then

    def __len__(self) -> int:
        return len(self._indices) - self._head

    def add(self, index: int, frame: bytes) -> None:
        """Keep a frame, above all before it. One that is larger than all room is kept alone. Cost: amortised O(1)."""
        self._indices.append(index)
        self._frames.append(frame)
        self.bytes += len(frame)
        self._let_go(RELEASED_WITH)
        while len(self) > 1 and (len(self) > self._count_max or self.bytes > self._bytes_max):
            self._drop()
        self._cut()

    def release(self, index: int) -> None:
        """Forget all up to `index`: nobody will ask for them.

        Memory is freed some thousand frames at a time, and with those that come: of all at once it took 30 ms. Cost: O(1).
        """
        self.floor = max(self.floor, index)
        self._let_go(RELEASED_MAX)
        self._cut()

    def _let_go(self, most: int) -> None:
        while most and self._head < len(self._indices) and self._indices[self._head] <= self.floor:
            self._drop()
            most -= 1

    def after(self, index: int, count_max: int, bytes_max: int) -> list[Frame]:
        """Return the next frames above `index`, which is at or above `floor`: at least one if there is one."""
        assert index >= self.floor, f"frames above {index} have left, the floor is {self.floor}"
        begin = bisect_right(self._indices, index, self._head)
        end, size = begin, 0
        for frame in self._frames[begin : begin + count_max]:
            size += len(frame)
            if size > bytes_max and end > begin:
                break
            end += 1
        return [Frame(*pair) for pair in zip(self._indices[begin:end], self._frames[begin:end], strict=True)]

    def _drop(self) -> None:
        self.floor = max(self.floor, self._indices[self._head])
        self.bytes -= len(self._frames[self._head])
        self._frames[self._head] = b""
        self._head += 1

    def _cut(self) -> None:
        if self._head > CUT_MIN and self._head * 2 > len(self._indices):
            del self._indices[: self._head], self._frames[: self._head]
            self._head = 0


class Places:
    """Where messages are. Exact for the newest ones; of older ones it may count up to 255 too many, and too old."""

    def __init__(self, exact_max: int = EXACT_MAX, step: int = STEP) -> None:
        self._exact_max = exact_max
        self._step = step
        self._moved = max(step, exact_max // 4 // step * step)  # how many turn sparse at a time: a multiple of `step`
        self._indices, self._times = array("Q"), array("Q")
        self._first = 0  # ordinal of the first exact entry
        self._head = 0  # exact entries before it are forgotten
        self._thinned = -1  # the last index that is not exact any more
        self._sparse_indices, self._sparse_times, self._sparse_ordinals = array("Q"), array("Q"), array("Q")

    def __len__(self) -> int:
        return len(self._indices) - self._head + len(self._sparse_indices)

    def add(self, index: int, time_ns: int) -> None:
        """Note a message, above all before it."""
        self._indices.append(index)
        self._times.append(time_ns)
        if len(self._indices) - self._head >= self._exact_max + self._moved:
            self._thin_out()

    def forget(self, index: int) -> None:
        """Nobody will ask for an index below this one."""
        self._head = bisect_right(self._indices, index, self._head)
        gone = bisect_right(self._sparse_indices, index)
        if index < self._thinned:
            gone -= 1  # the last one at or below `index` stands for those behind it
        if gone > 0:
            del self._sparse_indices[:gone], self._sparse_times[:gone], self._sparse_ordinals[:gone]
        if self._head > CUT_MIN and self._head * 2 > len(self._indices):
            self._cut()

    def after(self, index: int) -> Backlog:
        """Return what lies above `index`, which is not below what was forgotten. Cost: O(log places)."""
        if index < self._thinned:
            at = bisect_right(self._sparse_indices, index) - 1
            begin = self._sparse_ordinals[max(at, 0)] + (at >= 0)
            return Backlog(self._first + len(self._indices) - begin, self._sparse_times[max(at, 0)])
        at = bisect_right(self._indices, index, self._head)
        return Backlog(len(self._indices) - at, self._times[at]) if at < len(self._indices) else Backlog(0, 0)

    def between(self, index: int, last: int) -> bool:
        """Return whether a message lies above `index` and up to `last`; where places are not exact there may be."""
        if index < self._thinned:
            return last > index
        return bisect_right(self._indices, last, self._head) > bisect_right(self._indices, index, self._head)

    def last(self, index: int, otherwise: int) -> int:
        """Return the last place up to `index`, `otherwise` without one; where places are not exact, `index` itself."""
        if index < self._thinned:
            return index
        at = bisect_right(self._indices, index, self._head) - 1
        return self._indices[at] if at >= self._head else otherwise

    def _thin_out(self) -> None:
        self._cut()
        for at in range(0, self._moved, self._step):
            self._sparse_indices.append(self._indices[at])
            self._sparse_times.append(self._times[at])
            self._sparse_ordinals.append(self._first + at)
        self._first += self._moved
        self._thinned = self._indices[self._moved - 1]
        del self._indices[: self._moved], self._times[: self._moved]

    def _cut(self) -> None:
        del self._indices[: self._head], self._times[: self._head]
        self._first += self._head
        self._head = 0
