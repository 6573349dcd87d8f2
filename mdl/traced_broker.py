"""Wraps a broker: some of the batches begin a trace, which tells how long each hop to the browser takes.

A frame's events part here, by stream and partition, so what is followed is a batch: `mdl.frame` lasts from the receipt of its
oldest frame until it was closed, `mdl.publish` until the broker has confirmed it.
"""

from __future__ import annotations

from asyncio import Future
from collections.abc import Callable
from functools import partial
from typing import Any

from mdq.batch import Batch
from mdq.broker import Broker
from mdq.topology import PARTITIONED
from service.tracing import Span, Tracer


class TracedBroker:
    """A broker like the one inside it. A batch that is published again belongs to the trace it has."""

    def __init__(self, broker: Broker, tracer: Tracer, wall_ns: Callable[[], int]) -> None:
        self._broker = broker
        self._tracer = tracer
        self._wall_ns = wall_ns

    def publish(self, batch: Batch) -> Future[None]:
        """Hand over; when the batch is drawn its headers carry the trace on."""
        if not batch.count or batch.trace is not None or batch.stream not in PARTITIONED or not self._tracer.draws():
            return self._broker.publish(batch)
        about: dict[str, Any] = {"source": batch.source, "stream": batch.stream, "partition": batch.partition}
        frame = self._tracer.span("mdl.frame", None, batch.first_ns, batch.sent_ns, seq=batch.seq, events=batch.count, **about)
        span = self._tracer.begin("mdl.publish", frame, self._wall_ns(), bytes=len(batch.body), **about)
        batch.trace = span.context
        future = self._broker.publish(batch)
        future.add_done_callback(partial(self._ended, span))
        return future

    def _ended(self, span: Span, future: Future[None]) -> None:
        span.end(self._wall_ns(), confirmed=not future.cancelled() and future.exception() is None)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._broker, name)
