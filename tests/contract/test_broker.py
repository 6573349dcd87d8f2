"""The queue contract, one suite for both brokers: what holds for RabbitMQ holds for the embedded one."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator

import pytest

from mdq.broker import Broker, BrokerUnavailable, Depth
from mdq.gaps import GapCounter
from mdq.topology import progress_queue, queue
from service.errors import OperatorError
from tests.conftest import delete_queues
from tests.contract.broker_ground import TRADES, Collector, Ground, MemoryGround, RabbitGround, Reader, batch, gone, publish
from tests.waiting import until

live = pytest.mark.live
SERVERS = [
    "memory", pytest.param("classic", marks=live), pytest.param("quorum", marks=live),
    pytest.param("cluster", marks=[live, pytest.mark.faults]),
]  # fmt: skip


@pytest.fixture(params=SERVERS)
async def ground(request: pytest.FixtureRequest) -> AsyncIterator[Ground]:
    """The embedded broker, RabbitMQ with either type of queue, and quorum queues on three nodes."""
    if request.param == "memory":
        made: Ground = MemoryGround()
    elif request.param == "cluster":
        cluster = request.getfixturevalue("rabbit_cluster")
        await delete_queues(cluster.nodes[0].url)
        made = RabbitGround(cluster.url, None, "quorum")
    else:
        made = RabbitGround(request.getfixturevalue("mdq_url"), None, request.param)
    yield made
    await made.close()


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


async def test_queues_of_one_key_each_get_every_message(ground: Ground) -> None:
    """Two sources listen to the processors' reports: what one reads is not missing at the other."""
    broker = await ground.open()
    readers = [
        await Reader().read(broker, [progress_queue(name)])
        for name in ("", f"stocks-{ground.queue_type}", f"crypto-{ground.queue_type}")
    ]
    await publish(broker, range(3), of=progress_queue())
    for reader in readers:
        await until(lambda reader=reader: reader.seqs == [0, 1, 2])


async def test_a_cancelled_subscribe_leaves_nothing_behind(ground: Ground) -> None:
    """Cut off at any moment while batches wait: the connection goes on, and the next consumer gets everything, in order."""
    broker, queues, dice = await ground.open(), [queue("quotes", number) for number in range(6)], random.Random(5)
    await broker.declare(queues)
    await asyncio.gather(*[publish(broker, range(60), of=of) for of in queues])
    for _ in range(20):
        half = asyncio.create_task(Reader().read(broker, queues, prefetch=16))
        await asyncio.sleep(dice.random() * 0.02)
        half.cancel()
        outcome = (await asyncio.gather(half, return_exceptions=True))[0]
        if isinstance(outcome, Reader):  # it was faster
            await outcome.close()
    reader = await Reader().read(broker, queues, prefetch=100)
    await until(lambda: len(reader.got) == 360, what="everything redelivered")
    for of in queues:
        assert [delivery.batch.seq for delivery in reader.got if delivery.batch.partition == of.partition] == list(range(60))
    await reader.close()


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


async def test_acknowledgements_that_overtake_each_other_are_one(ground: Ground) -> None:
    """Whoever acknowledges a newer delivery acknowledges the older ones: asked at once, in any order, none is told twice."""
    broker = await ground.open()
    reader = await Reader().read(broker)
    for _ in range(5):
        before = len(reader.got)
        await publish(broker, range(before, before + 200))
        await until(lambda before=before: len(reader.got) == before + 200)
        tags = [delivery.tag for delivery in reader.got[before:]]
        await asyncio.gather(*(reader.ack(tag) for tag in [*tags[::2], *reversed(tags)]))
    await until(lambda: gone(broker))
    assert reader.subscription is not None
    assert reader.subscription.live


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


# --- operators


async def test_a_survey_shows_depths_and_consumers(ground: Ground) -> None:
    """What waits and who reads; of a quorum queue's readers the active one is shown, of others the standbys too; a queue that is not there has nothing of either."""
    broker, other = await ground.open(), await ground.open()
    await broker.declare([TRADES])
    await publish(broker, range(3))
    missing = queue("trades", 15)
    assert await broker.survey([TRADES, missing]) == {TRADES.name: Depth(3, 0), missing.name: Depth(0, 0)}
    await Reader().read(broker)
    await Reader().read(other)
    await until(lambda: _surveyed(broker, Depth(0, 1 if ground.queue_type == "quorum" else 2)))


async def test_a_purge_takes_what_waits_and_its_consumer_counts_it_as_lost(ground: Ground) -> None:
    """Not what is delivered; what comes later has a gap before it; a queue that is not there has nothing to purge."""
    broker = await ground.open()
    collector = Collector(broker)
    await broker.declare([TRADES])
    await publish(broker, range(2))
    reader = await Reader().read(broker, prefetch=2)
    await until(lambda: reader.seqs == [0, 1])
    await publish(broker, range(2, 7))
    assert await broker.purge(TRADES) == 5
    assert await broker.purge(TRADES) == 0
    assert await broker.purge(queue("trades", 15)) == 0
    await reader.close()
    running = asyncio.ensure_future(collector.run())
    await publish(broker, [7])
    await until(lambda: collector.events)
    running.cancel()
    await until(lambda: collector.lost == 5)


async def _surveyed(broker: Broker, wanted: Depth) -> bool:
    return (await broker.survey([TRADES]))[TRADES.name] == wanted
