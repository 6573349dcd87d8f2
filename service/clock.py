"""Reads the system's clock, or a test's, in nanoseconds. Only shells hold a clock; pure code takes times as arguments."""

from __future__ import annotations

import time
from typing import Protocol


class Clock(Protocol):
    """Two clocks: `wall_ns` (since the Unix epoch, may jump) and `mono_ns` (for durations, never jumps)."""

    def wall_ns(self) -> int: ...

    def mono_ns(self) -> int: ...


class SystemClock:
    """The machine's clocks."""

    def wall_ns(self) -> int:
        return time.time_ns()

    def mono_ns(self) -> int:
        return time.monotonic_ns()


class ManualClock:
    """A clock that a test moves by hand; both readings advance together."""

    def __init__(self, wall_ns: int = 1_700_000_000_000_000_000) -> None:
        self._wall_ns = wall_ns
        self._mono_ns = 0

    def wall_ns(self) -> int:
        return self._wall_ns

    def mono_ns(self) -> int:
        return self._mono_ns

    def advance(self, ns: int) -> None:
        """Move both clocks forward by `ns` nanoseconds."""
        self._wall_ns += ns
        self._mono_ns += ns
