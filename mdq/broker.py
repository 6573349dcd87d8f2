"""Defines the queue contract: each queue delivers batches in the order of publication, in RabbitMQ and in memory alike.

Order is kept per queue. A batch older than its queue's TTL, or pushed out by a full queue (oldest first), disappears; the
consumer sees that as a gap in `seq`. One consumer of a queue is active at a time; when it goes, its unacknowledged batches
are redelivered to the next one in order.
"""

from __future__ import annotations

from asyncio import Future
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from mdq.batch import Batch
from mdq.topology import Queue


class BrokerUnavailable(ConnectionError):
    """The broker is away or refused the batch; the publisher keeps what it has and tries again."""


@dataclass(slots=True)
class Delivery:
    """A batch at its consumer. `tag` grows with every delivery of one subscription; acknowledging acknowledges all up to it."""

    batch: Batch
    tag: int
    redelivered: bool


@dataclass(frozen=True, slots=True)
class Depth:
    """A queue now: batches ready (delivered ones not counted), and its consumers (of a quorum queue only the active one)."""

    batches: int = 0
    consumers: int = 0


OnDelivery = Callable[[Delivery], None]
OnMalformed = Callable[[bytes, str], None]


class Subscription(Protocol):
    """What a consumer holds of the queues it reads together (all streams of one partition)."""

    @property
    def live(self) -> bool:
        """False once the connection under it is lost: nothing more arrives, nothing can be acknowledged; subscribe again."""

    async def ack(self, tag: int) -> None:
        """Acknowledge every delivery up to and including `tag`.  Raises: BrokerUnavailable (all will be redelivered)."""

    async def pause(self) -> None:
        """Stop deliveries (cancel the consumers, so a standby becomes active) but keep the right to acknowledge."""

    async def close(self) -> None:
        """Give everything back: what is not acknowledged is redelivered to the next consumer, in order."""


class Broker(Protocol):
    """A connection to the queues. It reconnects by itself; `ready` says whether it is connected now."""

    @property
    def ready(self) -> bool: ...

    @property
    def fault(self) -> str:
        """In words why it is not `ready`; empty while it is."""

    async def connect(self) -> None:
        """Connect.  Raises: OperatorError for refused credentials or vhost, OSError when nobody answers."""

    async def declare(self, queues: Sequence[Queue]) -> None:
        """Declare exchange, queues and bindings; idempotent; done again after every reconnect.

        Raises: OperatorError when a queue exists with other arguments, BrokerUnavailable while disconnected.
        """

    def publish(self, batch: Batch) -> Future[None]:
        """Hand a batch over without waiting; the future ends when the broker has confirmed it, or with BrokerUnavailable."""

    async def subscribe(
        self, queues: Sequence[Queue], on_delivery: OnDelivery, on_malformed: OnMalformed, prefetch: int
    ) -> Subscription:
        """Read `queues` (each FIFO) with at most `prefetch` unacknowledged batches a queue; callbacks run on the loop.

        Declares the queues first, so that consumer and publisher may start in any order. A malformed message goes to
        `on_malformed(body, reason)` and is acknowledged here.  Raises: as `declare`.
        """

    async def depths(self, queues: Sequence[Queue]) -> dict[str, int]:
        """Return the number of batches ready (delivered ones not counted) by queue name; 0 for a queue not there.

        Raises: BrokerUnavailable.  Cost: one round trip a queue (0.3 ms).
        """

    async def survey(self, queues: Sequence[Queue]) -> dict[str, Depth]:
        """Return what waits in each queue and who reads it, by name; zeros for a queue not there.  Raises, cost: as `depths`."""

    async def purge(self, queue: Queue) -> int:
        """Throw away what is ready in a queue; return how many batches. Its consumer sees the gap and counts the events as lost.

        Raises: BrokerUnavailable.
        """

    async def close(self) -> None:
        """Close the connection after what was published is confirmed (2 s at the most)."""
