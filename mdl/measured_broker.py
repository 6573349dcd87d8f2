"""Wraps a broker: counts batches that carry events, and measures how old their oldest event is when they are confirmed."""

from __future__ import annotations

import time
from asyncio import Future
from collections import Counter
from functools import partial
from typing import Any

from mdq.batch import Batch
from mdq.broker import Broker
from service import metrics

latency_ms = metrics.histogram("mdl", "publish_latency_ms", "oldest event received to its batch confirmed by the broker")


class MeasuredBroker:
    """A broker like the one inside it; `batches` counts what was published with events in it, `published` all by queue."""

    def __init__(self, broker: Broker, published: Counter[tuple[str, int]] | None = None) -> None:
        self.batches = 0
        self._published: Counter[tuple[str, int]] = Counter() if published is None else published
        self._broker = broker
        self._publish = broker.publish

    def publish(self, batch: Batch) -> Future[None]:
        """Hand over, and measure when it carries events."""
        future = self._publish(batch)
        self._published[batch.stream, batch.partition] += 1
        if batch.count:
            self.batches += 1
            future.add_done_callback(partial(_observe, batch.first_ns))
        return future

    def __getattr__(self, name: str) -> Any:
        return getattr(self._broker, name)


def _observe(first_ns: int, future: Future[None]) -> None:
    if not future.cancelled() and future.exception() is None:
        latency_ms.observe((time.time_ns() - first_ns) / 1e6)
