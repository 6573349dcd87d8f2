"""A worker whose process gets little of the machine: what is its own slowness is not taken for a silent cache."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from structlog.testing import capture_logs

from tests.mdp.farm import Farm, Running, farm
from tests.servers import RabbitMQ, Redis
from tests.waiting import until

BEATS = 12  # a lease of two seconds ends six beats after the last that renewed it


@pytest.fixture
async def made(emptied_server: RabbitMQ, redis_server: Redis) -> AsyncIterator[Farm]:
    """Workers on real servers, which go on while this process stands still."""
    async with farm(emptied_server.url, redis_server.url) as one:
        yield one


@contextmanager
def starved(running_s: float, standing_s: float) -> Iterator[None]:
    """Let the event loop run for a moment, then stand still for another, over and over: as a full machine does with a process."""

    async def stand() -> None:
        while True:
            await asyncio.sleep(running_s)
            time.sleep(standing_s)  # noqa: ASYNC251 - that is what it is for

    task = asyncio.create_task(stand())
    try:
        yield
    finally:
        task.cancel()


def given_up(logs: list[dict[str, object]]) -> list[dict[str, object]]:
    """Return what was said of partitions that a worker let go of, or lost."""
    return [one for one in logs if one["event"] in ("partition_given_up", "partition_lost", "cache_lost")]  # type: ignore[misc]


async def beats(running: Running, many: int) -> None:
    """Wait until the worker has asked for its leases so many times."""
    ownership, asked = running.worker._ownership, 0
    ask = ownership.beat

    async def counted(*args: object, **named: object) -> object:
        nonlocal asked
        asked += 1
        return await ask(*args, **named)  # type: ignore[arg-type]

    ownership.beat = counted  # type: ignore[assignment, method-assign]
    await until(lambda: asked >= many, 90, what="beats")


@pytest.mark.parametrize(("running_s", "standing_s"), [(0.001, 0.15), (0.001, 0.3), (0.2, 0.9)])
async def test_a_starved_worker_keeps_its_partitions(made: Farm, running_s: float, standing_s: float) -> None:
    """It stands still for most of the time, never for as long as a lease: no partition moves, no event counts twice or never."""
    first = await made.start("first")
    await made.balanced(4)
    with capture_logs() as logs, starved(running_s, standing_s):
        await beats(first, BEATS)
        await made.feed(100)
    assert given_up(logs) == []
    await made.exact()


async def test_a_worker_that_stood_still_for_longer_than_its_leases_asks_first(made: Farm) -> None:
    """Nobody else was there: after one question it goes on with what it has, and its subscriptions stay."""
    first = await made.start("first")
    await made.balanced(4)
    await made.feed(100)
    subscriptions = {number: owned.subscription for number, owned in first.worker.owned.items()}
    with capture_logs() as logs:
        time.sleep(1.8)  # noqa: ASYNC251 - the whole process stands still
        await beats(first, 3)
    assert given_up(logs) == []
    assert {number: owned.subscription for number, owned in first.worker.owned.items()} == subscriptions
    await made.feed(100)
    await made.exact()


async def test_a_cache_that_is_silent_is_found_out_by_a_starved_worker(made: Farm, redis_server: Redis) -> None:
    """Slowness of its own excuses no cache: cut off, it stops reading before its leases end, or a moment after."""
    first = await made.start("first")
    await made.balanced(4)
    with starved(0.05, 0.2):
        redis_server.freeze()
        cut_s = time.monotonic()
        try:
            await until(lambda: all(owned.subscription is None for owned in first.worker.owned.values()), 20, what="letting go")
        finally:
            redis_server.thaw()
        assert time.monotonic() - cut_s < 5
    with contextlib.suppress(TimeoutError):
        await made.balanced(4, seconds=10)


async def test_leases_are_renewed_while_partitions_are_being_taken_over(made: Farm) -> None:
    """A broker that takes longer to subscribe than a lease lasts: the leases stay, each partition is claimed once."""
    first = await made.start("first")
    subscribe = first.broker.subscribe

    async def slowly(*args: Any, **named: Any) -> Any:
        await asyncio.sleep(2.2)
        return await subscribe(*args, **named)

    first.broker.subscribe = slowly  # type: ignore[method-assign]
    with capture_logs() as logs:
        await made.balanced(4, seconds=40)
    assert [one["partition"] for one in logs if one["event"] == "partition_claimed"] == [0, 1, 2, 3]
    assert given_up(logs) == []
    await made.feed(100)
    await made.exact()
