"""The queue contract, one suite for both brokers: what holds for RabbitMQ holds for the embedded one."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import AsyncIterator, Sequence
from typing import Any

import aiormq
import pytest

from mdq.batch import Batch
from mdq.batcher import Limits
from mdq.broker import Broker, BrokerUnavailable, Delivery, Subscription
from mdq.broker_memory import MemoryBroker
from mdq.connect import open_broker
from mdq.gaps import GapCounter, Verdict
from mdq.publisher import Publisher
from mdq.topology import Queue, queue
from service.errors import OperatorError
from tests.servers import RabbitMQ, free_port
from tests.waiting import until

EPOCH = "0001"
TRADES = queue("trades", 0)
hub_names = (f"contract-{number}" for number in itertools.count())


class Ground:
    """Where a test plays: opens brokers on one server, and can cut, stop and start that server."""

    kind = ""
    url = ""

    def __init__(self) -> None:
        self.opened: list[Broker] = []

    async def open(self) -> Broker:
        broker = open_broker(self.url, "contract test")
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

    def __init__(self, url: str, server: RabbitMQ | None) -> None:
        super().__init__()
        self.url = url
        self.server = server

    async def cut(self) -> None:
        assert self.server is not None
        await asyncio.to_thread(self.server.control, "close_all_connections", "cut by a test")

    async def stop(self) -> None:
        assert self.server is not None
        await asyncio.to_thread(self.server.kill)

    async def start(self) -> None:
        assert self.server is not None
        await asyncio.to_thread(self.server.start)


@pytest.fixture(params=["memory", pytest.param("rabbitmq", marks=pytest.mark.live)])
async def ground(request: pytest.FixtureRequest) -> AsyncIterator[Ground]:
    """Either broker."""
    made = MemoryGround() if request.param == "memory" else RabbitGround(request.getfixturevalue("mdq_url"), None)
    yield made
    await made.close()


@pytest.fixture(params=["memory", pytest.param("rabbitmq", marks=pytest.mark.live)])
async def breakable(request: pytest.FixtureRequest) -> AsyncIterator[Ground]:
    """Either broker, on a server that the test may cut, stop and start."""
    if request.param == "memory":
        made: Ground = MemoryGround()
    else:
        server = request.getfixturevalue("rabbitmq_server")
        made = RabbitGround(request.getfixturevalue("emptied_server").url, server)
    yield made
    await made.close()


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
    return Batch(of.stream, of.partition, EPOCH, seq, 1, time.time_ns(), time.time_ns(), body)


async def publish(broker: Broker, seqs: Sequence[int], body: bytes = b"[1]", of: Queue = TRADES) -> None:
    await asyncio.gather(*[broker.publish(batch(seq, body, of)) for seq in seqs])


async def gone(broker: Broker, of: Queue = TRADES) -> bool:
    return (await broker.depths([of]))[of.name] == 0


# --- the ordinary way


async def test_batches_arrive_whole_and_in_order(ground: Ground) -> None:
    """What is published arrives once, in order, with every header and the body's bytes untouched."""
    broker, other = await ground.open(), await ground.open()
    reader = await Reader().read(other)
    sent = [batch(n, b'[{"sym":"A\xc3\xa9","p":%d.10}]' % n) for n in range(300)]
    await asyncio.gather(*[broker.publish(one) for one in sent])
    await until(lambda: len(reader.got) == 300)
    assert [delivery.batch for delivery in reader.got] == sent
    assert not any(delivery.redelivered for delivery in reader.got)
    assert [delivery.tag for delivery in reader.got] == sorted({delivery.tag for delivery in reader.got})


async def test_what_was_published_before_the_consumer_came_waits(ground: Ground) -> None:
    """Queues keep batches for the consumer to come, and say how many."""
    broker = await ground.open()
    await broker.declare([TRADES])
    await publish(broker, range(5))
    assert await broker.depths([TRADES]) == {TRADES.name: 5}
    reader = await Reader().read(broker)
    await until(lambda: reader.seqs == [0, 1, 2, 3, 4])
    assert await broker.depths([TRADES]) == {TRADES.name: 0}


async def test_one_subscription_reads_many_queues(ground: Ground) -> None:
    """A partition's streams are read together; each keeps its order and its own prefetch."""
    broker = await ground.open()
    queues = [queue(stream, 3) for stream in ("trades", "quotes", "halts")]
    reader = await Reader().read(broker, queues, prefetch=2)
    for of in queues:
        await publish(broker, range(4), of=of)
    await until(lambda: len(reader.got) == 6)
    for of in queues:
        assert [d.batch.seq for d in reader.got if d.batch.stream == of.stream] == [0, 1]


async def test_depths_of_a_queue_not_there_are_zero(ground: Ground) -> None:
    """Asking for a queue that nobody declared yet is answered, also among others."""
    broker = await ground.open()
    await broker.declare([TRADES])
    await publish(broker, [0])
    missing = queue("books", 7)
    assert await broker.depths([missing, TRADES]) == {missing.name: 0, TRADES.name: 1}


async def test_a_batch_without_a_queue_is_refused(ground: Ground) -> None:
    """Publishing is mandatory: what no queue takes fails instead of vanishing."""
    broker = await ground.open()
    await broker.declare([TRADES])
    with pytest.raises(BrokerUnavailable, match=r"md\.books\.7"):
        await broker.publish(batch(0, of=queue("books", 7)))
    await publish(broker, [1])


# --- bounds


async def test_old_batches_expire(ground: Ground) -> None:
    """A batch older than the TTL is gone, and the gap counter calls its events expired."""
    broker = await ground.open()
    short = queue("trades", 0, ttl_ms=150)
    await broker.declare([short])
    gaps = GapCounter(ttl_ns=150_000_000)
    gaps.observe(batch(-1), time.time_ns())
    await publish(broker, range(4))
    await until(lambda: gone(broker), what="batches expired")
    reader = await Reader().read(broker, [short])
    await publish(broker, [4])
    await until(lambda: reader.got)
    assert reader.seqs == [4]
    arrival = gaps.observe(reader.got[0].batch, time.time_ns())
    assert (arrival.expired, arrival.dropped) == (4, 0)


async def test_a_full_queue_drops_its_oldest(ground: Ground) -> None:
    """Above the byte bound the oldest batches go, the publisher is not refused, and the events count as dropped."""
    broker = await ground.open()
    small = queue("trades", 0, bytes_max=1000)
    await broker.declare([small])
    gaps = GapCounter()
    gaps.observe(batch(-1), time.time_ns())
    await publish(broker, range(10), body=b"x" * 300)
    reader = await Reader().read(broker, [small])
    await until(lambda: len(reader.got) == 3)
    assert reader.seqs == [7, 8, 9]
    assert gaps.observe(reader.got[0].batch, time.time_ns()).dropped == 7


async def test_prefetch_bounds_what_is_in_flight(ground: Ground) -> None:
    """A consumer holds at most `prefetch` unacknowledged batches; acknowledging up to a tag fetches as many more."""
    broker = await ground.open()
    await broker.declare([TRADES])
    await publish(broker, range(10))
    reader = await Reader().read(broker, prefetch=3)
    await until(lambda: len(reader.got) == 3)
    assert await broker.depths([TRADES]) == {TRADES.name: 7}
    await reader.ack(reader.got[1].tag)
    await until(lambda: len(reader.got) == 5)
    await reader.ack(reader.got[4].tag)
    await until(lambda: len(reader.got) == 8)
    assert reader.seqs == list(range(8))
    assert await broker.depths([TRADES]) == {TRADES.name: 2}


# --- consumers come and go


async def test_only_one_consumer_is_active(ground: Ground) -> None:
    """A second consumer stands by and gets nothing while the first is there."""
    broker, other = await ground.open(), await ground.open()
    first, second = await Reader(acknowledge=True).read(broker), await Reader().read(other)
    await publish(broker, range(50))
    await until(lambda: len(first.got) == 50)
    assert second.got == []


async def test_a_standby_continues_in_order(ground: Ground) -> None:
    """When the active consumer closes, the standby gets what it held, redelivered and in order, before anything newer."""
    broker, other = await ground.open(), await ground.open()
    first = await Reader().read(broker, prefetch=5)
    await publish(broker, range(8))
    await until(lambda: len(first.got) == 5)
    second = await Reader().read(other)
    await first.ack(first.got[1].tag)
    await until(lambda: len(first.got) == 7)
    await first.close()
    await publish(broker, [8])
    await until(lambda: len(second.got) == 7)
    assert second.seqs == [2, 3, 4, 5, 6, 7, 8]
    assert [delivery.redelivered for delivery in second.got] == [True] * 5 + [False] * 2


async def test_acknowledged_batches_do_not_come_back(ground: Ground) -> None:
    """One acknowledgement covers everything up to its tag; a repeated or older one changes nothing."""
    broker = await ground.open()
    first = await Reader().read(broker)
    await publish(broker, range(6))
    await until(lambda: len(first.got) == 6)
    await first.ack(first.got[3].tag)
    await first.ack(first.got[3].tag)
    await first.ack(first.got[0].tag)
    await first.close()
    second = await Reader().read(broker)
    await until(lambda: len(second.got) == 2)
    assert second.seqs == [4, 5]


async def test_a_paused_consumer_may_still_acknowledge(ground: Ground) -> None:
    """After a pause the standby gets what is new; what the paused one held can be acknowledged and is not redelivered."""
    broker, other = await ground.open(), await ground.open()
    first = await Reader().read(broker)
    await publish(broker, range(3))
    await until(lambda: len(first.got) == 3)
    second = await Reader().read(other)
    assert first.subscription is not None
    await first.subscription.pause()
    await publish(broker, [3])
    await until(lambda: second.seqs == [3])
    assert first.subscription.live
    await first.ack(first.got[-1].tag)
    await first.close()
    await publish(broker, [4])
    await until(lambda: second.seqs == [3, 4])
    assert first.seqs == [0, 1, 2]


async def test_a_closed_subscription_cannot_acknowledge(ground: Ground) -> None:
    """Who gave everything back learns that an acknowledgement has no effect."""
    broker = await ground.open()
    reader = await Reader().read(broker)
    await publish(broker, [0])
    await until(lambda: reader.got)
    await reader.close()
    await reader.close()
    assert reader.subscription is not None
    assert not reader.subscription.live
    with pytest.raises(BrokerUnavailable):
        await reader.ack(reader.got[0].tag)


async def test_closing_a_broker_ends_its_subscriptions(ground: Ground) -> None:
    """A closed connection gives everything back: the next consumer gets it, and publishing on it fails."""
    broker, other = await ground.open(), await ground.open()
    first = await Reader().read(broker)
    await publish(broker, range(3))
    await until(lambda: len(first.got) == 3)
    await broker.close()
    assert not broker.ready
    assert broker.fault
    second = await Reader().read(other)
    await until(lambda: second.seqs == [0, 1, 2])
    assert all(delivery.redelivered for delivery in second.got)
    with pytest.raises(BrokerUnavailable):
        await broker.publish(batch(3))


# --- declarations


async def test_declaring_again_changes_nothing(ground: Ground) -> None:
    """Declarations are idempotent and keep what the queues hold."""
    broker, other = await ground.open(), await ground.open()
    await broker.declare([TRADES])
    await publish(broker, [0])
    await broker.declare([TRADES])
    await other.declare([TRADES])
    assert await broker.depths([TRADES]) == {TRADES.name: 1}


async def test_other_arguments_are_the_operators_matter(ground: Ground) -> None:
    """A queue that exists with other bounds is named in one clear error, and the connection stays usable."""
    broker = await ground.open()
    await broker.declare([TRADES])
    with pytest.raises(OperatorError) as raised:
        await broker.declare([queue("trades", 0, ttl_ms=777)])
    assert "md.trades.0" in raised.value.what
    assert "rabbitmqctl delete_queue md.trades.0" in raised.value.fix
    assert "\n" not in str(raised.value)
    await publish(broker, [0])
    assert await broker.depths([TRADES]) == {TRADES.name: 1}


# --- faults


async def test_a_lost_connection_is_seen_and_mended(breakable: Ground) -> None:
    """Subscriptions end, publishing fails at once, and the broker comes back with its queues by itself."""
    broker = await breakable.open()
    reader = await Reader().read(broker)
    await publish(broker, range(3))
    await until(lambda: len(reader.got) == 3)
    await breakable.cut()
    assert reader.subscription is not None
    await until(lambda: not reader.subscription.live, what="subscription ended")
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
    publisher = Publisher(broker, partitions=1, limits=Limits(ttl_ns=60_000_000_000))
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


async def test_a_publisher_survives_a_restart_of_the_broker(breakable: Ground) -> None:
    """What is published while the broker is away arrives after it; what the node took along is counted to the event."""
    broker, other = await breakable.open(), await breakable.open()
    publisher = Publisher(broker, partitions=1, limits=Limits(ttl_ns=60_000_000_000))
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
    await until(lambda: collector.gaps.stream("trades").seq == 1500, 10, what="the end was seen")
    assert collector.events == sorted(set(collector.events))
    assert len(collector.events) + collector.lost == 1500
    # Non-persistent messages that the consumer had not fetched die with the node; here it had fetched them all.
    assert set(range(500, 1000)) <= set(collector.events)
    reading.cancel()
    await publisher.close()


class Collector:
    """A consumer as the processors are one: it subscribes again after a loss and skips what it has seen."""

    def __init__(self, broker: Broker) -> None:
        self.broker = broker
        self.gaps = GapCounter()
        self.events: list[int] = []
        self.lost = 0
        self.verdicts: list[Verdict] = []
        self._arrived = asyncio.Event()
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


# --- RabbitMQ's own ways to refuse


def refused(url: str) -> Any:
    return pytest.raises(OperatorError), open_broker(url, "contract test")


@pytest.mark.live
async def test_a_wrong_password_is_said_so(rabbitmq_server: RabbitMQ) -> None:
    """Refused credentials are the operator's matter: one line, the user named, the password not."""
    raises, broker = refused(rabbitmq_server.url_of(password="s3cret"))
    with raises as raised:
        await broker.connect()
    assert "refused the credentials of user 'guest'" in str(raised.value)
    assert "MDQ_URL" in raised.value.fix
    assert "s3cret" not in str(raised.value)


@pytest.mark.live
async def test_a_missing_vhost_is_said_so(rabbitmq_server: RabbitMQ) -> None:
    """A vhost that is not there is named together with the command that makes it."""
    raises, broker = refused(rabbitmq_server.url_of(vhost="nowhere"))
    with raises as raised:
        await broker.connect()
    assert "/nowhere refused the vhost" in str(raised.value)
    assert "add_vhost" in raised.value.fix


@pytest.mark.live
async def test_tls_to_a_plain_port_is_said_so(rabbitmq_server: RabbitMQ) -> None:
    """`amqps` to a port without TLS does not look like a network that may come back."""
    raises, broker = refused(rabbitmq_server.url.replace("amqp:", "amqps:"))
    with raises as raised:
        await broker.connect()
    assert "TLS" in str(raised.value)


async def test_nobody_listening_is_worth_waiting_for() -> None:
    """A broker that is not up yet is an OSError, which start-up retries."""
    with pytest.raises(OSError, match="Connect call failed"):
        await open_broker(f"amqp://127.0.0.1:{free_port()}/", "contract test").connect()
    stopped = MemoryBroker("memory://stopped")
    stopped.hub.stop()
    with pytest.raises(OSError, match="stopped"):
        await stopped.connect()


@pytest.mark.live
async def test_a_message_that_is_no_batch_is_set_aside(mdq_url: str) -> None:
    """What somebody else put into a queue goes to `on_malformed`, is acknowledged, and the next batch arrives."""
    broker = open_broker(mdq_url, "contract test")
    await broker.connect()
    reader = await Reader().read(broker, prefetch=1)
    connection = await aiormq.connect(mdq_url)
    channel = await connection.channel()
    await channel.basic_publish(b"rubbish", exchange="md", routing_key=TRADES.name)
    await publish(broker, [0])
    await until(lambda: reader.got)
    assert [body for body, _ in reader.malformed] == [b"rubbish"]
    assert "stream" in reader.malformed[0][1]
    await reader.ack(reader.got[0].tag)
    await connection.close()
    await broker.close()


@pytest.mark.live
async def test_a_deleted_queue_is_declared_again(mdq_url: str) -> None:
    """When somebody deletes a queue its reader learns it, and the next batch refused for it brings it back."""
    broker = open_broker(mdq_url, "contract test")
    await broker.connect()
    await broker.declare([TRADES])
    reader = await Reader().read(broker)
    connection = await aiormq.connect(mdq_url)
    await (await connection.channel()).queue_delete(TRADES.name)
    assert reader.subscription is not None
    await until(lambda: not reader.subscription.live, what="reader learnt it")

    async def arrives() -> bool:
        outcome = await asyncio.gather(broker.publish(batch(0)), return_exceptions=True)
        return outcome == [None]

    await until(arrives, what="queue declared again")
    assert broker.ready
    await connection.close()
    await broker.close()


@pytest.mark.live
async def test_a_hung_node_is_not_ready(rabbitmq_server: RabbitMQ, emptied_server: RabbitMQ) -> None:
    """A node that takes batches and confirms none shows as not ready within seconds, and as ready when it runs again."""
    broker = open_broker(rabbitmq_server.url, "contract test")
    await broker.connect()
    await broker.declare([TRADES])
    rabbitmq_server.freeze()
    try:
        pending = broker.publish(batch(0))
        await until(lambda: not broker.ready, 5)
        assert "not confirmed" in broker.fault
        assert not pending.done()
    finally:
        rabbitmq_server.thaw()
    await asyncio.wait_for(pending, 5)
    assert broker.ready
    await broker.close()
