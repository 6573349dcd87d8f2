"""Checks enrichment from the vendor's stand-in to the quotes, with the real client, a real worker and a process that asks."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import msgspec
import pytest

import mdp.enrich.enrichment
from mdc import keys
from mdl.feeds.simulator import SimulatorFeed
from mdl.simulation.universe import universe
from mdp.enrich.enrichment import SNAPSHOT_S, Enrichment, Lead, Snapped, _tell
from mdp.enrich.meters import QUESTIONS
from mdp.enrich.store import Head, entry
from mdp.reference import Known
from mdp.settings import MdpSettings
from service.clock import SystemClock
from service.days.markets import STOCKS
from tests.mdp.enrich.vendor import PARTITIONS, Desk, Server, http, vendor
from tests.mdp.feed import START_MS, trade
from tests.mdp.feed import Desk as Partition
from tests.waiting import until

LISTED = universe(300, 7)
FIELDS = ("prev_close", "prev_open", "prev_high", "prev_low", "prev_volume", "prev_vwap", "avg_volume", "float", "rel_volume")


def asked() -> float:
    """Return how many questions this process has had asked and answered."""
    return float(QUESTIONS.labels("answered")._value.get())


async def enriched(desk: Desk, symbol: str) -> bool:
    desk.trade(symbol, 50.0)
    quote = await desk.quote(symbol)
    return all(quote.get(field) is not None for field in FIELDS)


async def test_a_cold_start_at_noon_ends_with_the_days_numbers() -> None:
    """What was before the day, and what was traded of it before we joined, also for who joins when it is all kept already."""
    async with vendor(300) as server, Desk(f"http://127.0.0.1:{server.port}") as desk:
        assert isinstance(server._feed, SimulatorFeed)
        market = server._feed.simulated
        for _ in range(20):  # the morning
            market.frame(time.time_ns() // 1_000_000, 100)
        market.frame(time.time_ns() // 1_000_000 + 1_500, 0)
        numbers = sorted(range(300), key=lambda n: -market.day(n).get("v", 0))
        number, later, before = numbers[0], numbers[1], asked()
        symbol, morning = LISTED.symbols[number], market.day(number)
        await until(lambda: enriched(desk, symbol), 30, "facts of a symbol that trades")

        async def caught_up() -> bool:
            desk.trade(symbol, 50.0)
            return (await desk.quote(symbol))["open"] == morning["o"]

        await until(caught_up, 30, "the day so far")
        quote, calls = await desk.quote(symbol), asked() - before
        assert calls <= 60
        assert quote["prev_close"] == LISTED.closes_cents[number] / 100
        assert quote["prev_low"] <= quote["prev_close"] <= quote["prev_high"]
        assert abs(quote["avg_volume"] / LISTED.volumes[number] - 1) < 0.2
        assert (quote["low"], quote["high"]) == (min(morning["l"], 50.0), max(morning["h"], 50.0))
        assert quote["volume"] >= morning["v"]
        assert quote["open_change"] == round(quote["last"] - morning["o"], 10)

        name = LISTED.symbols[later]
        await until(lambda: enriched(desk, name), 10, "facts of one that trades later")
        assert (await desk.quote(name))["open"] == market.day(later)["o"]

        await until(lambda: _kept(desk), 30, "all of it is kept")
        before = asked()
        await desk.stop()
        await desk.cache.delete(*[key for key in await desk.cache.keys("*") if key.startswith((b"cp:", b"ch:"))])
        await desk.start()
        await until(lambda: enriched(desk, symbol), 30, "the next worker has what is kept")
        assert asked() - before <= 1, "the snapshot alone: nobody asks again for what is kept"


async def _kept(desk: Desk) -> bool:
    sheets = await desk.cache.hgetall(keys.FACTS)
    return any(name.endswith(b":past") and b'"last":true' in head for name, head in sheets.items())


@pytest.mark.parametrize("what", ["refused", "slow", "half", "away", "key"])
async def test_without_an_answer_fields_are_null_and_prices_flow(what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the service does: nothing of the quote is invented, nothing waits for it, and the worker is ready."""
    answers = {"refused": http(403, {}), "slow": None, "half": http(200, b'{"results":[', 99), "away": b"", "key": http(401, {})}
    monkeypatch.setattr(mdp.enrich.enrichment, "AGAIN_LATER_S", 3_600.0)
    async with Server(lambda _: answers[what]) as server, Desk(f"http://127.0.0.1:{server.port}") as desk:
        price = 50.0

        async def shown() -> bool:
            nonlocal price
            price += 0.01
            sent = round(price, 2)
            desk.trade("AAPL", sent)
            began = time.monotonic()
            await until(lambda: has(sent), 10, "a price")
            assert time.monotonic() - began < 5
            return len(server.targets) >= 1

        async def has(sent: float) -> bool:
            return (await desk.quote("AAPL")).get("last") == sent

        await until(shown, 30, f"{what}: it is asked")
        for _ in range(3):
            await shown()
        quote = await desk.quote("AAPL")
        assert [quote[field] for field in FIELDS] == [None] * len(FIELDS)
        assert desk.worker.not_ready() == []


def test_lost_events_call_for_another_snapshot(cache: Any) -> None:
    """One for each leader and day, then one when something was lost since, not sooner than five minutes after the last."""
    made = Enrichment(MdpSettings(), cache, SystemClock(), dict, lambda: None)
    made._snapped[5] = Snapped(1, lost=3, at_s=100.0)
    later_s = 100.0 + SNAPSHOT_S
    assert made._is_snapped(Lead(1, [5], 3), 5, later_s)
    assert made._is_snapped(Lead(1, [5], 4), 5, later_s - 1)
    assert not made._is_snapped(Lead(1, [5], 4), 5, later_s)
    assert not made._is_snapped(Lead(2, [5], 3), 5, 101.0)
    assert not made._is_snapped(Lead(1, [6], 3), 6, 101.0)


async def test_without_a_url_nobody_asks() -> None:
    """No process, no look at the cache for facts."""
    async with Desk("") as desk:
        desk.trade("AAPL", 50.0)

        async def shown() -> bool:
            return bool(await desk.quote("AAPL"))

        await until(shown, 10)
        assert not [task for task in asyncio.all_tasks() if "Enrichment" in task.get_name()]
        assert await desk.cache.exists(keys.FACTS) == 0


def test_one_part_costs_the_event_loop_little() -> None:
    """A hundred symbols are taken in within a third of what prices may wait for (5 ms)."""
    partition = Partition()
    partition.feed(*[trade(f"S{n}") for n in range(1_500)])
    partition.flush()
    day_ms = STOCKS.day_of(START_MS).start_ms
    body = msgspec.json.encode({f"S{n}": Known(9.5, 100, 1_000, 9.0, 10.0, 8.0, 50, 9.2) for n in range(100)})
    took = []
    for _ in range(5):
        began = time.process_time()
        assert _tell(partition.partition.analyzers, day_ms, "past", body) == 100
        took.append(time.process_time() - began)
    assert min(took) < 0.0017
    assert partition.flush().data("quote:S99")["prev_close"] == 9.5


async def test_damaged_facts_and_a_process_that_cannot_start_stop_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is in the cache may be of another version, and a machine may be out of processes: prices flow all the same."""

    async def no_process(*_: object, **__: object) -> None:
        raise BlockingIOError(11, "Resource temporarily unavailable")

    monkeypatch.setattr(mdp.enrich.enrichment.asyncio, "create_subprocess_exec", no_process)
    async with Desk("http://127.0.0.1:9") as desk:
        day_ms = STOCKS.day_of(time.time_ns() // 1_000_000).start_ms
        for number in range(PARTITIONS):
            await desk.cache.hset(keys.facts("bad", number), 0, b'{"AAPL":[')
            await desk.cache.hset(keys.facts("bad", number), 1, b'{"AAPL":["x"]}')
            await desk.cache.hset(keys.facts("bad", number), 2, b'{"AAPL":[7.5]}')
        await desk.cache.hset(keys.FACTS, entry(day_ms, "past"), msgspec.json.encode(Head("bad", PARTITIONS, 1, False, 1)))

        async def told() -> bool:
            desk.trade("AAPL", 50.0)
            return (await desk.quote("AAPL")).get("prev_close") == 7.5

        await until(told, 20, "what can be read of it")
        assert desk.worker.not_ready() == []
