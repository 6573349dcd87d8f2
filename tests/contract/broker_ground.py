"""Provides the queue contract's tests with a server to cut, stop and start, brokers on it, and consumers that remember."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Sequence

from mdq.batch import Batch
from mdq.broker import Broker, BrokerUnavailable, Delivery, Subscription
from mdq.broker_memory import MemoryBroker
from mdq.connect import open_broker
from mdq.gaps import GapCounter, Verdict
from mdq.topology import Queue, QueueType, queue
from tests.servers import RabbitMQ

EPOCH = "0001"
TRADES = queue("trades", 0)
hub_names = (f"contract-{number}" for number in itertools.count())


class Ground:
    """Where a test plays: opens brokers on one server, and can cut, stop and start that server."""

    kind = ""
    url = ""
    queue_type: QueueType = "classic"

    def __init__(self) -> None:
        self.opened: list[Broker] = []

    async def open(self) -> Broker:
        broker = open_broker(self.url, "contract test", queue_type=self.queue_type)
        await broker.connect()
        self.opened.append(broker)
        return broker

    async def close(self) -> None:
        for broker in self.opened:
            await broker.close()

    async def cut(self) -> None:
        raise NotImplementedError

    async def stop(self) -> None:
        raise NotImplementedError

    async def start(self) -> None:
        raise NotImplementedError


class MemoryGround(Ground):
    kind = "memory"

    def __init__(self) -> None:
        super().__init__()
        self.url = f"memory://{next(hub_names)}"
        self.hub = MemoryBroker(self.url).hub

    async def cut(self) -> None:
        self.hub.drop_connections()

    async def stop(self) -> None:
        self.hub.stop()

    async def start(self) -> None:
        self.hub.start()


class RabbitGround(Ground):
    kind = "rabbitmq"

    def __init__(self, url: str, server: RabbitMQ | None, queue_type: QueueType = "classic") -> None:
        super().__init__()
        self.url = url
        self.queue_type = queue_type
        self.server = server

    async def cut(self) -> None:
        assert self.server is not None
        await asyncio.to_thread(self.server.control, "close_all_connections", "--global", "cut by a test")

    async def stop(self) -> None:
        assert self.server is not None
        await asyncio.to_thread(self.server.kill)

    async def start(self) -> None:
        assert self.server is not None
        await asyncio.to_thread(self.server.start)


class Reader:
    """A consumer that keeps what it gets."""

    def __init__(self, acknowledge: bool = False) -> None:
        self.got: list[Delivery] = []
        self.malformed: list[tuple[bytes, str]] = []
        self.acknowledge = acknowledge
        self.subscription: Subscription | None = None
        self._acks: list[asyncio.Future[None]] = []

    async def read(self, broker: Broker, queues: Sequence[Queue] = (TRADES,), prefetch: int = 1000) -> Reader:
        self.subscription = await broker.subscribe(
            queues, self.on_delivery, lambda *fault: self.malformed.append(fault), prefetch
        )
        return self

    def on_delivery(self, delivery: Delivery) -> None:
        self.got.append(delivery)
        if self.acknowledge:
            self._acks.append(asyncio.ensure_future(self.ack(delivery.tag)))

    async def ack(self, tag: int) -> None:
        assert self.subscription is not None
        await self.subscription.ack(tag)

    async def close(self) -> None:
        assert self.subscription is not None
        await self.subscription.close()

    @property
    def seqs(self) -> list[int]:
        return [delivery.batch.seq for delivery in self.got]


def batch(seq: int, body: bytes = b"[1]", of: Queue = TRADES) -> Batch:
    return Batch("s", 0, of.stream, of.partition, EPOCH, seq, 1, time.time_ns(), time.time_ns(), time.time_ns(), body)


async def publish(broker: Broker, seqs: Sequence[int], body: bytes = b"[1]", of: Queue = TRADES) -> None:
    await asyncio.gather(*[broker.publish(batch(seq, body, of)) for seq in seqs])


async def gone(broker: Broker, of: Queue = TRADES) -> bool:
    return (await broker.depths([of]))[of.name] == 0


class Collector:
    """A consumer as the processors are one: it subscribes again after a loss and skips what it has seen."""

    def __init__(self, broker: Broker) -> None:
        self.broker = broker
        self.gaps = GapCounter()
        self.events: list[int] = []
        self.lost = 0
        self.verdicts: list[Verdict] = []
        self._tag = 0

    async def run(self) -> None:
        while True:
            try:
                subscription = await self.broker.subscribe([TRADES], self._take, lambda *_: None, 100)
                self._tag = acked = 0
                while subscription.live:
                    await asyncio.sleep(0.005)
                    if self._tag > acked:
                        await subscription.ack(acked := self._tag)
            except BrokerUnavailable:
                await asyncio.sleep(0.02)

    def _take(self, delivery: Delivery) -> None:
        arrival = self.gaps.observe(delivery.batch, time.time_ns(), delivery.redelivered)
        self.lost += arrival.expired + arrival.dropped
        self.verdicts.append(arrival.verdict)
        self.events += [int(word) for word in delivery.batch.body.strip(b"[]").split(b",") if word][arrival.skip :]
        self._tag = delivery.tag
