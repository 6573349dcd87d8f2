"""Reports of how far processors have come."""

from __future__ import annotations

import msgspec
import pytest

from mdq.batch import Batch, from_message
from mdq.gaps import Position
from mdq.progress import Progress, from_batch, to_batch
from mdq.topology import all_queues, progress_queue


def test_a_report_survives_the_queue() -> None:
    """What a worker tells arrives whole: its partitions and its positions per stream and partition."""
    report = Progress("w1", [0, 3], [("stocks", "trades", 3, Position("b", 42, 7)), ("crypto", "status", 0, Position("b", 1))])
    sent = to_batch(report, seq=5, now_ns=9)
    assert from_batch(from_message(sent.headers(), sent.body)) == [report]
    assert (sent.epoch, sent.seq, sent.count) == ("w1", 5, 1)


def test_reports_have_a_queue_of_their_own() -> None:
    """The queue of the reports is none of the market data's, and is where the report's batch is routed."""
    sent = to_batch(Progress("w1", [], []), 0, 0)
    assert progress_queue().name == f"md.{sent.stream}.{sent.partition}"
    assert progress_queue().name not in {made.name for made in all_queues(8)}
    own = progress_queue("stocks")
    assert (own.name, own.key, own.arguments()["x-expires"]) == ("md.progress.0.stocks", "md.progress.0", 60_000)


def test_a_report_that_is_none_raises_a_decode_error() -> None:
    """A foreign message is one documented error."""
    with pytest.raises(msgspec.DecodeError):
        from_batch(Batch("s", 0, "progress", 0, "w", 0, 1, 0, 0, 0, b"[1]"))
