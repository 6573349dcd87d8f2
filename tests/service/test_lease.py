"""Checks that a lease has at most one holder, against fakeredis and a real Redis alike."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import fakeredis
import pytest
import redis.asyncio as aioredis

from service.lease import RedisLease
from tests.waiting import until


@pytest.fixture(params=["fakeredis", pytest.param("redis", marks=pytest.mark.live)])
async def cache(request: pytest.FixtureRequest) -> AsyncIterator[Any]:
    """A Redis client of either kind, its database empty."""
    if request.param == "fakeredis":
        client: Any = fakeredis.FakeAsyncRedis()
    else:
        client = aioredis.Redis.from_url(request.getfixturevalue("mdc_url"))
    yield client
    await client.aclose()


async def test_a_lease_has_one_holder(cache: Any) -> None:
    """The first to ask holds it; the second does not, and learns no epoch."""
    first, second = (RedisLease(cache, "feed", 10_000) for _ in range(2))
    assert await first.hold()
    assert not await second.hold()
    assert first.epoch > 0
    assert second.epoch == 0


async def test_renewing_keeps_the_epoch(cache: Any) -> None:
    """The fencing number changes with the holder, not with time."""
    lease = RedisLease(cache, "feed", 10_000)
    epochs = [(await lease.hold(), lease.epoch)[1] for _ in range(3)]
    assert len(set(epochs)) == 1


async def test_renewing_moves_the_deadline(cache: Any) -> None:
    """A lease lives a full TTL from its last renewal."""
    lease = RedisLease(cache, "feed", 10_000)
    await lease.hold()
    await cache.pexpire("lease:feed", 500)
    await lease.hold()
    assert await cache.pttl("lease:feed") > 9_000


async def test_a_released_lease_is_free_at_once_and_the_epoch_grows(cache: Any) -> None:
    """A standby takes over without waiting for the TTL, with a higher fencing number."""
    first, second = (RedisLease(cache, "feed", 60_000) for _ in range(2))
    await first.hold()
    before = first.epoch
    await first.release()
    assert first.epoch == 0
    assert await second.hold()
    assert second.epoch > before


async def test_a_dead_holder_loses_the_lease_within_its_ttl(cache: Any) -> None:
    """Nobody renews, the lease expires, the standby holds it with a higher fencing number."""
    dead, standby = (RedisLease(cache, "feed", 150) for _ in range(2))
    await dead.hold()
    await until(standby.hold, seconds=2)
    assert standby.epoch > dead.epoch
    assert not await dead.hold()


async def test_releasing_what_another_one_holds_changes_nothing(cache: Any) -> None:
    """A holder that lost its lease must not take it from its successor."""
    late, holder = (RedisLease(cache, "feed", 10_000) for _ in range(2))
    await late.hold()
    await cache.delete("lease:feed")
    await holder.hold()
    await late.release()
    assert not await late.hold()
    assert await holder.hold()


async def test_many_who_ask_at_once_get_one_holder(cache: Any) -> None:
    """The script decides atomically."""
    leases = [RedisLease(cache, "feed", 10_000) for _ in range(20)]
    assert sum(await asyncio.gather(*(lease.hold() for lease in leases))) == 1


async def test_leases_of_other_names_are_independent(cache: Any) -> None:
    """Each name has a holder and an epoch of its own."""
    assert await RedisLease(cache, "feed", 10_000).hold()
    assert await RedisLease(cache, "partition:3", 10_000).hold()


async def test_the_epoch_grows_over_an_emptied_redis(cache: Any) -> None:
    """What was fenced off before a cache lost everything stays fenced off."""
    before, after = (RedisLease(cache, "feed", 10_000) for _ in range(2))
    await before.hold()
    await cache.flushall()
    await asyncio.sleep(0.005)  # it counts in milliseconds
    assert await after.hold()
    assert after.epoch > before.epoch


async def test_whoever_waits_can_read_what_the_holder_does(cache: Any) -> None:
    """A name given twice by mistake shows in what the two do."""
    first, second = RedisLease(cache, "feed", 10_000, about="massive stocks"), RedisLease(cache, "feed", 10_000)
    assert await second.holder_about() == ""
    await first.hold()
    assert await second.holder_about() == "massive stocks"
