"""Remembers which symbols the checkpoint holds further than its positions say, and passes over what they have had already.

Between two whole flushes the watched symbols are written alone, each with all its cells: they are then *ahead* of the
positions, which stay behind for the others. Whoever starts from that checkpoint gets the batches after the positions again.

Invariant: an event changes a symbol once, whether the symbol is ahead or not.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TypeVar

import msgspec

from mdq.batch import Batch
from mdq.gaps import Position

FIELD = "ahead"
# What was read before the crash and is not delivered again by then has expired in its queue (5 s) or was never ours.
FORGET_MS = 30_000
AnyEvent = TypeVar("AnyEvent")
Place = tuple[str, str, str, int]  # source, stream, epoch, seq


class Cell(msgspec.Struct, array_like=True):
    """The checkpoint cell: symbols that are ahead, and how far."""

    symbols: list[str]
    places: list[Place]


_cell = msgspec.json.Decoder(Cell)


def cell(symbols: Iterable[str], positions: Iterable[tuple[str, str, Position]]) -> bytes:
    """Return the checkpoint cell that says: these symbols stand at these positions."""
    return msgspec.json.encode(Cell(list(symbols), [(source, stream, at.epoch, at.seq) for source, stream, at in positions]))


def places(body: bytes) -> list[tuple[str, str, Position]]:
    """Return how far a cell's symbols stand, (source, stream, position).  Raises: msgspec.DecodeError."""
    return [(source, stream, Position(epoch, seq)) for source, stream, epoch, seq in _cell.decode(body).places]


class Ahead:
    """What a checkpoint that was read says of symbols ahead of it.  Raises: msgspec.DecodeError for an unreadable cell."""

    def __init__(self, body: bytes, now_ms: int) -> None:
        known = _cell.decode(body)
        self.body = body
        self.symbols = frozenset(known.symbols)
        self._places = {(source, stream): (epoch, seq) for source, stream, epoch, seq in known.places}
        self._until_ms = now_ms + FORGET_MS

    def split(
        self, events: Sequence[AnyEvent], batch: Batch, skip: int, redelivered: bool
    ) -> tuple[list[AnyEvent], list[AnyEvent]]:
        """Return what of a batch's events, of which `skip` were passed over already, its symbols have had, and what not."""
        epoch, seq = self._places.get((batch.source, batch.stream), ("", 0))
        if batch.epoch == epoch:
            known = max(0, seq - batch.seq - skip)
        else:  # of an older tenure only what our predecessor was given too
            known = len(events) if batch.epoch < epoch and redelivered else 0
        had: list[AnyEvent] = []
        fresh: list[AnyEvent] = []
        for n, event in enumerate(events):
            (had if n < known and getattr(event, "symbol", None) in self.symbols else fresh).append(event)
        return had, fresh

    def over(self, positions: Iterable[tuple[str, str, Position]], now_ms: int) -> bool:
        """Return whether the positions have caught up, or never will: nothing can be delivered again."""
        if now_ms >= self._until_ms:
            return True
        reached = {(source, stream): (at.epoch, at.seq) for source, stream, at in positions}
        return all(reached.get(key, ("", 0)) >= place for key, place in self._places.items())
