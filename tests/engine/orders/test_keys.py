"""Order messages show a key: whose account it is, who may move it, and what becomes of a stranger's message."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from engine.access.keys import KeyRing, Role, made, written
from engine.access.register import Register
from engine.core import events as ev
from engine.journal.reader import read
from engine.orders.client import OrdersClient
from engine.orders.consumer import OrdersQueue
from engine.orders.message import KEY
from tests.engine.orders.ground import (
    CROWD,
    POOR,
    RICH,
    accepted,
    dead_letters,
    declare,
    delete,
    desk,
    exchange,
    place,
    push,
    reasons,
)
from tests.waiting import until

pytestmark = pytest.mark.live

NOW = 1_700_000_000 * 10**9
SECRETS = {"traderaa": "aa" * 32, "operator": "bb" * 32}
KEYS = [
    made("traderaa", SECRETS["traderaa"], NOW, Role.TRADER, accounts=((RICH, RICH),)),
    made("operator", SECRETS["operator"], NOW, Role.OPERATOR),
]


@pytest.fixture
async def url(rabbitmq_url: str) -> AsyncIterator[str]:
    """The session's RabbitMQ with empty queues of orders."""
    await delete(rabbitmq_url)
    await declare(rabbitmq_url)
    yield rabbitmq_url
    await delete(rabbitmq_url)


def key(name: str) -> str:
    return written(name, SECRETS[name])


async def test_a_message_moves_what_its_key_may(url: str, tmp_path: Path) -> None:
    """Own accounts for a trader, INSURANCE for an operator; a stranger's message is a dead letter, without the key it showed."""
    register = Register()
    register.take(KeyRing(KEYS), NOW)
    sequencer = await exchange(tmp_path / "j", crowd=True)
    queue = OrdersQueue(url, sequencer, register=register)
    async with OrdersClient(url, key=key("traderaa")) as trader, OrdersClient(url, key=key("operator")) as operator:
        queue.start()
        assert (await trader.ask(place("mine")))["ordStatus"] == "New"
        foreign = await trader.ask(place("theirs", account=POOR))
        assert (foreign["status"], foreign["code"]) == (403, "ForeignAccount")
        assert (await trader.ask(place("house", account=0)))["status"] == 403
        assert (await operator.ask(place("any", account=CROWD[0])))["ordStatus"] == "New"
        async with OrdersClient(url) as stranger:
            unknown = await stranger.ask(place("nobody"))
            assert (unknown["status"], unknown["code"]) == (401, "Unauthorized")
        await push(url, [place("wrong")], headers={KEY: key("traderaa")[:-1] + "0"})
        await push(url, [place("number")], headers={KEY: 5})
        await until(lambda: queue.counts["Unauthorized"] == 3, 20)
        register.take(KeyRing(KEYS[1:]), NOW)
        assert (await trader.ask(place("withdrawn")))["status"] == 401
        await queue.close()
    await sequencer.close()
    assert accepted(tmp_path / "j") == ["mine", "any"]
    letters = await dead_letters(url)
    assert len(letters) == 6
    assert not any(KEY in (letter.header.properties.headers or {}) for letter in letters)
    assert sorted(reasons(letters)) == ["ForeignAccount"] * 2 + ["Unauthorized"] * 4
    senders = {
        event.sender for record in read(tmp_path / "j") for event in ev.decode(record.payload) if isinstance(event, ev.SentBy)
    }
    assert senders == {"engine", "traderaa", "operator"}


async def test_an_exchange_that_trusts_its_broker_says_so_in_the_journal(url: str, tmp_path: Path) -> None:
    """Whoever may write to the queue is an operator then, and the journal names the queue."""
    async with desk(url, tmp_path / "j") as (_, _, client):
        assert (await client.ask(place("a")))["ordStatus"] == "New"
    *_, last = read(tmp_path / "j")
    assert ev.decode(last.payload)[0] == ev.SentBy("queue")
