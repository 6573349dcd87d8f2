"""A listener and its surroundings for the tests: a consumer that obeys the processors' contract, and the admin port's caller."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any

import httpx
import msgspec

from mdl.listener import Listener
from mdl.source import Source
from mdq.batch import Batch
from mdq.broker import Broker, Delivery, Subscription
from mdq.gaps import Position
from mdq.progress import Progress, to_batch
from mdq.topology import progress_queue, queues_of

TOKEN = "token"
PARTITIONS = 4
split = msgspec.json.Decoder(list[msgspec.Raw]).decode
Start = Callable[..., Awaitable[Listener]]


class Processor:
    """A consumer of all partitions that keeps events in order and skips what it has seen, as the processors do."""

    def __init__(self, broker: Broker) -> None:
        self.broker = broker
        self.lost = 0
        self.events: dict[tuple[str, int], list[bytes]] = {}
        self._expected: dict[tuple[str, str, int], int] = {}
        self._epochs: dict[tuple[str, str, int], str] = {}
        self._subscriptions: list[Subscription] = []
        self._acks: set[asyncio.Task[None]] = set()
        self._reporting: asyncio.Task[None] | None = None

    async def start(self) -> None:
        for partition in range(PARTITIONS):
            known: asyncio.Future[Subscription] = asyncio.get_running_loop().create_future()
            known.set_result(await self.broker.subscribe(queues_of(partition), self._handler(known), lambda *_: None, 16))
            self._subscriptions.append(known.result())
        self._reporting = asyncio.create_task(self._report())

    async def die(self) -> None:
        if self._reporting is not None:
            self._reporting.cancel()
        for subscription in self._subscriptions:
            await subscription.close()
        self._subscriptions.clear()

    def count(self, *streams: str) -> int:
        return sum(len(events) for (stream, _), events in self.events.items() if not streams or stream in streams)

    def data(self) -> int:
        return self.count() - self.count("status")

    def epochs(self) -> set[str]:
        return set(self._epochs.values())

    def statuses(self) -> list[dict[str, Any]]:
        return [json.loads(event) for event in self.events.get(("status", 0), [])]

    def _handler(self, known: asyncio.Future[Subscription]) -> Callable[[Delivery], None]:
        def on_delivery(delivery: Delivery) -> None:
            self._take(delivery.batch)
            task = asyncio.ensure_future(self._ack(known, delivery.tag))
            self._acks.add(task)
            task.add_done_callback(self._acks.discard)

        return on_delivery

    async def _ack(self, known: asyncio.Future[Subscription], tag: int) -> None:
        subscription = await known
        if subscription.live:
            await subscription.ack(tag)

    async def _report(self) -> None:
        await self.broker.declare([progress_queue()])
        for seq in range(1_000_000):
            positions = [(*key, Position(self._epochs[key], expected)) for key, expected in self._expected.items()]
            self.broker.publish(to_batch(Progress("test", list(range(PARTITIONS)), positions), seq, 0))
            await asyncio.sleep(0.05)

    def _take(self, batch: Batch) -> None:
        key = (batch.source, batch.stream, batch.partition)
        if self._epochs.get(key) != batch.epoch:
            self._epochs[key], self._expected[key] = batch.epoch, 0
        expected = self._expected[key]
        if batch.seq + batch.count <= expected:
            return
        assert batch.seq >= expected or batch.count == 0, "a batch may be repeated, never overlap"
        self.lost += batch.seq - expected
        self._expected[key] = batch.seq + batch.count
        self.events.setdefault(key[1:], []).extend(bytes(event) for event in split(batch.body))


def only(listener: Listener) -> Source:
    """Return the one source of a listener."""
    (source,) = listener.sources.values()
    return source


async def call(listener: Listener, method: str, path: str, body: Any = None, token: str = TOKEN) -> httpx.Response:
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{listener.admin.port}") as client:
        return await client.request(method, path, json=body, headers={"Authorization": f"Bearer {token}"})
