"""Defines the report by which processors tell a lossless source how far they are, so that it can pace itself.

A source that may not lose anything (a replay at full speed) must not run ahead of the processors by more than the queues'
TTL allows. How far they are, only they know: each worker tells it ten times a second.
"""

from __future__ import annotations

import msgspec

from mdq.batch import Batch
from mdq.gaps import Position

EVERY_S = 0.1


class Progress(msgspec.Struct):
    """One worker's report: the partitions it owns, and (source, stream, partition, position) of what is safely in the cache."""

    worker: str
    partitions: list[int]
    positions: list[tuple[str, str, int, Position]]


_decoder = msgspec.json.Decoder(list[Progress])


def to_batch(progress: Progress, seq: int, now_ns: int) -> Batch:
    """Return the message of a report; `seq` grows by one a report of the worker."""
    return Batch("processors", 0, "progress", 0, progress.worker, seq, 1, now_ns, now_ns, now_ns, msgspec.json.encode([progress]))


def from_batch(batch: Batch) -> list[Progress]:
    """Return the reports in a message.  Raises: msgspec.DecodeError."""
    return _decoder.decode(batch.body)
