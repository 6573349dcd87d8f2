"""A drawn batch through a worker: waited, applied, flushed, and its flush's documents."""

from __future__ import annotations

from typing import Any, cast

import msgspec

from mdc.documents import decode_message
from mdp import roster
from mdp.owned import Owned
from mdp.partitions.partition import Partition
from mdp.tracing import begin_flush, traced
from mdq.broker import Delivery
from service.tracing import Tracer
from tests.mdp.feed import START_MS, batch, trade
from tests.traces.spans import Spans

PARENT = "00-0123456789abcdef0123456789abcdef-0123456789abcdef-01"


class Clock:
    """Each look at it is a millisecond later."""

    def __init__(self) -> None:
        self.ns = START_MS * 1_000_000

    def mono_ns(self) -> int:
        return self.ns

    def wall_ns(self) -> int:
        self.ns += 1_000_000
        return self.ns


def ground() -> tuple[Owned, Clock, Any]:
    owned, clock = Owned(Partition(3, 1, "e1", roster.build(["quote"], {}, 500))), Clock()
    return owned, clock, lambda delivery: owned.partition.on_batch(delivery.batch, delivery.redelivered, clock.wall_ns())


def test_without_a_tracer_nothing_is_wrapped() -> None:
    """The very function that takes batches is what the broker calls."""
    owned, clock, take = ground()
    assert traced(owned, take, None, clock) is take


def test_a_drawn_batch_is_told_from_the_queue_to_the_flush() -> None:
    """The wait begins when the batch was sent, the flush carries the trace on into its documents, once."""
    owned, clock, take = ground()
    spans = Spans()
    tracer = cast(Tracer, spans)
    on_delivery = traced(owned, take, tracer, clock)
    on_delivery(Delivery(batch([trade("A")], "trades", 0), 1, False))
    assert (spans.kept, owned.trace) == ([], None)
    drawn = batch([trade("B")], "trades", 1)
    drawn.trace = PARENT
    on_delivery(Delivery(drawn, 2, False))
    owned.flush = owned.partition.collect(START_MS)
    assert owned.flush is not None
    plain = owned.flush.arguments(1, 1)
    begin_flush(owned, tracer, clock)
    assert spans.names == ["mdq.wait", "mdp.apply", "mdp.flush"]
    wait, apply, flush = spans.kept
    assert (wait.parent, wait.start_ns, wait.end_ns) == (PARENT, drawn.sent_ns, apply.start_ns)
    assert (apply.parent, flush.parent) == (wait.context, apply.context)
    assert apply.end_ns > apply.start_ns
    assert (owned.trace, owned.span, flush.end_ns) == (None, flush, 0)
    carried = owned.flush.arguments(1, 1)
    changed = [(before, after) for before, after in zip(plain, carried, strict=True) if before != after]
    assert changed, "its documents carry it"
    for before, after in changed:
        [now], [then] = decode_message(b"[" + after + b"]"), decode_message(b"[" + before + b"]")
        assert now.trace == flush.context
        now.trace = None
        assert msgspec.structs.asdict(now) == msgspec.structs.asdict(then)
    begin_flush(owned, tracer, clock)
    assert len(spans.kept) == 3, "one flush, one span"
