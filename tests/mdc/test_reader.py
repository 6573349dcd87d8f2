"""Checks the reader's contract, the same for every kind of cache: consistent snapshots and ordered updates."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from mdc import keys, reader
from mdc.channels import BOARDS, KINDS, UnknownChannel
from mdc.connect import CacheUnavailable, open_cache
from mdc.documents import Doc
from mdc.reader import Reader
from mdc.writer import Outcome
from tests.mdc.ground import Source, open_source
from tests.servers import Redis, free_port
from tests.waiting import until


class Heard:
    """Everything a reader told: documents in order, states in order."""

    def __init__(self) -> None:
        self.docs: list[Doc] = []
        self.states: list[bool] = []

    def on_docs(self, docs: list[Doc]) -> None:
        self.docs += docs

    def on_state(self, up: bool, _: str) -> None:
        self.states.append(up)

    def of(self, channel: str) -> list[Doc]:
        return [doc for doc in self.docs if doc.ch == channel]


@asynccontextmanager
async def reading(url: str, partitions: int = 8) -> AsyncIterator[tuple[Reader, Heard]]:
    """A started reader that is up, and what it told."""
    heard = Heard()
    made = Reader(url, heard.on_docs, heard.on_state, partitions)
    await made.start()
    try:
        await until(lambda: made.up)
        yield made, heard
    finally:
        await made.close()


SEEDS = (1, 2, 3, 4, 5, 6)
SYMBOLS = {0: "S2", 3: "A"}  # partition → a symbol of it


async def write_on(source: Source, channels: list[str], dice: random.Random, flushes: int) -> None:
    for _ in range(flushes):
        chosen = dice.sample(channels, dice.randint(1, len(channels)))
        flush = source.flush()
        for channel in chosen:
            for _ in range(dice.randint(1, 3)):
                source.add(flush, channel, {"n": source.seqs.get(channel, 0) + 1})
        assert await source.send(flush) is Outcome.APPLIED
        for _ in range(dice.randint(0, 4)):
            await asyncio.sleep(0)


@pytest.mark.parametrize("seed", SEEDS)
async def test_watch_then_snapshot_has_no_gap_and_no_repeat(cache: Any, cache_url: str, seed: int) -> None:
    """Whoever watches, reads the snapshot and then takes what is newer knows every version, whatever is written meanwhile."""
    dice = random.Random(seed)
    source = await open_source(cache)
    channels = ["quote:A", "trades:A", "trades:B"]
    await cache.set(keys.PARTITIONS, 1)
    async with reading(cache_url) as (made, heard):
        writing = asyncio.create_task(write_on(source, channels, dice, 60))
        taken = {}
        for channel in channels:
            for _ in range(dice.randint(0, 30)):
                await asyncio.sleep(0)
            await made.watch(channel)
            for _ in range(dice.randint(0, 10)):
                await asyncio.sleep(0)
            taken[channel] = await made.snapshot(channel)
        await writing

        def known_of(channel: str) -> int:  # all may have been written before the channel was watched
            snapshot, docs = taken[channel], heard.of(channel)
            return max(snapshot.seq if snapshot else 0, docs[-1].seq if docs else 0)

        await until(lambda: all(known_of(channel) == source.seqs[channel] for channel in channels))
        for channel, snapshot in taken.items():
            known = snapshot.seq if snapshot else 0
            newer = [doc.seq for doc in heard.of(channel) if doc.seq > known]
            assert newer == list(range(known + 1, source.seqs[channel] + 1)), (seed, channel, known, newer)
            if snapshot and channel.startswith("trades"):
                first = max(1, known - KINDS["trades"].keep + 1)
                assert [d["n"] for d in json.loads(snapshot.data)] == list(range(first, known + 1)), (seed, channel)


async def test_many_plain_states_are_read_at_once(cache: Any, cache_url: str) -> None:
    """In one round trip, the same as one by one; what holds nothing is None, what is malformed is left out."""
    source = await open_source(cache, partitions=1)
    flush = source.flush()
    names = [f"quote:S{n}" for n in range(300)]
    for name in names:
        source.add(flush, name, {"n": name})
    assert await source.send(flush) is Outcome.APPLIED
    await cache.set(keys.document("quote:BAD"), b"{")
    async with reading(cache_url) as (made, _):
        found = await made.snapshots([*names, "quote:NONE", "quote:BAD"])
        assert list(found) == [*names, "quote:NONE"]
        assert found["quote:NONE"] is None
        assert found["quote:S7"] == await made.snapshot("quote:S7")
        assert json.loads(found["quote:S299"].data) == {"n": "quote:S299"}  # type: ignore[union-attr]


async def test_a_group_that_is_left_and_joined_again_is_heard(cache: Any, cache_url: str) -> None:
    """Unwatching and watching again without a pause leaves the channel watched, and `watch` returns only when it is."""
    source = await open_source(cache, 3)
    async with reading(cache_url) as (made, heard):
        for n in range(1, 8):
            await made.watch("quote:A")
            await made.unwatch("quote:A")
            await made.watch("quote:A")
            await source.publish(("quote:A", n))
            await until(lambda n=n: heard.docs and heard.docs[-1].seq == n)
            await made.unwatch("quote:A")


async def test_an_unwatched_group_is_silent(cache: Any, cache_url: str) -> None:
    """The last unwatch ends the delivery; the first of two does not."""
    source = await open_source(cache, 3)
    async with reading(cache_url) as (made, heard):
        await made.watch("quote:A")
        await made.watch("quote:A")
        await made.unwatch("quote:A")
        await source.publish(("quote:A", 1))
        await until(lambda: len(heard.docs) == 1)
        await made.unwatch("quote:A")
        await made.unwatch("quote:A")  # one too many changes nothing
        await until(lambda: _listeners(cache, "up:quote:3"), what="nobody listens")
        await source.publish(("quote:A", 2))
        await made.watch("board:gainers")
        assert len(heard.docs) == 1


async def _listeners(cache: Any, group: str) -> bool:
    [(_, listeners)] = await cache.pubsub_numsub(group)
    return listeners == 0


async def test_an_unknown_channel_is_refused_and_forgotten(cache: Any, cache_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A bad name is the caller's error; the reader goes on, also when the partitions change later."""
    monkeypatch.setattr(reader, "PARTITIONS_CHECK_S", 0.05)
    async with reading(cache_url) as (made, heard):
        for name in ("nonsense:A", "quote:", "quote", "board:Nonsense", "quote:a b", "bars:2m:A", "quote:A\n", ""):
            with pytest.raises(UnknownChannel):
                await made.watch(name)
            with pytest.raises(UnknownChannel):
                await made.snapshot(name)
        await cache.set(keys.PARTITIONS, 2)
        await until(lambda: heard.states == [True, False, True])


async def test_the_writers_number_of_partitions_is_followed(cache: Any, cache_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A reader set to another number, or one that lives through a change, listens where the writers publish."""
    monkeypatch.setattr(reader, "PARTITIONS_CHECK_S", 0.05)
    await cache.set(keys.PARTITIONS, 4)
    async with reading(cache_url, partitions=8) as (made, heard):
        assert made.partitions == 4
        await made.watch("quote:A")
        await cache.set(keys.PARTITIONS, 16)
        await until(lambda: heard.states == [True, False, True])
        await cache.set(keys.PARTITIONS, 8)
        await until(lambda: heard.states == [True, False, True, False, True])
        source = await open_source(cache, 3)
        await source.publish(("quote:A", 1))
        await until(lambda: heard.docs)
        await made.unwatch("quote:A")


async def test_snapshots_hold_what_was_written(cache: Any, cache_url: str) -> None:
    """State, events, boards and bars with their history come back, bounded by the limit asked for; absent is None."""
    source = await open_source(cache, partitions=1)
    flush = source.flush()
    source.add(flush, "quote:A", {"last": 1.5})
    source.add(flush, "bars:1m:A", {"t": 180_000})
    flush.add_history("bars:1m", "bars:1m:A", [b"[0]", b"[60000]", b"[120000]"])
    for n in range(210):
        source.add(flush, "trades:A", n)
    board = {"order": ["B", "A"], "rows": {"A": {"last": 1}, "B": {"last": 2}}}
    flush.add_shared("board", "board:volume", 7, json.dumps(board).encode())
    await source.send(flush)
    async with reading(cache_url) as (made, _):
        quote = await made.snapshot("quote:A")
        assert quote is not None
        assert (quote.ch, quote.epoch, quote.seq, quote.ts, quote.data) == (
            "quote:A",
            "e1",
            1,
            1_700_000_000_001,
            b'{"last":1.5}',
        )
        prints = await made.snapshot("trades:A")
        assert prints is not None
        assert prints.seq == 210
        assert json.loads(prints.data) == list(range(10, 210))
        assert await _data(made, "trades:A", 3) == [207, 208, 209]
        assert await _data(made, "bars:1m:A") == {"t": 180_000, "history": [[0], [60_000], [120_000]]}
        assert await _data(made, "bars:1m:A", 1) == {"t": 180_000, "history": [[120_000]]}
        assert await _data(made, "bars:1m:A", 0) == {"t": 180_000, "history": []}
        assert await _data(made, "board:volume") == board
        assert await _data(made, "board:volume", 1) == {"order": ["B"], "rows": {"B": {"last": 2}}}
        assert await made.snapshot("quote:NONE") is None
        assert await made.snapshot("trades:NONE") is None
        assert await made.snapshot("bars:1s:A") is None


async def _data(made: Reader, channel: str, limit: int | None = None) -> Any:
    snapshot = await made.snapshot(channel, limit)
    assert snapshot is not None
    return json.loads(snapshot.data)


async def test_a_rolled_back_list_shows_only_the_new_life(cache: Any, cache_url: str) -> None:
    """Events of an earlier life have other sequence numbers; they are not mixed with the new ones."""
    source = await open_source(cache, partitions=1)
    await source.publish(("trades:A", 1), ("trades:A", 2))
    await source.writer.renew("e1", "e2")
    source.epoch = "e2"
    flush = source.flush(start_over=True)
    source.add(flush, "trades:A", 3)
    await source.send(flush)
    async with reading(cache_url) as (made, _):
        snapshot = await made.snapshot("trades:A")
        assert snapshot is not None
        assert (snapshot.epoch, snapshot.seq, json.loads(snapshot.data)) == ("e2", 3, [3])


async def test_channels_of_a_kind_are_listed(cache: Any, cache_url: str) -> None:
    """Wildcards find every channel that was ever announced; kinds with fixed names list those."""
    source = await open_source(cache)
    flush = source.flush()
    for name in ("MSFT", "AAPL"):
        flush.add_channel("quote", name)
    await source.send(flush)
    async with reading(cache_url) as (made, _):
        assert await made.list_channels("quote") == ["quote:AAPL", "quote:MSFT"]
        assert await made.list_channels("bars:1m") == []
        assert await made.list_channels("board") == sorted(f"board:{name}" for name in BOARDS)
        with pytest.raises(KeyError):
            await made.list_channels("nonsense")


async def test_a_message_that_is_none_is_passed_over(cache: Any, cache_url: str) -> None:
    """Garbage on an update channel is logged, what follows is delivered."""
    source = await open_source(cache, 3)
    async with reading(cache_url) as (made, heard):
        await made.watch("quote:A")
        await cache.publish("up:quote:3", b'[{"ch":')
        await source.publish(("quote:A", 1))
        await until(lambda: [doc.seq for doc in heard.docs] == [1])
        assert heard.states == [True]


async def test_a_failing_callback_stops_nothing(cache: Any, cache_url: str) -> None:
    """A defect in a callback is told as a loss of updates; the reader comes back by itself and delivers again."""
    source = await open_source(cache, 3)
    async with reading(cache_url) as (made, heard):
        await made.watch("quote:A")
        take, made._on_docs = made._on_docs, lambda _: 1 / 0  # type: ignore[assignment, return-value]
        await source.publish(("quote:A", 1))
        await until(lambda: heard.states[:2] == [True, False])
        made._on_docs = take
        await until(lambda: heard.states == [True, False, True])
        await source.publish(("quote:A", 2))
        await until(lambda: [doc.seq for doc in heard.docs] == [2])


@pytest.mark.parametrize("how", ["restart", "kill"])
async def test_a_reader_comes_back_with_redis(redis_server: Redis, how: str) -> None:
    """While Redis is away that is said; afterwards everything watched, also what was watched meanwhile, is heard again."""
    async with reading(redis_server.url) as (made, heard):
        await made.watch("quote:A")
        await asyncio.to_thread(redis_server.stop if how == "restart" else redis_server.kill)
        await until(lambda: heard.states == [True, False])
        with pytest.raises(CacheUnavailable):
            await made.snapshot("quote:A")
        with pytest.raises(CacheUnavailable):
            await made.list_channels("quote")
        await made.watch("quote:S2")
        await asyncio.to_thread(redis_server.start)
        await until(lambda: heard.states == [True, False, True], seconds=10)
        client = open_cache(redis_server.url)
        for partition, symbol in SYMBOLS.items():
            await (await open_source(client, partition)).publish((f"quote:{symbol}", 1))
        await until(lambda: sorted(doc.ch for doc in heard.docs) == ["quote:A", "quote:S2"])
        await client.aclose()


async def test_a_cut_connection_is_a_loss_that_is_told(redis_server: Redis) -> None:
    """When only the update connection is lost, the reader says so: what was published meanwhile it has not heard."""
    client = open_cache(redis_server.url)
    await client.flushdb()
    source = await open_source(client, 3)
    async with reading(redis_server.url) as (made, heard):
        await made.watch("quote:A")
        await client.execute_command("CLIENT", "KILL", "TYPE", "pubsub")
        await until(lambda: heard.states == [True, False, True])
        await source.publish(("quote:A", 1))
        await until(lambda: heard.docs)
    await client.aclose()


async def test_an_absent_cache_is_waited_for(redis_server: Redis) -> None:
    """A reader may start before Redis does; nothing is told until it is there."""
    heard = Heard()
    made = Reader(f"redis://127.0.0.1:{free_port()}/0", heard.on_docs, heard.on_state)
    await made.start()
    await made.watch("quote:A")
    assert heard.states == []
    await made.close()
    with pytest.raises(CacheUnavailable):
        await made.snapshot("quote:A")


async def test_only_the_answer_to_the_last_subscription_counts(cache_url: str) -> None:
    """Joined, left and joined again before an answer came: `watch` waits for the second answer, the first one is of the past."""
    made = Reader(cache_url, lambda docs: None, lambda up, why: None)
    waiting = made._confirmed["up:quote:3"] = asyncio.get_running_loop().create_future()
    made._asked["up:quote:3"] = 2
    made._confirm("up:quote:3")
    assert not waiting.done()
    made._confirm("up:quote:3")
    assert waiting.done()
    await made.close()


async def test_a_deleted_channel_is_one_without_data(cache: Any, cache_url: str) -> None:
    """Who watches hears nothing of it, who asks gets nothing, and when it comes back its number is a higher one."""
    source = await open_source(cache)
    async with reading(cache_url) as (made, heard):
        await made.watch("trades:S2")
        await source.publish(("trades:S2", 1), ("trades:S2", 2))
        await until(lambda: len(heard.docs) == 2)
        flush = source.flush()
        flush.add_channel("trades", "S2")
        assert await source.send(flush) is Outcome.APPLIED
        assert await made.list_channels("trades") == ["trades:S2"]
        flush = source.flush()
        flush.remove([keys.document("trades:S2")])
        flush.remove_channel("trades", "S2")
        assert await source.send(flush) is Outcome.APPLIED
        assert (await made.snapshot("trades:S2"), await made.list_channels("trades")) == (None, [])
        source.seqs["trades:S2"] += 40
        await source.publish(("trades:S2", 3))
        await until(lambda: len(heard.docs) == 3)
        found = await made.snapshot("trades:S2")
        assert found is not None
        assert (found.seq, found.data) == (43, b"[3]")
