"""Tests that numbers are exact whatever happens to workers, queue, cache and time: in memory and with real servers."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from mdc.connect import forget_in_process
from mdc.documents import decode_doc
from mdc.interest import Interest
from mdq.batch import Batch
from mdq.broker_memory import MemoryBroker
from service.partition import partition_of
from tests.mdp.farm import PARTITIONS, SYMBOLS, Farm, farm, memory_urls
from tests.mdp.feed import trade
from tests.servers import RabbitMQ, Redis
from tests.waiting import until

Stack = tuple[Farm, Callable[[], Any], Callable[[], Any]]


@pytest.fixture(params=["memory", "real"])
async def stack(request: pytest.FixtureRequest) -> AsyncIterator[Stack]:
    """A farm, how to empty its cache, and how to restart its queue."""
    if request.param == "memory":
        urls = memory_urls()
        async with farm(*urls) as made:
            assert isinstance(made.broker, MemoryBroker)
            yield made, made.cache.flushall, _async(made.broker.hub.restart)
        forget_in_process(urls[1])
    else:
        rabbit: RabbitMQ = request.getfixturevalue("emptied_server")
        redis: Redis = request.getfixturevalue("redis_server")
        async with farm(rabbit.url, redis.url) as made:
            yield made, _async(redis.restart), _async(rabbit.restart)


def _async(call: Callable[[], None]) -> Callable[[], Any]:
    async def run() -> None:
        if "restart" in call.__qualname__ and "Hub" in call.__qualname__:
            call()  # all connections of a hub live on this loop
        else:
            await asyncio.to_thread(call)

    return run


async def test_workers_share_and_hand_over_without_loss(stack: Stack) -> None:
    """While events flow, a second worker joins and the first leaves: every event counts exactly once."""
    made, _, _ = stack
    first = await made.start("first")
    await made.balanced(4)
    feeding = asyncio.create_task(made.feed(2_500))
    await made.start("second")
    await made.balanced(2, 2)
    await first.stop()
    await made.balanced(4, seconds=4)
    await feeding
    await made.exact()
    await made.alerts_exact()
    assert await made.cache.zcard("mdp:workers") == 1


async def test_a_crashed_worker_is_replaced_within_five_seconds(stack: Stack) -> None:
    """Its unacknowledged batches come again, those of its last flush are recognised: every event counts exactly once."""
    made, _, _ = stack
    await made.start("first")
    second = await made.start("second")
    await made.balanced(2, 2)
    feeding = asyncio.create_task(made.feed(1_500))
    await until(lambda: sum(map(len, made.fed.values())) > 500)
    await second.crash()
    await made.balanced(4, seconds=5)
    await feeding
    await made.exact()
    await made.alerts_exact()


async def test_a_crash_between_whole_flushes_loses_and_doubles_nothing(stack: Stack) -> None:
    """Half of the symbols are watched and ahead of the others when a worker dies: every event counts exactly once."""
    made, _, _ = stack
    interest = Interest(made.cache)
    for sym in SYMBOLS[::2]:
        await interest.tell({partition_of(sym, PARTITIONS): [("quote", sym)]})
    await made.start("first")
    second = await made.start("second")
    await made.balanced(2, 2)

    async def ahead() -> bool:
        await made.feed(20)
        return any(owned.partition._hurried for owned in second.worker.owned.values())

    await until(ahead, 20, what="watched symbols flushed alone")
    await second.crash()
    await made.feed(500)
    await made.balanced(4, seconds=5)
    await made.exact()
    await made.alerts_exact()


DAY_MS = 86_400_000


async def test_misdated_trades_move_no_day(stack: Stack) -> None:
    """One of tomorrow, of 1970 and of 2100: each is one dead letter, counted by its reason; no total is reset, a restart holds."""
    made, _, _ = stack
    first = await made.start("first")
    await made.balanced(4)
    await made.feed(400)
    for t in (made.dice.now + DAY_MS, 0, 4_102_444_800_000):
        made.publish(trade(SYMBOLS[0], 99, t=t))
    await made.feed(200)
    await made.all_in()
    await first.stop()
    await made.start("second")
    await made.balanced(4)
    await made.feed(200)

    async def whole() -> bool:
        return await made.trades() == {sym: len(events) for sym, events in made.fed.items()}

    await until(whole, 8, what="every trade in its quote")
    reasons = [json.loads(body)["reason"] for body in await made.cache.lrange("mdc:dead_letters", 0, -1)]
    assert len(reasons) == 3, reasons
    shares = [json.loads(body)["discarded"] for body in await made.cache.hvals("part:counts")]
    assert [share for share in shares if share] == [{"time_ahead": 2, "time_behind": 1}]


async def test_a_looping_tape_shows_one_round(stack: Stack) -> None:
    """The second round's totals are its own, and the prints of the first are gone."""
    made, _, _ = stack
    await made.start("first")
    await made.balanced(4)
    began = made.dice.now
    await made.feed(400)
    await made.all_in()
    before = sum(map(len, made.fed.values()))
    made.dice.now = began
    made.publisher.begin_run(1)
    made.fed.clear()
    await made.feed(300)
    await made.publisher.drain(8)

    async def settled() -> bool:
        return (await made.counts())["events"] >= before + 300

    await until(settled, 8, what="the second round counted")
    for sym, events in made.fed.items():
        quote = await made.quote(sym)
        assert (quote["trades"], quote["last"]) == (len(events), events[-1]["p"]), sym
        prints = [decode_doc(body) for body in await made.cache.lrange(f"ch:trades:{sym}", 0, -1)]
        assert [json.loads(bytes(p.data))["price"] for p in prints] == [e["p"] for e in events], sym


async def test_what_is_silent_for_eight_days_leaves_the_cache(stack: Stack) -> None:
    """Of the feed's own days: its keys, index entries and checkpoint cells go, and its numbers never come again."""
    made, _, _ = stack
    await made.start("first")
    await made.balanced(4)
    await made.feed(400)
    await made.all_in()
    gone = [sym for sym in made.fed if sym not in SYMBOLS[:4]]
    last = {sym: decode_doc(await made.cache.get(f"ch:quote:{sym}")).seq for sym in gone}
    made.dice.now += 9 * DAY_MS
    made.dice.symbols = [*SYMBOLS[:4], *(f"S{n}" for n in range(12, 20))]  # all partitions hear of the day
    await made.feed(200)

    async def left() -> list[bytes]:
        keys = [key for key in await made.cache.keys("*") if key.rpartition(b":")[2].decode() in gone]
        cells = [cell for n in range(4) for cell in await made.cache.hkeys(f"cp:{n}")]
        members = await made.cache.smembers("idx:quote") | await made.cache.smembers("idx:trades")
        names = [*cells, *members]
        return keys + [name for name in names if name.rpartition(b":")[2].removesuffix(b"|closed").decode() in gone]

    async def nothing_left() -> bool:
        return not await left()

    await until(nothing_left, 8, what="silent symbols forgotten")
    made.dice.symbols = gone
    await made.feed(100)
    await made.all_in()
    for sym in gone:
        body = await made.cache.get(f"ch:quote:{sym}")
        assert body is None or decode_doc(body).seq > last[sym], sym
    assert any([await made.cache.get(f"ch:quote:{sym}") for sym in gone])


async def test_an_emptied_cache_is_written_again(stack: Stack) -> None:
    """A cache that lost everything gets the same numbers under a new epoch, and the flow goes on without a loss."""
    made, empty, _ = stack
    await made.start("first")
    await made.start("second")
    await made.balanced(2, 2)
    await made.feed(600)
    await made.all_in()
    before = {sym: await made.quote(sym) for sym in SYMBOLS}
    epoch = decode_doc(await made.cache.get("ch:quote:S1")).epoch
    await empty()

    async def rewritten() -> bool:
        return {sym: await made.quote(sym) for sym in SYMBOLS} == before

    await until(_patient(rewritten), 8, what="everything is there again")
    assert decode_doc(await made.cache.get("ch:quote:S1")).epoch != epoch
    await made.feed(600)
    counts = await made.all_in()
    assert counts["events"] == sum(map(len, made.fed.values()))
    assert counts["expired"] + counts["dropped"] == 0
    for sym in SYMBOLS:
        assert (await made.quote(sym))["trades"] == len(made.fed[sym])
    status = await until(_patient(lambda: made.cache.get("ch:status:pipeline")))
    assert decode_doc(status).epoch != epoch


def _patient(probe: Callable[[], Any]) -> Callable[[], Any]:
    """Ask again when the cache is still away."""

    async def ask() -> Any:
        try:
            return await probe()
        except (OSError, ConnectionError):
            return None
        except Exception as error:
            if type(error).__module__.startswith("redis"):
                return None
            raise

    return ask


async def test_a_restarted_queue_is_read_on(stack: Stack) -> None:
    """After the broker came back workers read on by themselves; each event counts once, as taken or as lost."""
    made, _, restart = stack
    await made.start("first")
    await made.balanced(4)
    await made.feed(400)
    await made.all_in()
    await restart()
    await made.balanced(4, seconds=20)
    await made.feed(400)
    await made.publisher.drain(10)
    counts = await made.all_in(seconds=10)
    total = sum(map(len, made.fed.values()))
    assert counts["events"] + counts["expired"] + counts["dropped"] == total
    assert sum([(await made.quote(sym))["trades"] for sym in SYMBOLS]) == counts["events"]
    assert counts["events"] >= 400


async def test_a_cache_that_forgot_the_newest_flushes_is_noticed(stack: Stack) -> None:
    """Rolled back to an older state, it gets a new epoch and all numbers again: no sequence number means two things."""
    made, _, _ = stack
    await made.start("first")
    await made.balanced(4)
    await made.feed(200)
    await made.all_in()
    old = {key: await made.cache.hgetall(key) for key in ("cp:0", "cp:1", "cp:2", "cp:3")}
    epoch = await made.cache.get("mdc:epoch")
    await made.feed(200)
    await made.all_in()
    for key, cells in old.items():
        await made.cache.delete(key)
        await made.cache.hset(key, mapping=cells)
    await made.feed(200)

    async def renewed() -> bool:
        body = await made.cache.get("ch:quote:S1")
        return body is not None and decode_doc(body).epoch != epoch.decode()

    await until(renewed)
    counts = await made.all_in()
    assert counts["events"] == 600
    for sym in SYMBOLS:
        assert (await made.quote(sym))["trades"] == len(made.fed[sym])


async def test_readiness_says_what_is_missing() -> None:
    """Green only while both queue and cache answer."""
    urls = memory_urls()
    async with farm(*urls) as made:
        running = await made.start("first")
        assert "Redis does not answer" in running.worker.not_ready()
        await made.balanced(4)
        await until(lambda: running.worker.not_ready() == [])
        assert isinstance(made.broker, MemoryBroker)
        made.broker.hub.stop()
        assert running.worker.not_ready() == ["RabbitMQ is not connected"]
        made.broker.hub.start()
        await until(lambda: running.worker.not_ready() == [])
    forget_in_process(urls[1])


async def test_what_waited_among_the_news_says_nothing_of_its_source(stack: Stack) -> None:
    """News wait for 15 minutes: a mark that a listener left there before it died does not make it heard; one of prices does."""
    made, _, _ = stack
    running = await made.start("first")
    await made.balanced(4)
    now_ns = made.dice.now * 1_000_000
    for source, stream in (("dead", "news"), ("alive", "trades")):
        await made.broker.publish(Batch(source, 0, stream, 0, "e1", 0, 0, now_ns, now_ns, now_ns, b"[]"))

    async def arrived() -> bool:
        positions = running.worker.owned[0].partition.positions()
        return {"dead", "alive"} <= {source for source, _, _ in positions}

    await until(arrived, 10, what="both marks")
    assert "alive" in running.worker.owned[0].heard_ns
    assert "dead" not in running.worker.owned[0].heard_ns
