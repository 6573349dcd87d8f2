"""Shows when what is flushed, and that only a whole flush acknowledges."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import pytest

from mdc.connect import forget_in_process, open_cache
from mdc.writer import Writer
from mdp import roster
from mdp.flusher import Flusher
from mdp.leader.status import WorkerStats
from mdp.owned import Owned
from mdp.partitions.listing import Mark
from mdp.partitions.partition import Partition
from mdp.settings import MdpSettings
from mdq.broker import Subscription
from tests.mdp.farm import farm, memory_urls
from tests.mdp.feed import START_MS, batch, trade
from tests.waiting import until

ALL_NS = 500_000_000


class HandClock:
    """A clock that stands until it is moved."""

    def __init__(self) -> None:
        self.ns = ALL_NS

    def mono_ns(self) -> int:
        return self.ns

    def wall_ns(self) -> int:
        return START_MS * 1_000_000 + self.ns


@dataclass
class Acknowledged(Subscription):
    """A subscription that notes what is acknowledged."""

    tags: list[int] = field(default_factory=list)
    live = True

    async def ack(self, tag: int) -> None:
        self.tags.append(tag)

    async def pause(self) -> None:
        """Not needed here."""

    async def close(self) -> None:
        """Not needed here."""


@pytest.fixture
async def ground() -> Any:
    """A flusher of one partition on a cache in memory."""
    redis, clock, subscription = open_cache(memory_urls()[1]), HandClock(), Acknowledged()
    writer = Writer(redis)
    epoch = await writer.open("e1", 8)
    await redis.set("fence:partition:3", 1)
    partition = Partition(3, 1, epoch, roster.build(roster.ANALYZERS, {}, 500))
    partition.listing.note("A", Mark("s", 1))
    partition.watch([("quote", "A")])
    owned = Owned(partition, subscription)
    flusher = Flusher(MdpSettings(), writer, clock, WorkerStats("w", 0), lambda: [owned], print, lambda: "e2")

    async def both(symbol: str, trades: int = 2) -> Any:
        return (await redis.get(f"ch:quote:{symbol}") or b"none").count(b'"trades":%d' % trades)

    def feed(seq: int) -> None:
        made = batch([trade("A"), trade("B")], "trades", seq)
        partition.on_batch(made, False, clock.wall_ns())
        owned.tag += 1

    yield owned, flusher, clock, subscription, feed, both
    await redis.aclose()


@contextlib.asynccontextmanager
async def running(flusher: Flusher) -> AsyncIterator[None]:
    """Both loops of the flusher."""
    loops = [asyncio.create_task(flusher.run_watched()), asyncio.create_task(flusher.run_whole())]
    yield
    for loop in loops:
        loop.cancel()
    await asyncio.wait(loops)


async def test_what_is_watched_leaves_first_and_a_whole_flush_acknowledges(ground: Any) -> None:
    """The other symbol follows when its turn comes, and only then the batch is safe."""
    owned, flusher, clock, subscription, feed, both = ground
    feed(0)
    await flusher.flush([owned])
    assert subscription.tags == [1]
    safe = owned.safe
    async with running(flusher):
        feed(2)
        await until(lambda: both("A"), 5)
        assert (await both("B"), subscription.tags) == (0, [1])
        assert owned.safe == safe
        clock.ns += ALL_NS
        await until(lambda: subscription.tags == [1, 2], 5)
        assert await both("B")
        assert owned.safe != safe


async def test_a_hand_over_flushes_everything(ground: Any) -> None:
    """Whoever leaves does not wait for the turn; a flush whose answer was lost goes first, unchanged."""
    owned, flusher, _, subscription, feed, both = ground
    feed(0)
    await flusher.flush([owned])
    feed(2)
    owned.flush, owned.whole = owned.partition.collect_watched(START_MS), False
    feed(4)
    await flusher.flush([owned])
    assert (await both("B", 3), subscription.tags) == (1, [1, 3])


async def test_without_watchers_nothing_is_flushed_before_its_turn(ground: Any) -> None:
    """And each partition's turn is another moment of the interval; whoever is pressed does not wait for it."""
    owned, flusher, _, subscription, feed, both = ground
    owned.partition.watch([])
    feed(0)
    await flusher.flush([owned])
    assert owned.due_ns % ALL_NS == ALL_NS * 3 // 8
    feed(2)
    await flusher.flush_watched()
    assert (await both("A"), subscription.tags) == (0, [1])
    async with running(flusher):
        flusher.press(owned)
        await until(lambda: subscription.tags == [1, 2], 5)


async def test_what_all_must_know_presses_the_whole_flush(ground: Any) -> None:
    """A bad event is counted in a whole flush only: the watched symbols do not leave before it."""
    owned, flusher, _, subscription, feed, both = ground
    feed(0)
    await flusher.flush([owned])
    owned.partition.on_batch(batch([{"ev": "T"}], "trades", 2), False, START_MS * 1_000_000)
    feed(3)
    async with running(flusher):
        await until(lambda: subscription.tags == [1, 2], 5)
    assert await both("B")


async def test_an_answer_settles_the_flush_that_it_belongs_to() -> None:
    """Two rounds at once, as when a hand-over meets the timer: they follow each other, so none settles what the other sent."""
    urls = memory_urls()
    async with farm(*urls) as made:
        running = await made.start("first")
        await made.balanced(4)
        worker, slow = running.worker, Slow(running.worker._writer)
        assert isinstance(worker._flusher, Flusher)
        worker._flusher._writer = slow
        feeding = asyncio.create_task(made.feed(300))
        while not feeding.done():
            await asyncio.gather(*(worker._flusher.flush(list(worker.owned.values())) for _ in range(3)))
        await made.exact()
        assert slow.rounds > 3
    forget_in_process(urls[1])


class Slow(Writer):
    """A writer whose answers take a while; it must never be asked twice at once for a partition."""

    def __init__(self, real: Writer) -> None:
        self._real, self._busy, self.rounds, self.space = real, set[int](), 0, real.space

    async def write(self, flushes: Any) -> Any:
        if len(flushes) == 1 and flushes[0][1][2] == 0:
            return await self._real.write(flushes)  # the leader's: not numbered, of no partition's flush
        partitions = {one[0] for one in flushes}
        assert not partitions & self._busy
        self._busy |= partitions
        self.rounds += 1
        try:
            for _ in range(5):
                await asyncio.sleep(0)
            return await self._real.write(flushes)
        finally:
            self._busy -= partitions

    async def open(self, new_epoch: str, partitions: int) -> str:
        return await self._real.open(new_epoch, partitions)
