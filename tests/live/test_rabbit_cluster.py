"""Quorum queues on three RabbitMQ nodes while nodes die: the market is fresh again in seconds, every loss is counted and told."""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from service.partition import partition_of
from tests.clusters.rabbit import Node, RabbitCluster
from tests.live.test_clients import Watcher, token
from tests.market import RATE, Market
from tests.servers import Redis
from tests.stack import Stack
from tests.waiting import until
from wds.client import Client

pytestmark = [pytest.mark.live, pytest.mark.faults]

PARTITIONS = 8
FRESH_S_MAX = 5.0
LOOK_S = 15.0


@pytest.fixture
def market(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Market]:
    """A market on a cluster of its own, not started yet."""
    monkeypatch.setenv("MDQ_QUEUE_TYPE", "quorum")
    with RabbitCluster() as cluster, Redis() as cache:
        assert isinstance(cluster, RabbitCluster)
        stack = Stack(tmp_path, cluster, cache)
        yield Market(stack)
        stack.close()


def cluster_of(market: Market) -> RabbitCluster:
    assert isinstance(market.running.rabbitmq, RabbitCluster)
    return market.running.rabbitmq


def leading_node(cluster: RabbitCluster) -> Node:
    """Return the node that leads most queues of trades and quotes."""
    leaders = cluster.leaders()
    return Counter(node for name, node in leaders.items() if name.startswith(("md.trades.", "md.quotes."))).most_common(1)[0][0]


def busy_symbols(market: Market) -> list[str]:
    """Return the busiest symbol of every partition."""
    found: dict[int, str] = {}
    board = market.running.wait("a board", lambda: market.running.redis.get("ch:board:volume"))
    for symbol in json.loads(board)["data"]["order"]:
        found.setdefault(partition_of(symbol, PARTITIONS), symbol)
    return list(found.values())


class Ages:
    """How long each channel's subscriber has waited for the next push, at worst."""

    def __init__(self, client: Client) -> None:
        self.watcher = Watcher(client)
        self.began_s = time.monotonic()
        self.at_s: dict[str, float] = {}
        self.worst_s: dict[str, float] = {}

    async def run(self) -> None:
        """Note the pauses between pushes until cancelled."""
        async for push in self.watcher.client:
            self.watcher.frames.append(push.frame)
            channel, now_s = push.frame["ch"], time.monotonic()
            if push.frame["t"] in ("snap", "upd"):
                self.worst_s[channel] = max(self.worst_s.get(channel, 0), now_s - self.at_s.get(channel, now_s))
                self.at_s[channel] = now_s

    def begin(self) -> None:
        """Forget the pauses before now."""
        self.worst_s = dict.fromkeys(self.worst_s, 0.0)

    def worst(self) -> float:
        """Return the longest pause of any channel, also one that has not ended."""
        now_s = time.monotonic()
        return max(max(worst, now_s - self.at_s[channel]) for channel, worst in self.worst_s.items())


def told(ages: Ages, channels: list[str], state: str) -> bool:
    """Return whether the last word on every channel is `state`."""
    last = {frame["ch"]: frame["state"] for frame in ages.watcher.frames if frame["t"] == "status"}
    return all(last.get(channel, "live") == state for channel in channels)


async def test_a_killed_node_and_a_lost_majority(market: Market, capsys: pytest.CaptureFixture[str]) -> None:
    """The node that leads most queues is killed under load: fresh within 5 s, balanced to the event; without a majority the
    clients are told stale, and live again when it is back.
    """
    await asyncio.to_thread(market.start, 2)
    url = await asyncio.to_thread(market.start_wds)
    cluster, channels = cluster_of(market), [f"quote:{symbol}" for symbol in await asyncio.to_thread(busy_symbols, market)]
    assert len(channels) == PARTITIONS
    victim = await asyncio.to_thread(leading_node, cluster)
    async with Client(url, token(market)) as client:
        ages = Ages(client)
        watching = asyncio.create_task(ages.run())
        await client.subscribe(*channels, hz=10)
        await until(lambda: len(ages.at_s) == PARTITIONS, 10)
        before = market.running.counts()
        ages.begin()
        await asyncio.to_thread(victim.kill)
        await asyncio.sleep(LOOK_S)  # the fault itself
        worst_s = ages.worst()
        counts = await asyncio.to_thread(market.settle)
        with capsys.disabled():
            passed = {name: counts[name] - before[name] for name in counts}
            print(f"\nfresh after {worst_s:.2f} s at worst; since the kill {passed}; {market.balance()}")
        assert worst_s < FRESH_S_MAX
        assert counts["events"] > before["events"] + RATE
        assert counts["bad"] == 0
        assert told(ages, channels, "live")

        await asyncio.to_thread(market.fault, "heal")
        second = await asyncio.to_thread(leading_node, cluster)
        await asyncio.to_thread(second.kill)
        await until(lambda: told(ages, channels, "stale"), 15, what="clients told stale")
        await asyncio.to_thread(cluster.start)
        await until(lambda: told(ages, channels, "live"), 30, what="clients told live")
        counts = await asyncio.to_thread(market.settle)
        with capsys.disabled():
            print(f"after the lost majority {counts}; {market.balance()}")
        assert counts["expired"] + counts["dropped"] > 0
        watching.cancel()
    assert all(process.poll() is None for process in market.running.processes.values())
