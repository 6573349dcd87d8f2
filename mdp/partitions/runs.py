"""Tells where the round of a looping tape ends: which run of its source a batch belongs to.

Streams are queues of their own, so one may still hold the end of a run when another has begun the next: what belongs to an
earlier run than the newest seen of its source is past. A change of the publisher within a run (a standby took over) is none.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum

import msgspec

SOURCES_MAX = 64


class Turn(Enum):
    """What a batch is to the run of its source."""

    SAME = "same"
    NEW = "new"  # the tape has begun anew
    PAST = "past"


class Runs:
    """The newest (epoch, run) of each source; the source that began longest ago is forgotten when there are too many."""

    def __init__(self) -> None:
        self._newest: dict[str, tuple[str, int]] = {}

    def turn(self, source: str, epoch: str, run: int) -> Turn:
        """Judge a batch, and go on to its run when that is newer."""
        known, here = self._newest.get(source), (epoch, run)
        if known == here:
            return Turn.SAME
        if known is not None and here < known:
            return Turn.SAME if run == known[1] else Turn.PAST
        self._newest[source] = here
        if len(self._newest) > SOURCES_MAX:
            del self._newest[next(iter(self._newest))]
        return Turn.SAME if known is None or run == known[1] else Turn.NEW

    def catch_up(self, others: Mapping[str, tuple[str, int]]) -> list[str]:
        """Go on to the runs that others have seen; return the sources whose tape has begun anew since."""
        return [source for source, (epoch, run) in others.items() if self.turn(source, epoch, run) is Turn.NEW]

    def newest(self) -> dict[str, tuple[str, int]]:
        """Return source → (epoch, run)."""
        return dict(self._newest)

    def cell(self) -> bytes:
        """Return the checkpoint cell."""
        return msgspec.json.encode(self._newest)

    def restore(self, cell: bytes) -> None:
        """Take it back."""
        self._newest = msgspec.json.decode(cell, type=dict[str, tuple[str, int]])
