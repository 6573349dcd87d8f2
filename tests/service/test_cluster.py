"""Checks the client of a Redis Cluster on real nodes: while a slot moves, and while a node hangs."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from typing import Any

import pytest
from redis.exceptions import ConnectionError as ConnectionLost
from redis.exceptions import RedisError, ResponseError

from mdc.connect import CacheUnavailable, open_cache
from mdc.writer import Flush, Outcome, Writer
from service.keyspace import CLUSTERED, slot_of
from tests.clusters.redis import Cluster
from tests.waiting import until

HOME = CLUSTERED.of(0)


@pytest.fixture
def nodes() -> Iterator[Cluster]:
    """A cluster of two that a test may disturb."""
    made = Cluster(2)
    try:
        made.start()
        yield made
    finally:
        made.remove()


def move(nodes: Cluster, slot: int) -> Iterator[None]:
    """Move a slot from its node to the other one, a step at each turn: announced, its keys moved, done."""
    source = nodes.node_of(HOME)
    target = next(node for node in nodes.primaries if node is not source)
    with source.client() as giving, target.client() as taking:
        names = [one.execute_command("CLUSTER", "MYID").decode() for one in (giving, taking)]
        taking.execute_command("CLUSTER", "SETSLOT", slot, "IMPORTING", names[0])
        giving.execute_command("CLUSTER", "SETSLOT", slot, "MIGRATING", names[1])
        yield
        keys = giving.execute_command("CLUSTER", "GETKEYSINSLOT", slot, 1000)
        giving.execute_command("MIGRATE", "127.0.0.1", target.port, "", 0, 5000, "KEYS", *keys)
        yield
        for one in (taking, giving):
            one.execute_command("CLUSTER", "SETSLOT", slot, "NODE", names[1])
        yield


def flush_of(writer: Writer, number: int, epoch: str) -> Any:
    flush = Flush(0, epoch)
    for symbol in ("A", f"N{number}"):  # one that is there, one that is new
        flush.channel_writer("trades").extend((f"ch:trades:{symbol}", b'{"n":%d}' % number))
    flush.checkpoint += ("counts", b"{}")
    return writer.call(flush, 1, number)


async def test_a_flush_is_whole_or_not_at_all_while_its_slot_moves(nodes: Cluster) -> None:
    """What would touch keys on both nodes is refused before it has written anything; afterwards it is applied once, in a new life."""
    client = open_cache(nodes.url)
    writer = Writer(client)
    shared = await writer.open("e1", 8)
    assert (await writer.claim({0: 1}, shared, "e1")) == {0: "e1"}
    assert await writer.write([flush_of(writer, 1, "e1")]) == [Outcome.APPLIED]
    moving = move(nodes, slot_of(HOME))
    await asyncio.to_thread(next, moving)
    with pytest.raises(CacheUnavailable):
        await writer.write([flush_of(writer, 2, "e1")])
    assert await client.lrange(f"{HOME}ch:trades:A", 0, -1) == [b'{"n":1}']
    await asyncio.to_thread(next, moving)
    assert await client.lrange(f"{HOME}ch:trades:A", 0, -1) == [b'{"n":1}'], "asked where it is"
    await asyncio.to_thread(next, moving)
    with pytest.raises(CacheUnavailable, match="another server"):
        await writer.write([flush_of(writer, 2, "e1")])
    assert (await writer.claim({0: 1}, shared, "e2")) == {0: "e2"}
    assert await writer.write([flush_of(writer, 2, "e1")]) == [Outcome.NEW_CACHE]
    assert await writer.write([flush_of(writer, 2, "e2")]) == [Outcome.APPLIED]
    assert await client.lrange(f"{HOME}ch:trades:A", 0, -1) == [b'{"n":1}', b'{"n":2}']
    await client.aclose()


async def test_a_subscription_follows_its_slot(nodes: Cluster) -> None:
    """What is lost on the way is said before the messages go on, from where they are now; other nodes' channels hear nothing of it."""
    client = open_cache(nodes.url)
    pubsub = client.pubsub()
    await pubsub.subscribe(f"{HOME}up")
    assert (await pubsub.get_message(timeout=5))["type"] == "subscribe"
    other = away_from(nodes, nodes.node_of(HOME))
    await pubsub.subscribe(f"{other}up")
    assert (await pubsub.get_message(timeout=5))["channel"] == f"{other}up".encode()
    moving = move(nodes, slot_of(HOME))
    for _ in range(2):
        await asyncio.to_thread(next, moving)
        await client.set(f"{HOME}k", 1)
    await asyncio.to_thread(next, moving)
    heard: list[Any] = []
    await until(lambda: hear(pubsub, heard, "subscribe"), 10)
    assert [(one["type"], one.get("channels")) for one in heard if one["type"] != "subscribe"] == [("lost", [f"{HOME}up"])]
    assert heard[-1]["channel"] == f"{HOME}up".encode()
    for home in (HOME, other):
        await client.execute_command("SPUBLISH", f"{home}up", "on")
        assert (await pubsub.get_message(timeout=5))["channel"] == f"{home}up".encode()
    await pubsub.aclose()
    await client.aclose()


async def hear(pubsub: Any, heard: list[Any], kind: str) -> bool:
    """Take messages until there is one of a kind."""
    message = await pubsub.get_message(timeout=0.1)
    heard += [message] if message is not None else []
    return bool(message and message["type"] == kind)


def away_from(nodes: Cluster, node: Any) -> str:
    """Return what stands before the keys of a partition that another node has."""
    return next(CLUSTERED.of(n) for n in range(8) if nodes.node_of(CLUSTERED.of(n)) is not node)


async def test_a_killed_node_s_channels_are_lost_and_found_again(nodes: Cluster) -> None:
    """The other node's go on; watching and leaving meanwhile confuses nothing; with no node left, that is an error."""
    client = open_cache(nodes.url)
    pubsub = client.pubsub()
    killed = nodes.node_of(HOME)
    other = away_from(nodes, killed)
    for channel in (f"{HOME}a", f"{HOME}b", f"{other}a"):
        await pubsub.subscribe(channel)
        assert (await pubsub.get_message(timeout=5))["last"]
    await asyncio.to_thread(killed.kill)
    heard: list[Any] = []
    await until(lambda: hear(pubsub, heard, "lost"), 10)
    assert sorted(heard[-1]["channels"]) == [f"{HOME}a", f"{HOME}b"]
    await client.execute_command("SPUBLISH", f"{other}a", "on")
    await until(lambda: hear(pubsub, heard, "message"), 10)
    began_s = time.monotonic()
    await pubsub.subscribe(f"{HOME}c")
    assert time.monotonic() - began_s < 1.4, "it was waited for"
    await pubsub.unsubscribe(f"{HOME}b")
    await pubsub.unsubscribe(f"{HOME}c")
    await pubsub.subscribe(f"{HOME}c")
    await asyncio.to_thread(killed.start)
    found: set[bytes] = set()
    while found != {f"{HOME}a".encode(), f"{HOME}c".encode()}:
        await until(lambda: hear(pubsub, heard, "subscribe"), 10)
        found.add(heard[-1]["channel"])
    for name in "bca":
        await client.execute_command("SPUBLISH", f"{HOME}{name}", name)
    heard.clear()
    for _ in range(2):
        await until(lambda: hear(pubsub, heard, "message"), 10)
    assert [one["data"] for one in heard] == [b"c", b"a"]
    for node in nodes.primaries:
        await asyncio.to_thread(node.kill)

    async def ended() -> bool:
        try:
            await pubsub.get_message(timeout=0.1)
        except RedisError:
            return True
        return False

    await until(ended, 10)
    await pubsub.aclose()
    await client.aclose()


async def test_a_node_that_hangs_costs_the_others_one_wait(nodes: Cluster) -> None:
    """What is for it fails at once from then on, until it answers again; nobody has to say so."""
    client = open_cache(nodes.url)
    hung = nodes.node_of(HOME)
    other = next(CLUSTERED.of(n) for n in range(8) if nodes.node_of(CLUSTERED.of(n)) is not hung)
    for home in (HOME, other):
        await client.set(f"{home}k", home)
    hung.freeze()
    try:
        with pytest.raises(ConnectionLost):
            await client.get(f"{HOME}k")
        began_s = time.process_time(), time.monotonic()
        async with client.pipeline(transaction=False) as pipe:
            for home in (HOME, other):
                pipe.get(f"{home}k")
            answers = await pipe.execute(raise_on_error=False)
        assert isinstance(answers[0], ConnectionLost)
        assert answers[1] == other.encode()
        assert time.monotonic() - began_s[1] < 1.4, "it was waited for again"
    finally:
        hung.thaw()

    async def answered() -> bool:
        try:
            return bool(await client.get(f"{HOME}k") == HOME.encode())
        except ConnectionLost:
            return False

    await until(answered, 10)
    await client.aclose()


async def test_what_is_about_no_one_node_is_refused(nodes: Cluster) -> None:
    """In a line, instead of an answer of one node that looks like everybody's."""
    client = open_cache(nodes.url)
    for command in (("SCAN", 0), ("KEYS", "*")):
        with pytest.raises(ResponseError, match="not about one node"):
            await client.execute_command(*command)
    with pytest.raises(ResponseError, match="slot"):
        await client.mget([f"{CLUSTERED.of(n)}k" for n in range(8)])
    await client.aclose()
