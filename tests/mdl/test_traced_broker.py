"""Which batches begin a trace at the listener."""

from __future__ import annotations

import itertools
from typing import Any, cast

from mdl.traced_broker import TracedBroker
from mdq.batch import Batch
from mdq.broker_memory import MemoryBroker
from mdq.topology import queue
from service.tracing import Tracer
from tests.contract.broker_ground import Reader
from tests.traces.spans import Spans
from tests.waiting import until

numbers = itertools.count()


def made(seq: int, stream: str = "trades", count: int = 1) -> Batch:
    return Batch("s", 0, stream, 0, "e", seq, count, 100, 200, 200, b"[1]")


async def ground(every: int) -> tuple[TracedBroker, Spans, Reader]:
    broker, spans, clock = MemoryBroker(f"memory://traced-{next(numbers)}"), Spans(every), itertools.count(1000)
    await broker.connect()
    reader = await Reader().read(broker, [queue("trades", 0), queue("status", 0)])
    return TracedBroker(broker, cast(Tracer, spans), lambda: next(clock)), spans, reader


async def test_one_batch_in_so_many_carries_a_trace() -> None:
    """From the oldest frame to the batch, from there to the confirmation; the consumer gets the publish as the parent."""
    broker, spans, reader = await ground(every=3)
    for seq in range(4):
        await broker.publish(made(seq))
    await until(lambda: len(reader.got) == 4)
    assert spans.names == ["mdl.frame", "mdl.publish"] * 2
    frame, publish = spans.kept[:2]
    assert (frame.parent, frame.start_ns, frame.end_ns) == (None, 100, 200)
    assert publish.parent == frame.context
    assert 1000 <= publish.start_ns < publish.end_ns
    assert publish.attributes["confirmed"] is True
    traces = [delivery.batch.trace for delivery in reader.got]
    assert traces == [publish.context, None, None, spans.kept[3].context]


async def test_marks_and_the_listeners_own_status_are_not_drawn() -> None:
    """Nobody waits for them."""
    broker, spans, reader = await ground(every=1)
    await broker.publish(made(0, count=0))
    await broker.publish(made(0, "status"))
    await until(lambda: len(reader.got) == 2)
    assert spans.kept == []


async def test_a_batch_that_is_published_again_keeps_its_trace() -> None:
    """A lost confirmation begins no second trace; what failed is told as not confirmed."""
    broker, spans, reader = await ground(every=1)
    lost: Any = made(0, "books")  # has no queue
    failed = broker.publish(lost)
    await until(failed.done)
    assert failed.exception() is not None
    await until(lambda: spans.kept[1].end_ns)
    assert spans.kept[1].attributes["confirmed"] is False
    trace = lost.trace
    assert broker.publish(lost).exception() is not None
    assert (lost.trace, len(spans.kept)) == (trace, 2)
    assert reader.got == []
