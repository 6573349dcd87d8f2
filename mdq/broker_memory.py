"""Carries batches within one process: the embedded twin of RabbitMQ, under the same contract and test suite.

A `Hub` is what the server is to RabbitMQ: it holds the queues; a `MemoryBroker` is one connection to it. All connections
of a hub live on one event loop. Nothing is copied: the consumer gets the publisher's own `Batch`.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from urllib.parse import urlsplit
from weakref import WeakValueDictionary

import structlog

from mdq.batch import Batch
from mdq.broker import BrokerUnavailable, Delivery, Depth, OnDelivery, OnMalformed
from mdq.memory_queue import Consumer, Entry, MemoryQueue
from mdq.topology import Queue, other_arguments
from service.clock import Clock, SystemClock

RECONNECT_S = 0.05

log = structlog.get_logger()
_hubs: WeakValueDictionary[str, Hub] = WeakValueDictionary()  # a hub lives as long as one of its connections does


def hub(name: str = "") -> Hub:
    """Return the process-wide hub `name`, made on first use."""
    found = _hubs.get(name)
    if found is None:
        found = _hubs[name] = Hub()
    return found


class Hub:
    """The queues of one `memory://name`. `stop`, `start`, `restart` and `drop_connections` are what fault tests need."""

    def __init__(self, clock: Clock | None = None) -> None:
        self.clock = clock or SystemClock()
        self.up = True
        self.queues: dict[str, MemoryQueue] = {}
        self.connections: set[MemoryBroker] = set()
        self._bound: dict[str, list[MemoryQueue]] = {}  # routing key → queues
        self._owners: dict[Consumer, MemorySubscription] = {}
        self._timers: dict[str, asyncio.TimerHandle] = {}

    def stop(self) -> None:
        """Go away as a node does: connections are lost, messages too (they are not persistent), queues stay declared."""
        self.up = False
        self.drop_connections()
        for queue in self.queues.values():
            queue.clear()

    def start(self) -> None:
        """Come back; the connections find it by themselves."""
        self.up = True

    def restart(self) -> None:
        """Stop and start."""
        self.stop()
        self.start()

    def drop_connections(self) -> None:
        """Cut every connection, keep the messages: what was delivered but not acknowledged goes back into the queues."""
        for connection in list(self.connections):
            connection._lost()

    def declare(self, queue: Queue) -> None:
        """Make the queue.  Raises: OperatorError when it exists with other arguments."""
        if queue.name not in self.queues:
            made = self.queues[queue.name] = MemoryQueue(queue)
            self._bound.setdefault(queue.key, []).append(made)
        known = self.queues[queue.name]
        if known.queue != queue:
            raise other_arguments(queue, f"{known.queue.arguments()} there, {queue.arguments()} wanted")

    def publish(self, batch: Batch) -> None:
        """Route a batch to the queues of its key.  Raises: BrokerUnavailable when there is none."""
        bound = self._bound.get(f"md.{batch.stream}.{batch.partition}")
        if bound is None:
            raise BrokerUnavailable(f"queue md.{batch.stream}.{batch.partition} is not declared")
        for queue in bound:
            queue.push(batch, self.clock.mono_ns())
            self.pump(queue)

    def join(self, queue: MemoryQueue, consumer: Consumer, owner: MemorySubscription) -> None:
        """Register a consumer; it becomes active when those before it have left."""
        self._owners[consumer] = owner
        queue.consumers.append(consumer)
        self.pump(queue)

    def leave(self, queue: MemoryQueue, consumer: Consumer) -> None:
        """Take a consumer off the queue; what it holds stays held until acknowledged or given back."""
        if consumer in queue.consumers:
            queue.consumers.remove(consumer)
            self._owners.pop(consumer)
            self.pump(queue)

    def pump(self, queue: MemoryQueue) -> None:
        """Hand what can be delivered to the active consumer, and see to it that the rest expires in time."""
        for consumer, entry in queue.assign(self.clock.mono_ns()):
            self._owners[consumer]._take(queue, consumer, entry)
        self._arm(queue)

    def _arm(self, queue: MemoryQueue) -> None:
        # One timer a queue, for its head only: it frees memory and keeps depths true while nobody reads.
        expires_ns = queue.expires_ns
        if expires_ns is None or queue.queue.name in self._timers:
            return
        delay_s = max(0.0, (expires_ns - self.clock.mono_ns()) / 1e9)
        self._timers[queue.queue.name] = asyncio.get_running_loop().call_later(delay_s, self._expire, queue)

    def _expire(self, queue: MemoryQueue) -> None:
        self._timers.pop(queue.queue.name, None)
        self.pump(queue)

    def _disarm(self) -> None:
        for timer in self._timers.values():
            timer.cancel()
        self._timers.clear()


class MemoryBroker:
    """One connection to a hub."""

    def __init__(self, url: str = "memory://", name: str = "", clock: Clock | None = None) -> None:
        parts = urlsplit(url)
        self.name = name
        self.hub = hub(parts.netloc + parts.path)
        if clock is not None:
            self.hub.clock = clock
        self._connected = False
        self._closed = False
        self._subscriptions: set[MemorySubscription] = set()

    @property
    def ready(self) -> bool:
        return self._connected and self.hub.up

    @property
    def fault(self) -> str:
        return "" if self.ready else "the in-memory queues are stopped"

    async def connect(self) -> None:
        if not self.hub.up:
            raise ConnectionRefusedError("the in-memory queues are stopped")
        self._closed = False
        self._connect()

    async def declare(self, queues: Sequence[Queue]) -> None:
        self._require()
        for queue in queues:
            self.hub.declare(queue)

    def publish(self, batch: Batch) -> asyncio.Future[None]:
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        try:
            self._require()
            self.hub.publish(batch)
            future.set_result(None)
        except BrokerUnavailable as error:
            future.set_exception(error)
        return future

    async def subscribe(
        self, queues: Sequence[Queue], on_delivery: OnDelivery, on_malformed: OnMalformed, prefetch: int
    ) -> MemorySubscription:
        await self.declare(queues)
        subscription = MemorySubscription(self.hub, on_delivery)
        self._subscriptions.add(subscription)
        for queue in queues:
            subscription._join(self.hub.queues[queue.name], prefetch)
        return subscription

    async def depths(self, queues: Sequence[Queue]) -> dict[str, int]:
        self._require()
        now_ns = self.hub.clock.mono_ns()
        for queue in self.hub.queues.values():
            queue.expire(now_ns)
        return {queue.name: len(self.hub.queues.get(queue.name, ())) for queue in queues}

    async def survey(self, queues: Sequence[Queue]) -> dict[str, Depth]:
        depths = await self.depths(queues)
        known = self.hub.queues
        return {name: Depth(n, len(known[name].consumers) if name in known else 0) for name, n in depths.items()}

    async def purge(self, queue: Queue) -> int:
        self._require()
        known = self.hub.queues.get(queue.name)
        return known.clear() if known is not None else 0

    async def close(self) -> None:
        self._closed = True
        for subscription in list(self._subscriptions):
            await subscription.close()
        self._connected = False
        self.hub.connections.discard(self)
        if not self.hub.connections:
            self.hub._disarm()

    def _require(self) -> None:
        if not self.ready:
            raise BrokerUnavailable(self.fault)

    def _connect(self) -> None:
        if not self._closed and self.hub.up:
            self._connected = True
            self.hub.connections.add(self)
        elif not self._closed:
            asyncio.get_running_loop().call_later(RECONNECT_S, self._connect)

    def _lost(self) -> None:
        self._connected = False
        self.hub.connections.discard(self)
        for subscription in self._subscriptions:
            subscription._end()
        self._subscriptions.clear()
        asyncio.get_running_loop().call_later(RECONNECT_S, self._connect)


class MemorySubscription:
    """The queues one consumer reads together, and what it has got of them but not acknowledged."""

    def __init__(self, hub: Hub, on_delivery: OnDelivery) -> None:
        self.live = True
        self._hub = hub
        self._on_delivery = on_delivery
        self._joined: list[tuple[MemoryQueue, Consumer]] = []
        self._held: deque[tuple[int, MemoryQueue, Consumer, Entry]] = deque()
        self._tag = 0

    async def ack(self, tag: int) -> None:
        if not self.live:
            raise BrokerUnavailable("the subscription has ended; what it held is redelivered")
        queues = {}
        while self._held and self._held[0][0] <= tag:
            _, queue, consumer, _ = self._held.popleft()
            consumer.held -= 1
            queues[queue.queue.name] = queue
        for queue in queues.values():
            self._hub.pump(queue)

    async def pause(self) -> None:
        self._leave()
        await asyncio.sleep(0)  # deliveries already on their way arrive before this returns, as with RabbitMQ

    async def close(self) -> None:
        self._end()

    def _join(self, queue: MemoryQueue, prefetch: int) -> None:
        consumer = Consumer(prefetch)
        self._joined.append((queue, consumer))
        self._hub.join(queue, consumer, self)

    def _take(self, queue: MemoryQueue, consumer: Consumer, entry: Entry) -> None:
        # Delivered from the loop, never from inside the publisher's call: as over a network, and no recursion.
        self._tag += 1
        self._held.append((self._tag, queue, consumer, entry))
        asyncio.get_running_loop().call_soon(self._deliver, Delivery(entry.batch, self._tag, entry.redelivered))

    def _deliver(self, delivery: Delivery) -> None:
        if self.live:
            self._on_delivery(delivery)

    def _leave(self) -> None:
        for queue, consumer in self._joined:
            self._hub.leave(queue, consumer)
        self._joined.clear()

    def _end(self) -> None:
        """Give back first, leave then: the next consumer must not get newer batches before the returned ones."""
        if not self.live:
            return
        self.live = False
        returned: dict[str, tuple[MemoryQueue, list[Entry]]] = {}
        for _, queue, consumer, entry in self._held:
            consumer.prefetch = 0  # nothing more for the one who leaves
            returned.setdefault(queue.queue.name, (queue, []))[1].append(entry)
        self._held.clear()
        for queue, entries in returned.values():
            queue.give_back(entries)
        self._leave()
        for queue, _ in returned.values():
            self._hub.pump(queue)
