"""Dead orders are seen, given back and discarded over the admin port, on a real RabbitMQ."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from engine.access.keys import KeyRing
from engine.access.register import Register
from engine.orders.consumer import OrdersQueue
from engine.orders.message import KEY
from engine.orders.recall import DeadLetters, routes
from engine.orders.requeued import Requeued
from engine.orders.topology import DEAD
from service.admin import AdminServer
from tests.engine.orders.ground import accepted, dead_letters, declare, delete, depth, exchange, place, push
from tests.servers import free_port
from tests.waiting import until

pytestmark = pytest.mark.live
REASONS = {"x-reason": "Unauthorized", "x-detail": "no key", "x-at": "2026-01-01T00:00:00.000Z", "x-attempts": 2}


@pytest.fixture
async def url(rabbitmq_url: str) -> AsyncIterator[str]:
    """The session's RabbitMQ with empty queues of orders."""
    await delete(rabbitmq_url)
    await declare(rabbitmq_url)
    yield rabbitmq_url
    await delete(rabbitmq_url)


@pytest.fixture
async def port(url: str) -> AsyncIterator[httpx.AsyncClient]:
    """The admin port with its routes of dead letters."""
    admin = AdminServer("engine", "127.0.0.1", 0, "sesame", list, routes(DeadLetters(url, Requeued(b"secret"))))
    await admin.start()
    address, headers = f"http://127.0.0.1:{admin.port}", {"Authorization": "Bearer sesame"}
    async with httpx.AsyncClient(base_url=address, headers=headers, timeout=20) as client:
        yield client
    await admin.stop()


async def test_looking_changes_nothing(url: str, port: httpx.AsyncClient) -> None:
    """The same letters, with the same names, in the same order, however often, also for two who look at once."""
    await push(url, [place("a"), place("b"), b"\xff no JSON"], DEAD, headers=REASONS, message_id="m")
    first = (await port.get("/dead-letters")).json()
    again = await asyncio.gather(*(port.get("/dead-letters") for _ in range(3)))
    assert [one.json()["letters"] for one in again] == [first["letters"]] * 3
    assert [one["reason"] for one in first["letters"]] == ["Unauthorized"] * 3
    assert first["letters"][0]["attempts"] == 2
    assert '"clOrdID": "a"' in first["letters"][0]["body"]
    assert len((await port.get("/dead-letters?limit=2")).json()["letters"]) == 2
    await until(lambda: _is(depth(url, DEAD), 3))
    assert (await port.get("/dead-letters", headers={"Authorization": "x"})).status_code == 401


async def test_an_order_that_is_given_back_is_executed(url: str, port: httpx.AsyncClient, tmp_path: Path) -> None:
    """Though it shows no key of its own; what else shows that stand-in is refused, and the others stay dead."""
    await push(url, [place("a"), place("b")], DEAD, headers=REASONS, message_id="m")
    register = Register()
    register.take(KeyRing([]), 1)
    sequencer = await exchange(tmp_path / "j", crowd=True)
    queue = OrdersQueue(url, sequencer, register=register, requeued=Requeued(b"secret"))
    queue.start()
    letters = (await port.get("/dead-letters")).json()["letters"]
    back = next(one for one in letters if '"b"' in one["body"])
    assert (await port.post(f"/dead-letters/{back['id']}/requeue")).json()["id"] == back["id"]
    await until(lambda: accepted(tmp_path / "j") == ["b"])
    await until(lambda: _is(depth(url, DEAD), 1))
    forged = Requeued(b"secret").key(b"another body")
    await push(url, [place("c")], headers={KEY: forged})
    await until(lambda: _is(depth(url, DEAD), 2))
    assert accepted(tmp_path / "j") == ["b"]
    assert (await port.post(f"/dead-letters/{back['id']}/requeue")).status_code == 404
    await queue.close()
    await sequencer.close()


async def test_discarding(url: str, port: httpx.AsyncClient) -> None:
    """One, and then all that are left."""
    await push(url, [place("a"), place("b"), place("c")], DEAD, headers=REASONS)
    letters = (await port.get("/dead-letters")).json()["letters"]
    assert (await port.delete(f"/dead-letters/{letters[1]['id']}")).status_code == 200
    await until(lambda: _is(depth(url, DEAD), 2))
    assert (await port.delete("/dead-letters")).json() == {"discarded": 2}
    assert await dead_letters(url) == []
    assert (await port.delete(f"/dead-letters/{letters[1]['id']}")).status_code == 404


async def test_a_broker_that_is_away_is_a_503() -> None:
    """Within seconds, with what is wrong."""
    letters = DeadLetters(f"amqp://127.0.0.1:{free_port()}/", Requeued(b"x"))
    admin = AdminServer("engine", "127.0.0.1", 0, "sesame", list, routes(letters))
    await admin.start()
    async with httpx.AsyncClient(timeout=20) as client:
        address = f"http://127.0.0.1:{admin.port}/dead-letters"
        answer = await client.get(address, headers={"Authorization": "Bearer sesame"})
    assert answer.status_code == 503
    assert "RabbitMQ" in answer.text
    await admin.stop()


async def _is(work: object, wanted: int) -> bool:
    return await work == wanted  # type: ignore[misc]
