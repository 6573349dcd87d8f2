"""Orders while things die: RabbitMQ restarted and killed, engines killed in mid-stream, an order that kills its engine."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest

from engine.orders.client import OrdersClient
from engine.orders.topology import DEAD, EXPIRED, ORDERS, RETRY
from tests.engine.orders.ground import (
    accepted,
    dead_letters,
    declare,
    delete,
    depth,
    desk,
    place,
    places,
    properties_of,
    push,
    reasons,
)
from tests.servers import RabbitMQ
from tests.stack import ROOT
from tests.waiting import until

pytestmark = pytest.mark.live


@pytest.fixture
async def server(rabbitmq_server: RabbitMQ) -> AsyncIterator[RabbitMQ]:
    """A RabbitMQ that may be restarted, with empty queues of orders."""
    await delete(rabbitmq_server.url)
    await declare(rabbitmq_server.url)
    yield rabbitmq_server
    await delete(rabbitmq_server.url)


@contextmanager
def engine(url: str, folder: Path, deadly: str = "") -> Iterator[subprocess.Popen[bytes]]:
    """Run an engine as a process; it is ended in order when nothing else has ended it."""
    argv = [sys.executable, "-m", "tests.engine.orders.process", url, str(folder), deadly]
    with (folder.parent / "engine.log").open("ab") as out:
        process = subprocess.Popen(argv, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=out, stderr=out)
    try:
        yield process
    finally:
        process.terminate()
        process.wait(20)


async def left(url: str) -> list[int]:
    """Return how many messages are in the queues."""
    return [await depth(url, name) for name in (ORDERS, RETRY, EXPIRED, DEAD)]


@pytest.mark.parametrize("way", ["restarted", "killed"])
async def test_rabbitmq_goes_and_comes_in_mid_stream(server: RabbitMQ, tmp_path: Path, way: str) -> None:
    """Three thousand orders, RabbitMQ away twice in between: each is executed once, none is a dead letter."""
    messages = places(3_000)
    async with desk(server.url, tmp_path / "j") as (_, queue, client):
        room = asyncio.Semaphore(200)

        async def send(message: dict[str, Any]) -> None:
            async with room:
                await client.send(message, timeout_s=120)

        sending = asyncio.gather(*[send(message) for message in messages])
        for share in (700, 1_700):
            await until(lambda share=share: queue.counts["done"] > share, 60, "orders are executed", every_s=0.001)
            await asyncio.to_thread(server.kill if way == "killed" else server.stop)
            await until(lambda: not queue.ready, 20)
            await asyncio.to_thread(server.start)
        await sending
        ended = ("done", "repeated")
        await until(lambda: sum(queue.counts[end] for end in ended) >= 3_000 and not queue._unacked, 60, str(queue.counts))
        assert queue.counts["done"] >= 3_000, "no order was lost, also none that the broker had confirmed"
        assert not queue.counts["retried"] or not queue.counts["Poisoned"]
    found = accepted(tmp_path / "j")
    assert len(found) == 3_000
    assert sorted(found) == sorted(message["clOrdID"] for message in messages)
    assert await left(server.url) == [0, 0, 0, 0]


async def test_engines_die_in_mid_stream_and_every_order_is_executed_once(server: RabbitMQ, tmp_path: Path) -> None:
    """Six engines killed one after the other while orders flow; the seventh finishes: each once, in the order of sending."""
    messages = places(4_000)
    folder = tmp_path / "j"

    async def flow() -> None:
        async with OrdersClient(server.url) as client:
            for start in range(0, len(messages), 100):
                await asyncio.gather(*[client.send(message) for message in messages[start : start + 100]])

    flowing = asyncio.create_task(flow())
    for kill in range(6):
        with engine(server.url, folder) as process:
            before = _count(folder)
            await until(lambda before=before, kill=kill: _count(folder) > before + 50 + 60 * kill, 60, "orders are executed")
            process.send_signal(signal.SIGKILL)
    with engine(server.url, folder):
        await flowing
        await until(lambda: _count(folder) >= len(messages), 120, "all orders are executed", every_s=0.1)
        await until(lambda: left(server.url), 20)
    assert accepted(folder) == [message["clOrdID"] for message in messages]
    assert await left(server.url) == [0, 0, 0, 0]


def _count(folder: Path) -> int:
    """Return about how many orders are in the journal: cheap, and exact enough to wait for."""
    return (
        sum(path.read_bytes().count(b"order.accepted") for path in folder.iterdir() if path.is_file()) if folder.exists() else 0
    )


async def test_an_order_that_kills_its_engine_is_buried_and_all_others_are_executed(server: RabbitMQ, tmp_path: Path) -> None:
    """Three engines die of it; the fourth finds it counted, buries it with the reason, and executes the rest in order."""
    names = [f"o{n}" for n in range(60)]
    folder = tmp_path / "j"
    await push(server.url, [place("poison" if name == "o30" else name, orderQty=1) for name in names], message_id="m", priority=2)
    deaths = 0
    for _ in range(3):
        with engine(server.url, folder, "poison") as process:
            await until(lambda process=process: process.poll() is not None, 60, "the engine dies of the order")
            deaths += process.returncode == -signal.SIGKILL
    assert deaths == 3
    with engine(server.url, folder, "poison") as process:
        await until(lambda: depth(server.url, DEAD), 60, "the order is buried")
        await until(lambda: _count(folder) == 59, 60, "the others are executed")
        assert process.poll() is None
        await push(server.url, [place("after")])
        await until(lambda: _count(folder) == 60, 20, "orders flow")
    (found,) = await dead_letters(server.url)
    kept = properties_of(found)
    assert reasons([found]) == ["Poisoned"]
    assert kept["headers"]["x-attempts"] == 3
    assert (kept["message_id"], kept["priority"]) == ("m", 2)
    assert msgspec.json.decode(found.body) == place("poison", orderQty=1)
    assert accepted(folder) == [*(name for name in names if name != "o30"), "after"]
    assert await left(server.url) == [0, 0, 0, 0]
