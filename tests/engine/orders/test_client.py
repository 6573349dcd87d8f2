"""The publisher of orders on a real RabbitMQ: confirmed, again until confirmed, answered."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from engine.orders.client import OrdersClient
from engine.orders.topology import ORDERS, QUEUES
from tests.engine.orders.ground import accepted, dead_letters, delete, depth, desk, place, places, properties_of
from tests.waiting import until

pytestmark = pytest.mark.live


@pytest.fixture
async def url(rabbitmq_url: str) -> AsyncIterator[str]:
    """The session's RabbitMQ without queues of orders."""
    await delete(rabbitmq_url)
    yield rabbitmq_url
    await delete(rabbitmq_url)


async def test_a_client_before_any_engine_has_a_place_for_its_orders(url: str) -> None:
    """It declares the queues itself; messages are persistent, with id, time and priority."""
    async with OrdersClient(url) as client:
        await client.send(place("a"), priority=7, time_to_live_ms=60_000, message_id="mine")
        await client.send(place("b"))
    first, second = await dead_letters(url, ORDERS)
    kept = properties_of(first)
    assert (kept["delivery_mode"], kept["priority"], kept["expiration"], kept["message_id"]) == (2, 7, "60000", "mine")
    assert kept["timestamp"]
    assert len(properties_of(second)["message_id"]) == 32


async def test_concurrent_messages_keep_their_order(url: str, tmp_path: Path) -> None:
    """Sent in one go, executed as sent."""
    messages = places(500)
    async with desk(url, tmp_path / "j") as (_, queue, client):
        await asyncio.gather(*[client.send(message) for message in messages])
        await until(lambda: queue.counts["done"] == 500, 20)
    assert accepted(tmp_path / "j") == [message["clOrdID"] for message in messages]


async def test_a_full_queue_refuses_and_takes_again_when_there_is_room(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The publisher feels it: its message is not confirmed. With an engine that reads, everything is executed once."""
    monkeypatch.setitem(QUEUES[ORDERS], "x-max-length-bytes", 2_000)
    messages = places(100)
    async with OrdersClient(url) as client:
        await client.send(messages[0])
        sending = asyncio.gather(*[client.send(message) for message in messages[1:]])
        await until(lambda: _holds(url), 10)
        with pytest.raises(TimeoutError):
            await client.send(place("late"), timeout_s=0.3)
        assert not sending.done()
        async with desk(url, tmp_path / "j") as (_, queue, _):
            async with asyncio.timeout(20):
                await sending
            await until(lambda: queue.counts["done"] >= 100, 20)
    assert sorted(accepted(tmp_path / "j")) == sorted(message["clOrdID"] for message in messages)


async def _holds(url: str) -> bool:
    return await depth(url) > 10


async def test_an_answer_that_does_not_come_is_a_timeout(url: str) -> None:
    """No engine, no answer; the message stays in the queue."""
    async with OrdersClient(url) as client:
        with pytest.raises(TimeoutError):
            await client.ask(place("a"), timeout_s=0.5)
    assert await depth(url) == 1
