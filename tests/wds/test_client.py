"""The Python client against a real worker: it resumes, repairs and obeys; its pushes are whole states."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from typing import Any

import pytest

from tests.waiting import until
from tests.wds.publisher import Publisher
from wds.client import Client, WdsError, stream_url
from wds.follow import Push

Token = Callable[..., str]


async def until_push(client: Client, wanted: Callable[[Push], bool]) -> Push:
    async with asyncio.timeout(10):
        async for push in client:
            if wanted(push):
                return push
    raise AssertionError("the pushes ended")


async def test_pushes_carry_the_whole_state(wds: Any, publisher: Publisher, token: Token) -> None:
    """Each push shows the channel's copy after it."""
    await publisher.publish("quote:A", {"last": 1, "bid": 1})
    async with Client(f"ws://127.0.0.1:{wds.port}", token()) as client:
        assert (await client.subscribe("quote:A", hz="raw"))[0]["hz"] == "raw"
        await until_push(client, lambda push: push.kind == "snap")
        await publisher.publish("quote:A", {"last": 2, "bid": 1})
        push = await until_push(client, lambda push: push.kind == "upd")
        assert push.copy is not None
        assert push.copy.data == {"last": 2, "bid": 1}
        assert (await client.get("quote:A"))[0]["seq"] == 2
        with pytest.raises(WdsError, match="bad_request"):
            await client.subscribe("quote:A", hz=3)


async def test_it_moves_to_another_worker_without_a_gap(serve: Any, publisher: Publisher, token: Token) -> None:
    """When its worker drains, it comes back after after_ms on another one and goes on where it stood."""
    await publisher.publish("trades:A", {"n": 1})
    first = await serve()
    async with Client(f"ws://127.0.0.1:{first.port}", lambda: token()) as client:
        await client.subscribe("trades:A", hz="raw")
        await until_push(client, lambda push: push.kind == "snap")
        second = await serve()
        client.url = stream_url(f"ws://127.0.0.1:{second.port}")
        await first.drain()
        for n in range(2, 6):
            await publisher.publish("trades:A", {"n": n})
        await asyncio.sleep(0.001)  # the clients share this loop
        push = await until_push(client, lambda push: push.kind == "event" and push.frame["data"]["n"] == 5)
        assert push.copy is not None
        assert [event["n"] for event in push.copy.data] == [1, 2, 3, 4, 5]


async def test_a_broken_chain_is_mended_by_get(wds: Any, publisher: Publisher, token: Token) -> None:
    """A copy that does not fit the next frame is replaced by a snapshot."""
    await publisher.publish("quote:A", {"last": 1})
    async with Client(f"ws://127.0.0.1:{wds.port}", token()) as client:
        await client.subscribe("quote:A", hz="raw")
        await until_push(client, lambda push: push.kind == "snap")
        client.follower.copies["quote:A"].seq = 77
        await publisher.publish("quote:A", {"last": 2})
        push = await until_push(client, lambda push: push.kind == "snap")
        assert push.copy is not None
        assert (push.copy.seq, push.copy.data) == (2, {"last": 2})


async def test_a_final_close_code_ends_the_iteration(serve: Any, token: Token) -> None:
    """After 4001–4099 it does not reconnect; without reconnecting any loss ends it."""
    wds = await serve()
    with pytest.raises(WdsError, match="unauthorized"):
        async with Client(f"ws://127.0.0.1:{wds.port}", "bad"):
            pass
    async with Client(f"ws://127.0.0.1:{wds.port}", token()) as client:
        await until(lambda: wds.hub.members)
        for connection in wds.roster:
            connection.bye(4029, 0)
        with pytest.raises(WdsError, match="4029"):
            await until_push(client, lambda _: False)


async def _publish_until(publisher: Publisher, enough: asyncio.Event) -> None:
    n = 0
    while not enough.is_set():
        n += 1
        await publisher.publish("trades:A", {"n": n})
        await asyncio.sleep(0.001)  # the clients share this loop


async def test_it_closes_at_any_moment(serve: Any, publisher: Publisher, token: Token) -> None:
    """Closed 60 times in mid-stream, it ends each time at once, and the server has nobody left."""
    wds, dice, enough = await serve(), random.Random(11), asyncio.Event()
    publishing = asyncio.create_task(_publish_until(publisher, enough))
    try:
        for _ in range(60):
            async with asyncio.timeout(5):
                async with Client(f"ws://127.0.0.1:{wds.port}", token()) as client:
                    await client.subscribe("trades:A", hz="raw")
                    await asyncio.sleep(dice.random() * 0.02)
    finally:
        enough.set()  # not cancelled: redis-py swallows that now and then
        await publishing
    await until(lambda: not wds.hub.members)
