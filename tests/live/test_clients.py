"""What clients of the data service see while things break: they are told, they resume, no event is missing or doubled."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from tests.market import Market
from tests.waiting import until
from wds.access.keys import mint_local
from wds.client import Client

pytestmark = pytest.mark.live


class Watcher:
    """One client that writes down every push."""

    def __init__(self, client: Client) -> None:
        self.client = client
        self.frames: list[dict[str, Any]] = []

    async def run(self) -> None:
        """Collect until cancelled."""
        async for push in self.client:
            self.frames.append(push.frame)

    def of(self, channel: str, *kinds: str) -> list[dict[str, Any]]:
        """Return the frames of a channel and of these kinds."""
        return [frame for frame in self.frames if frame["ch"] == channel and frame["t"] in kinds]


def token(market: Market) -> str:
    """Return a token for every channel."""
    return mint_local(market.running.folder)


def busiest(market: Market, rank: int = 0) -> str:
    """Return the symbol with the largest volume, or one further down."""
    body = market.running.wait("a board", lambda: market.running.redis.get("ch:board:volume"))
    return str(json.loads(body)["data"]["order"][rank])


async def test_redis_lost_and_back_empty_is_told_and_mended(market: Market) -> None:
    """With Redis gone clients are told stale; when it is back, empty, they get live and fresh snapshots whose totals go on."""
    await asyncio.to_thread(market.start)
    url = await asyncio.to_thread(market.start_wds)
    symbol = await asyncio.to_thread(busiest, market)
    quote = f"quote:{symbol}"
    async with Client(url, token(market)) as client:
        watcher = Watcher(client)
        task = asyncio.create_task(watcher.run())
        await client.subscribe(quote, "board:volume", hz=10)
        await until(lambda: len(watcher.of(quote, "snap", "upd")) > 5, 20)
        trades = client.follower.copies[quote].data["trades"]
        epoch = client.follower.copies[quote].epoch
        await asyncio.to_thread(market.running.cache.stop)
        await until(lambda: any(f["state"] == "stale" for f in watcher.of(quote, "status")), 10)
        await asyncio.to_thread(market.running.cache.start)
        await until(lambda: client.follower.copies[quote].epoch != epoch, 20)
        await until(lambda: watcher.of(quote, "status")[-1]["state"] == "live", 20)
        await until(lambda: client.follower.copies[quote].data["trades"] > trades, 20)
        assert watcher.of("board:volume", "status")[-1]["state"] == "live"
        task.cancel()


async def test_a_killed_worker_costs_its_clients_no_event(market: Market) -> None:
    """Clients of a WDS worker that is killed resume on the other one: every print once, in order, none missing."""
    await asyncio.to_thread(market.start)
    url = await asyncio.to_thread(market.start_wds, 2)
    # Far from the busiest: the cache keeps 200 prints, and a slow machine may need many seconds to connect again.
    channel = f"trades:{await asyncio.to_thread(busiest, market, 40)}"
    async with contextlib.AsyncExitStack() as open_clients:
        watchers = [Watcher(await open_clients.enter_async_context(Client(url, token(market)))) for _ in range(6)]
        tasks = [asyncio.create_task(watcher.run()) for watcher in watchers]
        for watcher in watchers:
            await watcher.client.subscribe(channel, hz="raw")
        await until(partial(all_have_more, watchers, channel, [3] * 6), 30)
        for victim in workers(market):
            seen = [len(watcher.of(channel, "event")) for watcher in watchers]
            os.kill(victim, signal.SIGKILL)
            await until(partial(all_have_more, watchers, channel, [n + 5 for n in seen]), 40)
        for watcher in watchers:
            events = watcher.of(channel, "event")
            assert not watcher.of(channel, "lost")
            assert len(watcher.of(channel, "snap")) == 1, "a resume must not need a new snapshot"
            assert all(later["prev"] == earlier["seq"] for earlier, later in pairwise(events))
        for task in tasks:
            task.cancel()


def all_have_more(watchers: list[Watcher], channel: str, than: list[int]) -> bool:
    """Return whether each watcher has more events than its number."""
    return all(len(watcher.of(channel, "event")) > n for watcher, n in zip(watchers, than, strict=True))


def workers(market: Market) -> list[int]:
    """Return the pids of the data service's workers."""
    parent = market.running.processes["wds"].pid
    return [int(pid) for pid in Path(f"/proc/{parent}/task/{parent}/children").read_text().split()]


async def test_the_vendor_silent_is_told(market: Market) -> None:
    """When the listener loses the vendor, clients are told that what they see is stale, and told when it lives again."""
    await asyncio.to_thread(market.start)
    url = await asyncio.to_thread(market.start_wds)
    quote = f"quote:{await asyncio.to_thread(busiest, market)}"
    async with Client(url, token(market)) as client:
        watcher = Watcher(client)
        task = asyncio.create_task(watcher.run())
        await client.subscribe(quote)
        await until(lambda: watcher.of(quote, "snap"), 10)
        market.fault("refuse")
        market.fault("drop")
        await until(lambda: any(f["state"] == "stale" for f in watcher.of(quote, "status")), 15)
        market.fault("heal")
        await until(lambda: watcher.of(quote, "status")[-1]["state"] == "live", 30)
        task.cancel()
