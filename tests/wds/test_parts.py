"""Runs the data service on a Redis Cluster whose nodes fail one by one: clients of the others notice nothing."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest
from redis.exceptions import RedisError

from mdc.channels import split
from service.keyspace import CLUSTERED
from service.partition import partition_of
from tests.clusters.redis import Cluster, ClusterNode, PlainNames
from tests.waiting import until
from tests.wds.publisher import LIVE, Publisher
from tests.wds.talk import Talk

SYMBOLS = {partition_of(name, 8): name for name in (f"S{n}" for n in range(60))}
SHARED = ["board:gainers", "alerts:range"]


@pytest.fixture(scope="module")
def nodes() -> Iterator[Cluster]:
    """Three primaries that these tests may kill; each test leaves them alive."""
    made = Cluster(3)
    try:
        made.start()
        yield made
    finally:
        made.remove()


@pytest.fixture
def cache_url(nodes: Cluster) -> str:
    nodes.revive()
    nodes.empty()
    return nodes.url


class ClusterPublisher(Publisher):
    """Writes to a cluster; what is for a node that is away is not written."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self._redis = PlainNames.open(url)

    async def publish(self, channel: str, *states: Any, ts: int | None = None) -> int:
        kind, name = split(channel)
        if not kind.is_shared(name):
            self._redis.partition = partition_of(name, 8)
        return await super().publish(channel, *states, ts=ts)

    async def _keep_beating(self, state: dict[str, Any], every_s: float) -> None:
        while True:
            with contextlib.suppress(RedisError, OSError):
                await self.publish("status:pipeline", state)
            await asyncio.sleep(every_s)


@pytest.fixture
async def publisher(cache_url: str) -> AsyncIterator[Publisher]:
    made = ClusterPublisher(cache_url)
    made.start_beat(LIVE)
    yield made
    await made.close()


def channels_of(nodes: Cluster, node: ClusterNode) -> list[str]:
    """Return the quotes and prints of the partitions that a node has, and what all share if it has that."""
    mine = [SYMBOLS[n] for n in range(8) if nodes.node_of(CLUSTERED.of(n)) is node]
    shared = SHARED if nodes.node_of(CLUSTERED.shared) is node else []
    return [f"{kind}:{symbol}" for symbol in mine for kind in ("quote", "trades")] + shared


async def publish(publisher: Publisher, channels: list[str], n: int) -> None:
    for channel in channels:
        board = {"order": ["A"], "rows": {"A": {"last": n}}}
        await publisher.publish(channel, board if channel.startswith("board") else {"last": n})


def shown(talk: Talk, channel: str) -> Any:
    """Return the newest data that a client was shown on a channel, as text."""
    frames = [one for one in talk.all(ch=channel) if one["t"] != "status"]
    return str(frames[-1]) if frames else ""


def holds(talk: Talk, channels: list[str], n: int) -> Callable[[], bool]:
    return lambda: all(f"'last': {n}" in shown(talk, channel) for channel in channels)


@pytest.mark.live
@pytest.mark.parametrize("which", ["of partitions alone", "of what all share"])
async def test_only_what_a_lost_node_has_goes_stale(
    serve: Any, publisher: ClusterPublisher, token: Any, nodes: Cluster, which: str
) -> None:
    """The others flow and stay live, for new clients as well; when the node is back its channels are read anew and go on."""
    shared = nodes.node_of(CLUSTERED.shared)
    victim = shared if which == "of what all share" else next(one for one in nodes.primaries if one is not shared)
    lost = channels_of(nodes, victim)
    rest = [channel for node in nodes.primaries if node is not victim for channel in channels_of(nodes, node)]
    wds = await serve(silence_s=120)
    await until(lambda: wds.hub.verdict.state == "live")
    talk = await Talk.to(wds.port, token())
    reply = await talk.ask(op="sub", ch=[*lost, *rest], hz="raw")
    assert all("error" not in one for one in reply["subs"]), reply
    await publish(publisher, [*lost, *rest], 1)
    await until(holds(talk, [*lost, *rest], 1))

    await asyncio.to_thread(victim.kill)
    for channel in lost:
        await talk.find(10, t="status", ch=channel, state="stale")
    await publish(publisher, rest, 2)
    await until(holds(talk, rest, 2))
    other = await Talk.to(wds.port, token())
    began_s = asyncio.get_running_loop().time()
    await other.ask(op="sub", ch=[*lost, *rest], hz="raw")
    await until(holds(other, rest, 2))
    pattern = await Talk.to(wds.port, token())
    await pattern.ask(op="sub", ch=["quote:*"], hz="raw")
    quotes = [channel for channel in rest if channel.startswith("quote")]
    await publish(publisher, rest, 3)
    await until(holds(pattern, quotes, 3))
    for one in (talk, other):
        await until(holds(one, rest, 3))
    assert asyncio.get_running_loop().time() - began_s < 5, "new clients waited for the lost node"
    assert all(reason.startswith("cache unavailable") for reason in {one["reason"] for one in talk.all(t="status")})
    assert (wds.hub.verdict.state, wds.ready()) == ("live", [])

    await asyncio.to_thread(victim.start)
    publisher.epoch = f"k2 {which[:7]}"
    for channel in lost:
        publisher.seq.pop(channel, None)
    publisher.seq.pop("status:pipeline", None)
    await until(lambda: _written(publisher, lost, 4), 20)
    for one in (talk, other):
        await until(holds(one, lost, 4), 20)
        for channel in lost:
            await until(lambda one=one, channel=channel: one.all(t="status", ch=channel)[-1]["state"] == "live", 10)
        assert {status["ch"] for status in one.all(t="status")} == set(lost), "others were called stale"
    await until(holds(pattern, [channel for channel in lost if channel.startswith("quote")], 4), 20)
    for one in (talk, other, pattern):
        await one.close()


async def _written(publisher: ClusterPublisher, channels: list[str], n: int) -> bool:
    try:
        await publish(publisher, channels, n)
    except (RedisError, OSError):
        return False
    return True
