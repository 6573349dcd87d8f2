"""Answers over a real RabbitMQ: to whom they go, what an outage and a broken address cost."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import msgspec
import pytest
from pamqp.commands import Basic

from engine.orders import answers as orders_answers
from engine.orders.answers import Answers
from engine.orders.topology import ORDERS
from tests.engine.orders.ground import dead_letters, declare, delete, depth, with_channel
from tests.servers import RabbitMQ
from tests.waiting import until

pytestmark = pytest.mark.live
TO = "answers.test"


@pytest.fixture
async def url(rabbitmq_server: RabbitMQ) -> AsyncIterator[str]:
    """A RabbitMQ that may be restarted, with a queue of answers."""
    url = rabbitmq_server.url
    await delete(url)
    await declare(url)
    await with_channel(url, lambda channel: channel.queue_declare(TO, durable=True))
    yield url
    await delete(url, [TO])


def asked(number: int, to: str = TO) -> Basic.Properties:
    return Basic.Properties(reply_to=to, correlation_id=str(number))


async def received(url: str) -> list[int]:
    """Return the numbers of the answers that are there, and take them away."""
    found = await dead_letters(url, TO)
    assert all(msgspec.json.decode(message.body) == {"n": int(message.header.properties.correlation_id)} for message in found)
    return [msgspec.json.decode(message.body)["n"] for message in found]


async def test_answers_go_to_who_asked(url: str) -> None:
    """In order, with the correlation id; nobody asked, nobody is answered; closing sends what waits."""
    answers = Answers(url)
    answers.start()
    await until(lambda: answers._link.ready, 10)
    answers.post(Basic.Properties(), {"n": 0})
    answers.post(asked(0, ORDERS), {"n": 0})
    for number in range(1, 101):
        answers.post(asked(number), {"n": number})
    await answers.close()
    assert await received(url) == list(range(1, 101))
    assert await depth(url, ORDERS) == 0, "the order queue is no place for answers"


async def test_answers_wait_for_the_broker_up_to_a_bound(
    url: str, rabbitmq_server: RabbitMQ, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is posted during an outage is sent after it, the newest of it when it is too much."""
    monkeypatch.setattr(orders_answers, "WAITING_MAX", 50)
    answers = Answers(url)
    answers.start()
    await until(lambda: answers._link.ready, 10)
    await asyncio.to_thread(rabbitmq_server.stop)
    await until(lambda: not answers._link.ready, 10)
    for number in range(80):
        answers.post(asked(number), {"n": number})
    await asyncio.to_thread(rabbitmq_server.start)
    await until(lambda: depth(url, TO), 20)
    await answers.close()
    assert await received(url) == list(range(30, 80))


async def test_a_broken_address_costs_no_more_than_the_answers_next_to_it(url: str) -> None:
    """RabbitMQ ends the connection over it; it is not tried again, and later answers arrive."""
    answers = Answers(url)
    answers.start()
    await until(lambda: answers._link.ready, 10)
    answers.post(asked(0, "amq.rabbitmq.reply-to.broken"), {"n": 0})
    await until(lambda: not answers._waiting, 10)
    got: list[int] = []
    for number in range(1, 200):
        answers.post(asked(number), {"n": number})
        got += await received(url)
        if got:
            break
        await asyncio.sleep(0.05)
    assert got
    await answers.close()
