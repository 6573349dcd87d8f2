"""Follows batches that were drawn for a trace through a worker: waited in the queue, applied, flushed.

Invariant: a flush carries one trace at most, that of the first such batch in it; a worker that does not trace has none of this.
"""

from __future__ import annotations

from mdp.owned import Owned
from mdq.broker import Delivery, OnDelivery
from service.clock import Clock
from service.tracing import Tracer


def traced(owned: Owned, take: OnDelivery, tracer: Tracer | None, clock: Clock) -> OnDelivery:
    """Return `take` itself without a tracer, else one that tells of the wait and the application of what was drawn."""
    if tracer is None:
        return take

    def take_traced(delivery: Delivery) -> None:
        batch = delivery.batch
        if batch.trace is None:
            return take(delivery)
        came_ns = clock.wall_ns()
        take(delivery)
        about: dict[str, str | int] = {"source": batch.source, "stream": batch.stream, "partition": batch.partition}
        wait = tracer.span("mdq.wait", batch.trace, batch.sent_ns, came_ns, redelivered=delivery.redelivered, **about)
        applied = tracer.span("mdp.apply", wait, came_ns, clock.wall_ns(), events=batch.count, **about)
        owned.trace = owned.trace or applied
        return None

    return take_traced


def begin_flush(owned: Owned, tracer: Tracer | None, clock: Clock) -> None:
    """Let the flush that was just collected carry the trace of what is in it."""
    if owned.flush is None or tracer is None or owned.trace is None:
        return
    number = owned.partition.number
    owned.span = tracer.begin("mdp.flush", owned.trace, clock.wall_ns(), partition=number, whole=owned.whole)
    owned.flush.trace, owned.trace = owned.span.context, None
