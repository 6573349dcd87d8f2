"""Leases: who may hold the vendor's connection, with a dead holder, a restarted and an emptied Redis."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any

import fakeredis
import pytest

from mdl.lease import UNABLE_S, SourceLease, Tenure, lease_client
from service.clock import ManualClock
from tests.servers import Redis
from tests.waiting import until

TTL_MS = 600


def test_a_lease_is_held_less_long_than_redis_keeps_it() -> None:
    """So that nobody else can have it at the same time."""
    tenure = Tenure(3.0)
    assert not tenure.held(0)
    tenure.granted(asked_s=10.0)
    assert tenure.held(12.3)
    tenure.away()
    assert tenure.held(12.3)
    assert not tenure.held(12.5)
    tenure.granted(13.0)
    tenure.denied()
    assert not tenure.held(13.0)


def test_the_previous_holder_goes_first_after_an_outage() -> None:
    """It asks at once, at the latest a second later; a standby waits for half a TTL."""
    holder, standby = Tenure(3.0), Tenure(3.0)
    holder.granted(0.0)
    for tenure in (holder, standby):
        tenure.seen(5, 1.0)
        tenure.away()
        tenure.seen(5, 20.0)
    assert holder.may_ask(20.0)
    assert not standby.may_ask(21.4)
    assert standby.may_ask(21.5)


def test_a_standby_is_back_as_soon_as_it_may_be() -> None:
    """It looks often for a Redis that is away, then asks at the moment when the previous holder has had its time."""
    standby = Tenure(3.0)
    assert standby.next_s(0.0, 1.0) == 1.0
    standby.away()
    assert standby.next_s(9.0, 1.0) == 0.25
    standby.seen(5, 10.0)
    assert standby.next_s(10.0, 1.0) == 1.0
    assert standby.next_s(11.4, 1.0) == pytest.approx(0.1)
    assert standby.next_s(11.5, 1.0) == 1.0


def test_who_holds_the_lease_asks_no_more_often_for_an_outage() -> None:
    """It would only be refused more often."""
    holder = Tenure(3.0)
    holder.granted(0.0)
    holder.away()
    assert holder.next_s(1.0, 1.0) == 1.0


def test_an_emptied_redis_counts_as_an_outage() -> None:
    """A restart faster than the standby's question is seen by the fencing number."""
    standby = Tenure(3.0)
    standby.seen(5, 1.0)
    standby.seen(0, 2.0)
    assert not standby.may_ask(3.4)


def test_a_first_listener_need_not_wait() -> None:
    """An empty Redis at the start is nothing strange."""
    fresh = Tenure(3.0)
    fresh.seen(0, 1.0)
    assert fresh.may_ask(1.0)


@pytest.fixture(params=["fake", "real"])
async def redis(request: pytest.FixtureRequest) -> AsyncIterator[Any]:
    """A client of an empty Redis: the embedded one and a real one."""
    if request.param == "fake":
        client: Any = fakeredis.FakeAsyncRedis()
    else:
        client = lease_client(request.getfixturevalue("mdc_url"), TTL_MS)
    yield client
    await client.aclose()


async def test_a_standby_takes_over_when_the_holder_dies(redis: Any) -> None:
    """Within the TTL and one question; one holder at any time."""
    first, second = (SourceLease(redis, "stocks", "simulator", TTL_MS) for _ in range(2))
    assert await first.ask()
    assert not await second.ask()
    assert second.reason == "another listener holds the source stocks"
    second.start()
    died_s = time.monotonic()
    await until(lambda: second.held)
    assert not first.held
    assert time.monotonic() - died_s < 2 * TTL_MS / 1000
    assert second.epoch > first.epoch
    await second.stop()


async def test_a_holder_that_stops_hands_over_at_once(redis: Any) -> None:
    """It need not run out."""
    first, second = (SourceLease(redis, "stocks", "simulator", 60_000) for _ in range(2))
    assert await first.ask()
    await first.stop()
    assert not first.held
    assert await second.ask()
    await second.stop()


async def test_markets_have_leases_of_their_own(redis: Any) -> None:
    """The vendor allows one connection an asset class."""
    stocks, crypto = SourceLease(redis, "stocks", "simulator", TTL_MS), SourceLease(redis, "crypto", "simulator", TTL_MS)
    assert await stocks.ask()
    assert await crypto.ask()


async def test_a_renewed_lease_is_kept(redis: Any) -> None:
    """Many TTLs long."""
    lease, other = SourceLease(redis, "stocks", "simulator", TTL_MS), SourceLease(redis, "stocks", "simulator", TTL_MS)
    lease.start()
    await until(lambda: lease.held)
    end_s = time.monotonic() + 3 * TTL_MS / 1000
    while time.monotonic() < end_s:
        assert not await other.ask()
        assert lease.held
        await asyncio.sleep(0.05)
    await lease.stop()


async def test_whoever_cannot_publish_lets_others_have_it(redis: Any) -> None:
    """Cut off from RabbitMQ, but not from Redis: the holder keeps it for 5 s, in which the line may come back; then it asks no more."""
    clock, cut = ManualClock(), [False]
    holder = SourceLease(redis, "stocks", "simulator", 60_000, clock, lambda: not cut[0])
    standby = SourceLease(redis, "stocks", "simulator", 60_000, clock)
    assert await holder.ask()
    cut[0] = True
    clock.advance(int(UNABLE_S * 1e9))
    assert await holder.ask()  # nobody else could do better
    assert not await standby.ask()
    assert not await holder.ask()
    assert holder.reason == "RabbitMQ cannot be reached from here"
    assert await standby.ask()
    await standby.stop()
    assert not await holder.ask()
    cut[0] = False
    assert await holder.ask()


async def test_a_tenure_that_ran_out_is_followed_by_another(redis: Any) -> None:
    """Also for the same holder, whose lease Redis may still keep: it counts its events from the beginning again."""
    clock = ManualClock()
    lease = SourceLease(redis, "stocks", "simulator", 60_000, clock)
    assert await lease.ask()
    first, epoch = lease.tenure, lease.epoch
    clock.advance(50_000_000_000)  # a renewal has come too late, or its answer was lost
    assert not lease.held
    assert await lease.ask()
    assert lease.epoch > epoch
    assert lease.held
    assert not lease.holds(first)


async def test_a_short_redis_restart_goes_unnoticed_and_a_long_one_ends_the_lease(redis_server: Redis) -> None:
    """Nobody gets the lease before the previous holder could have it back."""
    clients = [lease_client(redis_server.url, 3000) for _ in range(2)]
    clock = ManualClock()
    holder, standby = (SourceLease(client, "futures", "simulator", 3000, clock) for client in clients)
    assert await holder.ask()
    assert not await standby.ask()
    await asyncio.to_thread(redis_server.restart)  # and empty it
    clock.advance(1_000_000_000)
    assert not await standby.ask()  # the fencing number has gone back: it waits
    assert await holder.ask()
    assert holder.reason == ""
    clock.advance(2_000_000_000)
    await asyncio.to_thread(redis_server.stop)
    assert await holder.ask()  # no answer, but the TTL has not run out
    assert "cannot be renewed" in holder.reason
    assert not await standby.ask()
    clock.advance(1_000_000_000)
    assert not await holder.ask()
    await asyncio.to_thread(redis_server.start)
    assert not await standby.ask()
    assert await holder.ask()
    for client in clients:
        await client.aclose()
