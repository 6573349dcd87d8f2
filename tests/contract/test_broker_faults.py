"""The queue contract when the server goes away and comes back: one suite for both brokers."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import AsyncIterator
from typing import Any, cast

import pytest

from mdq.batch import Batch
from mdq.batcher import Limits
from mdq.broker import Broker, BrokerUnavailable
from mdq.gaps import Verdict
from mdq.publisher import Publisher
from tests.contract.broker_ground import Collector, Ground, MemoryGround, RabbitGround, Reader, batch, publish
from tests.servers import RabbitMQ
from tests.waiting import until

vhost_numbers = itertools.count()


@pytest.fixture(params=["memory", *(pytest.param(kind, marks=pytest.mark.live) for kind in ("classic", "quorum"))])
async def breakable(request: pytest.FixtureRequest) -> AsyncIterator[Ground]:
    """The embedded broker and RabbitMQ with either type of queue, on a server that the test may cut, stop and start."""
    if request.param == "memory":
        made: Ground = MemoryGround()
    else:
        server = request.getfixturevalue("rabbitmq_server")
        url = (
            request.getfixturevalue("emptied_server").url
            if request.param == "classic"
            else await asyncio.to_thread(_vhost, server)
        )
        made = RabbitGround(url, server, request.param)
    yield made
    await made.close()


def _vhost(server: RabbitMQ) -> str:
    # RabbitMQ 3.10 cannot restart a quorum queue that was deleted and declared again shortly before the node is killed: its
    # table of names was not on the disk yet. The fault is not ours, so the queues of every test are new ones.
    name = f"quorum-{next(vhost_numbers)}"
    server.control("add_vhost", name)
    server.control("set_permissions", "--vhost", name, "guest", ".*", ".*", ".*")
    return server.url_of(vhost=name)


async def test_a_lost_connection_is_seen_and_mended(breakable: Ground) -> None:
    """Subscriptions end, publishing fails at once, and the broker comes back with its queues by itself."""
    broker = await breakable.open()
    reader = await Reader().read(broker)
    await publish(broker, range(3))
    await until(lambda: len(reader.got) == 3)
    await breakable.cut()
    subscription = reader.subscription
    assert subscription is not None
    await until(lambda: not subscription.live, what="subscription ended")
    with pytest.raises(BrokerUnavailable):
        await reader.ack(3)
    await until(lambda: broker.ready, what="reconnected")
    assert broker.fault == ""
    again = await Reader().read(broker)
    await publish(broker, [3])
    await until(lambda: len(again.got) == 4)
    assert again.seqs == [0, 1, 2, 3]


async def test_a_publisher_loses_nothing_to_a_lost_connection(breakable: Ground) -> None:
    """Batches without confirmation are published again: all events arrive, in order, duplicates known by `seq`."""
    broker, other = await breakable.open(), await breakable.open()
    publisher = Publisher(broker, 1, "s", limits=Limits(ttl_ns=60_000_000_000))
    await publisher.start()
    collector = Collector(other)
    reading = asyncio.create_task(collector.run())
    for n in range(3000):
        publisher.add("trades", 0, [b"%d" % n], time.time_ns())
        if n in (1000, 2000):
            await breakable.cut()
        if n % 20 == 0:
            await asyncio.sleep(0.001)
    assert await publisher.drain(10)
    await until(lambda: len(collector.events) == 3000, 10, what="all events arrived")
    assert collector.events == list(range(3000))
    assert collector.lost == 0
    assert publisher.published["trades"] == 3000
    reading.cancel()
    await publisher.close()


class ForgetfulBroker:
    """A broker whose first confirmations get lost on the way back, as when the connection breaks after the publish."""

    def __init__(self, broker: Broker, lost: int) -> None:
        self._broker = broker
        self._lost = lost

    def __getattr__(self, name: str) -> Any:
        return getattr(self._broker, name)

    def publish(self, batch: Batch) -> asyncio.Future[None]:
        confirmed = self._broker.publish(batch)
        if batch.count and self._lost:
            self._lost -= 1
            return asyncio.ensure_future(self._lose(confirmed))
        return confirmed

    async def _lose(self, confirmed: asyncio.Future[None]) -> None:
        await confirmed
        raise BrokerUnavailable("connection lost before the confirmation")


async def test_a_batch_published_twice_is_recognised(breakable: Ground) -> None:
    """When only the confirmations are lost the batches arrive twice, with the same `seq`: the second time as duplicates."""
    broker, other = await breakable.open(), await breakable.open()
    publisher = Publisher(cast(Broker, ForgetfulBroker(broker, lost=2)), 1, "s")
    await publisher.start()
    collector = Collector(other)
    reading = asyncio.create_task(collector.run())
    publisher.add("trades", 0, [b"%d" % n for n in range(1500)], time.time_ns())
    assert await publisher.drain(5)
    await until(lambda: collector.verdicts.count(Verdict.DUPLICATE) == 2)
    assert collector.events == list(range(1500))
    assert collector.lost == 0
    reading.cancel()
    await publisher.close()


async def test_a_publisher_survives_a_restart_of_the_broker(breakable: Ground) -> None:
    """What is published while the broker is away arrives after it; what the node took along is counted to the event."""
    broker, other = await breakable.open(), await breakable.open()
    publisher = Publisher(broker, 1, "s", limits=Limits(ttl_ns=60_000_000_000))
    await publisher.start()
    collector = Collector(other)
    reading = asyncio.create_task(collector.run())

    async def feed(first: int, last: int) -> None:
        for n in range(first, last):
            publisher.add("trades", 0, [b"%d" % n], time.time_ns())
            if n % 20 == 0:
                await asyncio.sleep(0.001)

    await feed(0, 500)
    await until(lambda: len(collector.events) == 500)
    await breakable.stop()
    await until(lambda: not broker.ready, what="loss noticed")
    assert broker.fault
    with pytest.raises(BrokerUnavailable):
        await broker.publish(batch(0))
    await feed(500, 1000)
    assert collector.events == list(range(500))
    await breakable.start()
    await until(lambda: broker.ready, 10, what="reconnected")
    await feed(1000, 1500)
    assert await publisher.drain(10)
    await until(lambda: collector.gaps.stream("s", "trades").seq == 1500, 10, what="the end was seen")
    assert collector.events == sorted(set(collector.events))
    assert len(collector.events) + collector.lost == 1500
    # Non-persistent messages that the consumer had not fetched die with the node; here it had fetched them all.
    assert set(range(500, 1000)) <= set(collector.events)
    reading.cancel()
    await publisher.close()
