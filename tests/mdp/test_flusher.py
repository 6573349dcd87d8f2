"""Shows when what is flushed, and that only a whole flush acknowledges."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pytest

from mdc.connect import open_cache
from mdc.writer import Writer
from mdp import roster
from mdp.flusher import Flusher
from mdp.owned import Owned
from mdp.partition import Partition
from mdp.settings import MdpSettings
from mdp.status import WorkerStats
from mdq.broker import Subscription
from tests.mdp.farm import memory_urls
from tests.mdp.feed import START_MS, batch, trade

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
    partition.watched = frozenset({"A"})
    owned = Owned(partition, subscription)
    flusher = Flusher(MdpSettings(), writer, clock, WorkerStats("w", 0), lambda: [owned], print, lambda: "e2")

    async def last(symbol: str) -> Any:
        return (await redis.get(f"ch:quote:{symbol}") or b"none").count(b'"last":11')

    def feed(seq: int, price: float) -> None:
        made = batch([trade("A", p=price), trade("B", p=price)], "trades", seq)
        partition.on_batch(made, False, clock.wall_ns())
        owned.tag += 1

    yield owned, flusher, clock, subscription, feed, last
    await redis.aclose()


async def test_what_is_watched_leaves_first_and_a_whole_flush_acknowledges(ground: Any) -> None:
    """The other symbol follows when its turn comes, and only then the batch is safe."""
    owned, flusher, clock, subscription, feed, last = ground
    feed(0, 10)
    await flusher.flush([owned])
    assert subscription.tags == [1]
    safe = owned.safe
    feed(2, 11)
    await flusher.flush([owned], whole=False)
    assert (await last("A"), await last("B"), subscription.tags) == (1, 0, [1])
    assert owned.safe == safe
    clock.ns += ALL_NS
    await flusher.flush([owned], whole=False)
    assert (await last("B"), subscription.tags) == (1, [1, 2])
    assert owned.safe != safe


async def test_a_hand_over_flushes_everything(ground: Any) -> None:
    """Whoever leaves does not wait for the turn."""
    owned, flusher, _, subscription, feed, last = ground
    feed(0, 10)
    await flusher.flush([owned])
    feed(2, 11)
    await flusher.flush([owned])
    assert (await last("B"), subscription.tags) == (1, [1, 2])


async def test_without_watchers_nothing_is_flushed_before_its_turn(ground: Any) -> None:
    """And each partition's turn is another moment of the interval."""
    owned, flusher, _, subscription, feed, last = ground
    owned.partition.watched = frozenset()
    feed(0, 10)
    await flusher.flush([owned])
    feed(2, 11)
    await flusher.flush([owned], whole=False)
    assert (await last("A"), subscription.tags) == (0, [1])
    assert owned.due_ns % ALL_NS == ALL_NS * 3 // 8
