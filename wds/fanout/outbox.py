"""Decides one client's step on the slow-client ladder by its buffered bytes and the time: open, conflate, pause, close.

Invariant: no frame is stored for a slow client. Its groups remember only how far it came (`group.Cursor`), and what it
missed is made from their latest state once it has room again: it costs its subscriptions plus at most `max_bytes`.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

SECOND_NS = 1_000_000_000


class Step(IntEnum):
    """OPEN: everything is written at once. CONFLATE: channels keep only their latest until the buffer is low again.

    PAUSE: nothing but replies until the buffer is empty. CLOSE: the connection ends with 4108.
    """

    OPEN = 0
    CONFLATE = 1
    PAUSE = 2
    CLOSE = 3


@dataclass(frozen=True, slots=True)
class Ladder:
    """When to step: by bytes (`high` conflate, `low` open again, `max` close) and by seconds without becoming open."""

    high_bytes: int = 65_536
    low_bytes: int = 16_384
    max_bytes: int = 1_048_576
    pause_s: float = 2.0
    close_s: float = 10.0


class Outbox:
    """One client's place on the ladder."""

    __slots__ = ("_ladder", "_slow_since_ns", "step")

    def __init__(self, ladder: Ladder) -> None:
        self._ladder = ladder
        self._slow_since_ns = 0
        self.step = Step.OPEN

    def observe(self, buffered_bytes: int, now_ns: int) -> Step:
        """Tell the client's unsent bytes; return the step it is on from now.

        Called when the transport crosses its marks, and once a second while the step is not OPEN.
        """
        if self.step is not Step.CLOSE:
            self.step = self._next(buffered_bytes, now_ns)
        return self.step

    def _next(self, buffered_bytes: int, now_ns: int) -> Step:
        if buffered_bytes > self._ladder.max_bytes:
            return Step.CLOSE
        if self.step is Step.OPEN:
            if buffered_bytes <= self._ladder.high_bytes:
                return Step.OPEN
            self._slow_since_ns = now_ns
            return Step.CONFLATE
        return self._while_slow(buffered_bytes, now_ns)

    def _while_slow(self, buffered_bytes: int, now_ns: int) -> Step:
        # A paused client must have swallowed everything: one that trickles would else swing between the steps.
        if buffered_bytes <= (self._ladder.low_bytes if self.step is Step.CONFLATE else 0):
            return Step.OPEN
        slow_ns = now_ns - self._slow_since_ns
        if slow_ns >= self._ladder.close_s * SECOND_NS:
            return Step.CLOSE
        if slow_ns >= self._ladder.pause_s * SECOND_NS:
            return Step.PAUSE
        return self.step
