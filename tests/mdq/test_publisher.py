"""The publisher against the in-memory broker and against one that confirms when the test says so."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import AsyncIterator, Sequence
from functools import partial

import pytest

from mdq.batch import Batch
from mdq.batcher import Limits
from mdq.broker import BrokerUnavailable, Delivery
from mdq.broker_memory import MemoryBroker
from mdq.gaps import GapCounter
from mdq.publisher import Publisher
from mdq.topology import Queue, queues_of
from service.clock import ManualClock
from tests.waiting import until

names = (f"memory://publisher-{number}" for number in itertools.count())


@pytest.fixture
async def broker() -> AsyncIterator[MemoryBroker]:
    """A connected in-memory broker of its own."""
    made = MemoryBroker(next(names))
    await made.connect()
    yield made
    await made.close()


class SlowBroker(MemoryBroker):
    """A broker that keeps the confirmations of events until the test gives them."""

    def __init__(self) -> None:
        super().__init__(next(names))
        self.held: list[tuple[Batch, asyncio.Future[None]]] = []

    def publish(self, batch: Batch) -> asyncio.Future[None]:
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        if batch.count:
            self.held.append((batch, future))
        return future

    def confirm(self, count: int = 1) -> None:
        for _, future in self.held[:count]:
            future.set_result(None)
        del self.held[:count]


async def publishing(broker: MemoryBroker, **options: object) -> Publisher:
    publisher = Publisher(broker, 2, "s", **options)  # type: ignore[arg-type]
    await publisher.start()
    return publisher


async def reading(broker: MemoryBroker, queues: Sequence[Queue] = ()) -> list[Batch]:
    got: list[Batch] = []

    def take(delivery: Delivery) -> None:
        got.append(delivery.batch)

    await broker.subscribe(queues or queues_of(0), take, lambda *_: None, 10_000)
    return got


def marked(got: list[Batch], times: int) -> bool:
    return sum(1 for batch in got if batch.count == 0) >= times


async def test_a_single_event_leaves_by_itself(broker: MemoryBroker) -> None:
    """Nothing has to follow: the linger timer publishes what is open, and the confirmation is counted."""
    publisher = await publishing(broker)
    got = await reading(broker)
    publisher.add("trades", 0, [b"1"], time.time_ns())
    await until(lambda: got)
    assert got[0].body == b"[1]"
    await until(lambda: publisher.published == {"trades": 1})
    await publisher.close()


async def test_five_hundred_events_leave_at_once(broker: MemoryBroker) -> None:
    """A full batch does not wait for the timer."""
    publisher = await publishing(broker, limits=Limits(linger_ns=60_000_000_000))
    got = await reading(broker)
    publisher.add("quotes", 0, [b"1"] * 500, time.time_ns())
    await until(lambda: [batch.count for batch in got if batch.count] == [500])
    await publisher.close()


async def test_the_window_holds_batches_back_and_growth_follows() -> None:
    """Without confirmations 64 batches leave, then batches grow; at 2,000 events `full`, and `room` waits for it to pass."""
    broker = SlowBroker()
    await broker.connect()
    publisher = await publishing(broker)
    for _ in range(64):
        publisher.add("trades", 0, [b"1"] * 500, time.time_ns())
    assert len(broker.held) == 64
    publisher.add("trades", 0, [b"1"] * 1999, time.time_ns())
    assert not publisher.full
    publisher.add("trades", 0, [b"1"], time.time_ns())
    assert publisher.full
    assert len(broker.held) == 64
    waiting = asyncio.create_task(publisher.room())
    await asyncio.sleep(0)
    assert not waiting.done()
    broker.confirm()
    async with asyncio.timeout(2):
        await waiting
    assert broker.held[-1][0].count == 2000
    broker.confirm(64)
    assert await publisher.drain()
    assert publisher.published == {"trades": 34_000}
    await publisher.close()


async def test_every_queue_is_marked_each_second(broker: MemoryBroker) -> None:
    """A mark a second tells consumers where each stream stands, one that has carried nothing yet too."""
    clock = ManualClock()
    publisher = await publishing(broker, clock=clock)
    got = await reading(broker)
    publisher.add("trades", 0, [b"1", b"2"], clock.wall_ns())
    clock.advance(5_000_000)
    await publisher.drain()
    for second in range(1, 4):
        clock.advance(1_000_000_000)
        await until(partial(marked, got, second))
    marks = [batch for batch in got if batch.count == 0]
    assert {(mark.stream, mark.seq, mark.body) for mark in marks} >= {("trades", 2, b"[]"), ("quotes", 0, b"[]")}
    await publisher.close()


async def test_an_outage_drops_the_oldest_and_says_so(broker: MemoryBroker) -> None:
    """Events that outlive their TTL while the broker is away are counted, and the consumer sees the same number missing."""
    clock = ManualClock()
    publisher = await publishing(broker, clock=clock)
    broker.hub.stop()
    publisher.add("trades", 0, [b"1"] * 300, clock.wall_ns())
    clock.advance(3_000_000_000)
    publisher.add("trades", 0, [b"2"] * 20, clock.wall_ns())
    clock.advance(3_000_000_000)
    await until(lambda: publisher.dropped == {"trades": 300})
    broker.hub.start()
    await until(lambda: broker.ready)
    got = await reading(broker)
    await until(lambda: [batch.count for batch in got if batch.count] == [20])
    gaps = GapCounter()
    gaps.observe(Batch("s", 0, "trades", 0, "", 0, 0, 0, 0, 0, b"[]"), clock.wall_ns())
    lost = gaps.observe(next(batch for batch in got if batch.count), clock.wall_ns())
    assert lost.expired + lost.dropped == 0  # who joins later misses nothing …
    assert next(batch for batch in got if batch.count).seq == 300  # … who was there expected 0
    await publisher.close()


async def test_a_lossless_source_waits_instead(broker: MemoryBroker) -> None:
    """With `lossless` an outage of any length drops nothing: `full` is reported, and all arrives afterwards."""
    clock = ManualClock()
    publisher = await publishing(broker, clock=clock, limits=Limits(window_batches=2))
    publisher.lossless = True
    broker.hub.stop()
    for _ in range(6):
        publisher.add("trades", 0, [b"1"] * 1000, clock.wall_ns())
    clock.advance(60_000_000_000)
    waiting = asyncio.create_task(publisher.room())
    await asyncio.sleep(0.15)  # more than a tick: what would expire has expired
    assert publisher.full
    assert not waiting.done()
    broker.hub.start()
    async with asyncio.timeout(2):
        await waiting
    clock.advance(5_000_000)
    assert await publisher.drain()
    assert publisher.published == {"trades": 6000}
    assert not publisher.dropped
    await publisher.close()


async def test_refused_batches_are_published_again_with_their_seq() -> None:
    """A batch that the broker refuses leaves again, unchanged and before what came later."""
    broker = SlowBroker()
    await broker.connect()
    publisher = await publishing(broker)
    publisher.add("trades", 0, [b"1"] * 1000, time.time_ns())
    (first, future), (second, other) = broker.held
    broker.held.clear()
    future.set_exception(BrokerUnavailable("refused"))
    other.set_exception(BrokerUnavailable("refused"))
    await until(lambda: len(broker.held) == 2)
    assert [batch for batch, _ in broker.held] == [first, second]
    broker.confirm(2)
    assert await publisher.drain()
    await publisher.close()


async def test_closing_publishes_what_is_open_and_marks_the_end(broker: MemoryBroker) -> None:
    """At the end nothing stays behind, and the last mark tells consumers the final count."""
    publisher = await publishing(broker, limits=Limits(linger_ns=60_000_000_000))
    got = await reading(broker)
    publisher.add("trades", 0, [b"1"] * 7, time.time_ns())
    await publisher.close()
    await until(lambda: len(got) >= 2)
    assert [(batch.seq, batch.count) for batch in got if batch.stream == "trades"][-2:] == [(0, 7), (7, 0)]


async def test_closing_without_a_broker_counts_the_loss(broker: MemoryBroker) -> None:
    """What cannot be delivered any more is counted as dropped instead of waited for."""
    publisher = await publishing(broker)
    broker.hub.stop()
    publisher.add("trades", 0, [b"1"] * 7, time.time_ns())
    await publisher.close(seconds=0.05)
    assert publisher.dropped == {"trades": 7}


async def test_a_queue_that_nobody_declares_is_a_defect(broker: MemoryBroker) -> None:
    """An event for a partition outside the deployment would never be read: it stops the process in the making."""
    publisher = await publishing(broker)
    with pytest.raises(AssertionError, match="partition 9"):
        publisher.add("trades", 9, [b"1"], time.time_ns())
    with pytest.raises(AssertionError, match="unknown"):
        publisher.add("unknown", 1, [b"1"], time.time_ns())
    await publisher.close()


async def test_who_may_not_speak_publishes_nothing_not_even_a_mark(broker: MemoryBroker) -> None:
    """A source whose lease has run out keeps silent, however late it notices; when it may speak again it goes on."""
    may = [True]
    publisher = await publishing(broker, permit=lambda: may[0])
    got = await reading(broker)
    await until(lambda: len(got) > 5)
    may[0] = False
    await asyncio.sleep(0)
    before = len(got)
    publisher.add("trades", 0, [b"1"] * 600, 1)
    await asyncio.sleep(1.3)  # marks would be due every second
    assert len(got) == before
    may[0] = True
    await until(lambda: sum(batch.count for batch in got) == 600)
    await publisher.close(0.1)
