"""Moves a cache between numbers of partitions on a real Redis, cut off at random steps: nothing is lost, doubled or half done."""

from __future__ import annotations

import contextlib
import json
import random
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import pytest
import redis.asyncio
import redis.exceptions

from mdc.connect import open_cache
from mdc.documents import decode_message
from mdc.writer import Outcome, Writer
from mdp.layout import repartition as moves
from mdp.layout.repartition import repartition
from mdp.loading import Loader
from mdp.ownership import Ownership
from mdp.partitions.partition import Partition
from mdp.partitions.reading import VERSION
from mdp.settings import MdpSettings
from service.clock import SystemClock
from service.errors import OperatorError
from service.lease import RedisLease
from service.partition import partition_of
from service.run import Shutdown
from tests.mdp.feed import STREAMS, WATCHABLE, Desk, Dice, Event, batch, write_all

SYMBOLS = ("A", "B", "BRK.B", "X:BTC-USD", "EUR/USD", "ESZ6", "O:SPY", "N1", "N2", "N3", "N4")

SEEN = ("quote", "bars", "trades", "book")  # the windows of stats end by the feed's time, which each partition hears by itself


@dataclass
class Plant:
    """The partitions of a deployment without its processes: fed, flushed, stopped and loaded again by hand."""

    url: str
    cache: Any
    updates: Any
    dice: Dice
    tenure: int = 0
    partitions: list[Partition] = field(default_factory=list)
    seqs: Counter[tuple[str, int]] = field(default_factory=Counter)

    def settings(self, layout: int) -> MdpSettings:
        return MdpSettings(mdc_url=self.url, mdq_partitions=layout)

    async def start(self, layout: int) -> None:
        """Own all partitions as a worker does; the listener starts anew, too."""
        writer, ownership = Writer(self.cache), Ownership(self.cache, "w", layout)
        await self.cache.set("mdp:since", 1)
        epoch = await writer.open("e1", layout)
        owned = (await ownership.beat()).owned
        await ownership.beat(claim=False)
        loader = Loader(self.settings(layout), self.cache, SystemClock(), {})
        self.partitions = [await loader.load(number, owned[number], epoch) for number in range(layout)]
        self.tenure += 1
        self.seqs.clear()

    def feed(self, events: list[Event]) -> None:
        """Publish as the listener does: sorted by stream and partition, numbered from 0 in each tenure."""
        for event in events:
            layout, stream = len(self.partitions), STREAMS[event["ev"]]
            number = partition_of(symbol_of(event), layout)
            made = batch([event], stream, self.seqs[stream, number], f"p{self.tenure}")
            self.seqs[stream, number] += 1
            self.partitions[number].on_batch(replace(made, partition=number), False, self.dice.now * 1_000_000)

    async def flush(self, watched: frozenset[str] = frozenset()) -> None:
        """Write everything, or what is watched alone."""
        writer = Writer(self.cache)
        await writer.open("e1", len(self.partitions))
        for partition in self.partitions:
            partition.watch([(kind, symbol) for kind in WATCHABLE for symbol in watched])
            write_all(partition)
            hurried = bool(watched) and partition.hurries
            flush = (partition.collect_watched if hurried else partition.collect)(self.dice.now)
            if flush is not None:
                number = partition.flush_number
                assert await writer.write([(partition.number, flush.arguments(partition.fence, number))]) == [Outcome.APPLIED]

    async def stop(self) -> None:
        """Hand over: leases end with the processes."""
        for partition in self.partitions:
            await self.cache.delete(f"lease:partition:{partition.number}")

    async def move(self, to: int, url: str = "") -> str:
        return await repartition(MdpSettings(mdc_url=url or self.url), to, Shutdown())

    async def state(self) -> dict[str, Any]:
        """Return channel → data of everything that clients see."""
        found = {}
        async for key in self.cache.scan_iter("ch:*", count=1000):
            channel = key.decode().removeprefix("ch:")
            if channel.partition(":")[0] in SEEN:
                many = await self.cache.lrange(key, -100, -1) if channel.startswith("trades") else [await self.cache.get(key)]
                found[channel] = [json.loads(body)["data"] for body in many]
        async for key in self.cache.scan_iter("hist:*", count=1000):
            found[key.decode()] = [json.loads(row) for row in await self.cache.lrange(key, -100, -1)]
        return found

    async def layout(self) -> dict[str, Any]:
        """Return the checkpoints, whole."""
        found = {}
        async for key in self.cache.scan_iter("cp:*", count=1000):
            found[key.decode()] = await self.cache.hgetall(key)
        return found

    async def whole(self) -> tuple[dict[str, Any], dict[str, set[bytes]]]:
        """Return what clients see, and which cells the checkpoints have: bringing them to one day may write some anew."""
        return await self.state(), {key: set(cells) for key, cells in (await self.layout()).items()}

    async def counted(self) -> Counter[str]:
        total: Counter[str] = Counter()
        for body in await self.cache.hvals("part:counts"):
            for name, value in json.loads(body).items():
                if isinstance(value, dict):
                    total[name] += sum(value.values())
        return total

    async def check_sequences(self) -> None:
        """Every channel's updates count by one, from the first to the last, over all layouts."""
        last: Counter[str] = Counter()
        while (message := await self.updates.get_message(ignore_subscribe_messages=True, timeout=0.1)) is not None:
            for doc in decode_message(message["data"]):
                if not doc.ch.startswith(("board", "status", "alerts")):
                    assert doc.seq == last[doc.ch] + 1, (doc, last[doc.ch])
                    last[doc.ch] = doc.seq
        assert last


def symbol_of(event: Event) -> str:
    return str(event["p"] if event["ev"] == "C" else event.get("sym") or event["pair"])


@asynccontextmanager
async def opened(url: str, seed: int) -> AsyncIterator[Plant]:
    cache = open_cache(url)
    updates = cache.pubsub()
    await updates.psubscribe("up:*")
    await updates.get_message(timeout=5)
    yield Plant(url, cache, updates, Dice(seed, SYMBOLS))
    await updates.aclose()
    await cache.aclose()


def last_words(dice: Dice) -> list[Event]:
    """A trade of every symbol that has any and a quote of every other, so that all have heard of the last day."""
    said: dict[str, Event] = {}
    while len(said) < len(SYMBOLS):
        event = dice.trade(late_ms=0) if any(symbol not in said and "/" not in symbol for symbol in SYMBOLS) else dice.quote()
        said[symbol_of(event)] = event
    return sorted(said.values(), key=lambda event: int(event["t"]))


def seen_by_clients(plain: Desk) -> dict[str, Any]:
    """Return the same as `Plant.state` of a single partition that was never moved."""
    cache = plain.cache
    found: dict[str, Any] = {f"hist:{channel}": rows for channel, rows in cache.history.items() if rows}
    for channel in (channel for channel in cache.documents if channel.partition(":")[0] in SEEN):
        found[channel] = cache.events(channel) if channel.startswith("trades") else [cache.data(channel)]
    return {channel: rows[-100:] for channel, rows in found.items()}


def timeless(seen: dict[str, Any]) -> dict[str, Any]:
    """Return it without the session of quotes: without marks of the listener it ends by the trades of other symbols of a partition."""
    for channel in seen:
        if channel.startswith("quote:"):
            seen[channel] = [{name: value for name, value in data.items() if name != "session"} for data in seen[channel]]
    return seen


async def live(plant: Plant, plain: Desk, rounds: int, last: bool = True) -> int:
    """Feed both, in the end (`last`) every symbol; return the number of events."""
    fed, pause_ms = 0, 60_000 if last else 3_000_000  # days pass before a move, and none after the last one
    for n in range(rounds):
        some = [plant.dice.event(pause_ms) for _ in range(10)]
        some += last_words(plant.dice) if last and n == rounds - 1 else []
        fed += len(some)
        plant.feed(some)
        for event in some:
            plain.feed(event, feed_ms=plant.dice.now)
        plain.flush()
        await plant.flush()
    return fed


@pytest.mark.parametrize(("seed", "layouts"), [(1, (8, 3, 16)), (2, (1, 8)), (3, (5, 2, 7, 1)), (4, (4, 64))])
async def test_a_move_changes_no_number(mdc_url: str, seed: int, layouts: tuple[int, ...]) -> None:
    """Days pass, the number of partitions changes in between: as if one partition had had it all from the beginning."""
    async with opened(mdc_url, seed) as plant:
        plain, fed = Desk(prompt=True), 0
        for layout in layouts:
            if plant.partitions:
                await plant.stop()
                assert f"to {layout} partitions" in await plant.move(layout)
                assert await plant.cache.keys("move:*") == await plant.cache.keys("lease:*") == []
            await plant.start(layout)
            fed += await live(plant, plain, 12, last=layout == layouts[-1])
        assert timeless(await plant.state()) == timeless(seen_by_clients(plain))
        counted = await plant.counted()
        assert (counted["events"], counted["expired"], counted["dropped"]) == (fed, 0, 0)
        assert sorted(await plant.layout()) == sorted(f"cp:{n}" for n in range(layouts[-1]))
        await plant.check_sequences()


class Cut:
    """Lets a client send so many commands (or pipelines); then its process is dead: nothing it sends arrives any more."""

    def __init__(self, client: Any, commands: int) -> None:
        self.left = commands
        self._take = client.connection_pool.get_connection
        client.connection_pool.get_connection = self.get

    async def get(self, *arguments: Any, **more: Any) -> Any:
        self.left -= 1
        if self.left < 0:
            raise redis.exceptions.ConnectionError("dead")
        return await self._take(*arguments, **more)


async def test_killed_at_any_step_and_run_again(mdc_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever was done when it died, the old layout is whole and works, and the next run ends what was begun."""
    async with opened(mdc_url, 7) as plant:
        plain = Desk(prompt=True)
        await plant.start(4)
        fed = await live(plant, plain, 10)
        await plant.stop()
        before, dice, steps, cuts = await plant.whole(), random.Random(7), 1, 0
        while int(await plant.cache.get("mdc:partitions")) == 4:
            assert await plant.whole() == before
            await plant.cache.delete("mdp:workers", *[f"lease:partition:{n}" for n in range(4)])  # they end in two seconds
            monkeypatch.setattr(moves, "open_cache", partial(cut_off, mdc_url, steps))
            with contextlib.suppress(OperatorError):
                await plant.move(16)
            steps, cuts = steps + dice.randint(1, 9), cuts + 1
        assert cuts > 6
        monkeypatch.undo()
        assert "has 16 partitions" in await plant.move(16)
        assert (await plant.counted())["events"] == fed
        assert await plant.cache.keys("move:*") == []
        await plant.cache.delete("mdp:workers", *[f"lease:partition:{n}" for n in range(4)])
        await plant.start(16)
        await live(plant, plain, 4)
        assert timeless(await plant.state()) == timeless(seen_by_clients(plain))
        await plant.check_sequences()


def cut_off(url: str, steps: int, *_: str) -> Any:
    client = open_cache(url)
    Cut(client, steps)
    return client


async def test_symbols_that_were_ahead_stay_ahead_and_the_rest_is_counted_as_lost(mdc_url: str) -> None:
    """Processors were killed between two whole flushes, and what they had read expired: as README says, watched symbols have it."""
    async with opened(mdc_url, 9) as plant:
        await plant.start(2)
        plant.feed([plant.dice.trade() for _ in range(40)])
        await plant.flush()
        plant.feed(last := [plant.dice.trade() for _ in range(20)])
        await plant.flush(watched=frozenset(["A"]))
        await plant.stop()
        await plant.move(3)
        counted = await plant.counted()
        assert counted["events"] + counted["expired"] == 60
        assert 0 < counted["expired"] <= len(last)
        assert all(not cells.get(b"ahead") for cells in (await plant.layout()).values())


async def test_what_is_not_at_rest_is_refused(mdc_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Processors, listeners, a full Redis, another version, unreadable cells: one line says what to do, nothing has changed."""
    monkeypatch.setattr(moves, "REST_NS", 0)
    async with opened(mdc_url, 5) as plant:
        assert "nothing to move" in await plant.move(4)
        await plant.start(2)
        await live(plant, Desk(), 2)
        await plant.stop()
        assert "has 2 partitions" in await plant.move(2)
        before = await plant.layout()

        async def refused(why: str) -> None:
            with pytest.raises(OperatorError, match=why):
                await plant.move(4)
            assert await plant.layout() == before

        worker = Ownership(plant.cache, "w1", 2)
        await worker.beat()
        await refused("processors run: 1 .w1.")
        await plant.cache.delete("mdp:workers", "lease:partition:0", "lease:partition:1")
        lease = RedisLease(plant.cache, "source:stocks", 60_000)
        await lease.hold()
        await refused("a listener follows the source stocks")
        await lease.release()
        await plant.cache.hset("cp:1", "version", VERSION + 1)
        before = await plant.layout()
        await refused(f"has version {VERSION + 1}")
        await plant.cache.hset("cp:1", mapping={"version": VERSION, "counts": "{"})
        before = await plant.layout()
        await refused("cell counts cannot be read")


async def test_a_processor_that_is_started_meanwhile_wins(mdc_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """It takes a partition whose lease has ended: the move gives up, and what the processor has is whole."""
    async with opened(mdc_url, 6) as plant:
        await plant.start(2)
        await live(plant, Desk(), 2)
        await plant.stop()
        before = await plant.layout()
        copied = moves.Move._copy

        async def meanwhile(self: Any) -> Any:
            made = await copied(self)
            await plant.cache.incr("fence:partition:1")
            return made

        monkeypatch.setattr(moves.Move, "_copy", meanwhile)
        with pytest.raises(OperatorError, match="a worker has taken partition 1"):
            await plant.move(4)
        assert await plant.layout() == before


async def test_too_little_memory_is_refused(redis_server: Any) -> None:
    """The copies need room beside what is there; Redis would refuse in the middle, this refuses before."""
    url = redis_server.url
    async with opened(url, 5) as plant:
        await plant.cache.flushdb()
        await plant.start(2)
        await live(plant, Desk(), 2)
        await plant.stop()
        used = (await plant.cache.info("memory"))["used_memory"]
        await plant.cache.config_set("maxmemory", used + 1)
        try:
            with pytest.raises(OperatorError, match="maxmemory"):
                await plant.move(4)
        finally:
            await plant.cache.config_set("maxmemory", 0)
            await plant.cache.flushdb()
