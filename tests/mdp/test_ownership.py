"""Checks that heartbeats spread the partitions evenly and exclusively over workers, the same for every kind of cache."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest

from mdc.connect import CacheUnavailable, open_cache
from mdp.ownership import BEAT_S, LEASE_MS, Ownership
from tests.servers import free_port
from tests.waiting import until

PARTITIONS = 8
FAST_MS = 200


async def settle(cache: Any) -> None:
    """Make the cache one that workers have known for long."""
    await cache.set("mdp:since", 1)


def workers(cache: Any, names: str, lease_ms: int = 60_000) -> list[Ownership]:
    return [Ownership(cache, name, PARTITIONS, lease_ms) for name in names]


async def balance(members: list[Ownership]) -> dict[str, set[int]]:
    """Beat in turns, giving back what is too much, until nothing moves any more; return who owns what."""
    owned: dict[str, set[int]] = {}
    for _ in range(4):
        for member in members:
            share = await member.beat()
            for partition in sorted(share.owned)[len(share.owned) - share.surplus :]:
                await member.release(partition)
                share.owned.pop(partition)
            owned[member.worker] = set(share.owned)
    return owned


@pytest.mark.parametrize(("names", "sizes"), [("a", [8]), ("ab", [4, 4]), ("abc", [2, 3, 3]), ("abcdefghij", [0, 0] + [1] * 8)])
async def test_partitions_are_spread_evenly(cache: Any, names: str, sizes: list[int]) -> None:
    """Shares differ by one at most, every partition has one owner, more workers than partitions stand by."""
    await settle(cache)
    owned = await balance(workers(cache, names))
    assert sorted(len(partitions) for partitions in owned.values()) == sizes
    assert sorted(p for partitions in owned.values() for p in partitions) == list(range(PARTITIONS))


async def test_a_newcomer_gets_its_share_and_a_leaver_gives_it_back(cache: Any) -> None:
    """Who is alone owns all; with a second one half is surplus; when that leaves, all comes back at once."""
    await settle(cache)
    one, two = workers(cache, "ab")
    assert len((await one.beat()).owned) == 8
    assert len((await two.beat()).owned) == 0
    assert (await one.beat()).surplus == 4
    owned = await balance([one, two])
    assert {name: len(partitions) for name, partitions in owned.items()} == {"a": 4, "b": 4}
    for partition in owned["b"]:
        await two.release(partition)
    share = await two.beat(claim=False)
    assert (share.owned, share.workers) == ({}, 1)
    assert len((await one.beat()).owned) == 8


async def test_each_change_of_owner_raises_the_fence(cache: Any) -> None:
    """The number that flushes are checked by only grows, and renewing leaves it."""
    await settle(cache)
    one, two = workers(cache, "ab")
    first = (await one.beat()).owned
    assert (await one.beat()).owned == first
    for partition in first:
        await one.release(partition)
    await one.beat(claim=False)
    second = (await two.beat()).owned
    assert all(second[p] > first[p] for p in range(PARTITIONS))
    assert int(await cache.get("fence:partition:3")) == second[3]
    assert (await two.beat()).before == first


async def test_a_fence_is_not_given_twice_by_a_cache_that_went_back_in_time(cache: Any) -> None:
    """What was written under it before the roll-back would pass for the new owner's."""
    await settle(cache)
    one, two = workers(cache, "ab")
    first = (await one.beat()).owned
    for partition in first:
        await one.release(partition)
        await cache.delete(f"fence:partition:{partition}")
    await one.beat(claim=False)
    await asyncio.sleep(0.005)  # fences are at least the clock, in milliseconds
    second = (await two.beat()).owned
    assert all(second[p] > first[p] for p in range(PARTITIONS))


async def test_a_process_is_not_its_dead_namesake(cache: Any) -> None:
    """A killed worker's last flush may still be on the wire: whoever starts under its name gets fences of its own."""
    await settle(cache)
    dead, successor = workers(cache, "aa")
    before = (await dead.beat()).owned
    after = (await successor.beat()).owned
    assert all(after[p] > before[p] for p in range(PARTITIONS))
    assert (await successor.beat()).owned == after


async def test_only_the_holder_releases(cache: Any) -> None:
    """A worker that lost a partition cannot take it from its new owner."""
    await settle(cache)
    one, two = workers(cache, "ab")
    await one.beat()
    await two.release(3)
    assert len((await one.beat()).owned) == 8


async def test_a_dead_workers_partitions_are_taken_over_in_time(cache: Any) -> None:
    """A worker that stops beating is replaced within its lease and one beat: 2.4 s as configured."""
    assert LEASE_MS / 1000 + BEAT_S < 2.5
    await settle(cache)
    one, two = workers(cache, "ab", FAST_MS)
    await balance([one, two])
    began = time.monotonic()

    async def all_owned() -> bool:
        return len((await two.beat()).owned) == 8

    await until(all_owned, seconds=10, every_s=0.02)
    assert time.monotonic() - began > FAST_MS / 1000 * 0.5


async def test_a_clock_that_went_back_keeps_nothing_from_the_living(cache: Any) -> None:
    """What was written before would last until the server's clock is there again: it gets one lease from now."""
    ahead_ms = int(time.time() * 1000) + 20_000
    await cache.set("mdp:since", ahead_ms)
    await cache.zadd("mdp:workers", {"dead": ahead_ms})
    await cache.zadd("mdp:ranks", {"dead": 0})
    await cache.zadd("mdp:due", dict.fromkeys(map(str, range(PARTITIONS)), ahead_ms))
    for partition in range(PARTITIONS):
        await cache.hset(f"lease:partition:{partition}", mapping={"holder": "dead", "epoch": 1, "token": "t", "before": 0})
        await cache.pexpire(f"lease:partition:{partition}", 20_000)
    [one] = workers(cache, "a", FAST_MS)

    async def all_owned() -> bool:
        return len((await one.beat()).owned) == PARTITIONS

    await until(all_owned, seconds=10, every_s=0.02)


async def test_in_an_emptied_cache_who_remembers_comes_first(cache: Any) -> None:
    """For one lease only those who hold a partition's state may claim it; then the rest is spread."""
    one, two = workers(cache, "ab", FAST_MS)
    assert (await two.beat()).owned == {}
    assert sorted((await one.beat(remembered=[1, 5])).owned) == [1, 5]
    assert (await two.beat()).owned == {}
    assert sorted((await one.beat(remembered=[1, 5])).owned) == [1, 5]

    async def spread() -> bool:
        mine, theirs = await one.beat(remembered=[1, 5]), await two.beat()
        return len(mine.owned) == len(theirs.owned) == 4 and {1, 5} <= mine.owned.keys()

    await until(spread, seconds=10, every_s=0.05)


async def test_workers_that_beat_at_once_never_share_a_partition(cache: Any, cache_url: str) -> None:
    """Whatever the order of beats and releases, no partition has two owners at a time."""
    await settle(cache)
    clients = [open_cache(cache_url) for _ in range(4)]
    members = [Ownership(client, name, PARTITIONS) for client, name in zip(clients, "abcd", strict=True)]
    for round_ in range(8):
        alive = members[: round_ % 4 + 1]
        shares = await asyncio.gather(*(member.beat() for member in alive))
        claimed = [p for share in shares for p in share.owned]
        assert len(claimed) == len(set(claimed))
        for member, share in zip(alive, shares, strict=True):
            for partition in sorted(share.owned)[len(share.owned) - share.surplus :]:
                await member.release(partition)
    for client in clients:
        await client.aclose()


async def test_without_a_cache_nothing_is_owned() -> None:
    """An absent cache is an error that the caller waits out."""
    member = Ownership(open_cache(f"redis://127.0.0.1:{free_port()}/0"), "a", PARTITIONS)
    with pytest.raises(CacheUnavailable):
        await member.beat()
    with pytest.raises(CacheUnavailable):
        await member.release(0)
