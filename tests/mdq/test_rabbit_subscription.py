"""Deliveries of a channel that the test plays; against the real server: tests/contract."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

from aiormq.exceptions import ChannelInvalidStateError

from mdq.batch import Batch
from mdq.broker import BrokerUnavailable, Delivery
from mdq.rabbit_subscription import RabbitSubscription

BATCH = Batch("s", 0, "trades", 0, "e", 0, 1, 0, 0, 0, b"[1]")


class Channel:
    """The channel's side: remembers what was acknowledged."""

    def __init__(self) -> None:
        self.closing: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.on_consumer_cancel_callbacks: set[Any] = set()
        self.acked: list[tuple[int, bool]] = []
        self.lost = False

    async def basic_ack(self, tag: int, multiple: bool = False, wait: bool = True) -> None:
        if self.lost:
            raise ChannelInvalidStateError("closed")
        self.acked.append((tag, multiple))

    async def close(self) -> None:
        if not self.closing.done():
            self.closing.set_result(None)


def message(tag: int, headers: dict[str, Any] | None = None, body: bytes = BATCH.body) -> Any:
    properties = SimpleNamespace(headers=BATCH.headers() if headers is None else headers)
    return SimpleNamespace(delivery_tag=tag, body=body, redelivered=False, header=SimpleNamespace(properties=properties))


def subscription(channel: Channel, got: list[Any], bad: list[Any]) -> RabbitSubscription:
    made = RabbitSubscription(got.append, lambda body, reason: bad.append((body, reason)))
    made.attach(channel)  # type: ignore[arg-type]
    return made


async def test_a_tag_is_acknowledged_once() -> None:
    """RabbitMQ closes the channel when a tag comes twice; repeated and older tags are not sent."""
    channel = Channel()
    got: list[Any] = []
    bad: list[Any] = []
    made = subscription(channel, got, bad)
    for tag in (3, 3, 2, 5):
        await made.ack(tag)
    assert channel.acked == [(3, True), (5, True)]


async def test_a_message_that_is_no_batch_is_acknowledged_alone() -> None:
    """Malformed messages go aside; what was delivered before them stays unacknowledged."""
    channel = Channel()
    got: list[Any] = []
    bad: list[Any] = []
    made = subscription(channel, got, bad)
    await made._on_message(message(1))
    await made._on_message(message(2, headers={}, body=b"rubbish"))
    assert got == [Delivery(BATCH, 1, False)]
    assert bad[0][0] == b"rubbish"
    assert channel.acked == [(2, False)]


async def test_a_defect_in_the_consumer_is_reported() -> None:
    """An exception of the callback reaches the loop's handler instead of vanishing in the library."""
    reported: list[Any] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: reported.append(context["exception"]))
    made = RabbitSubscription(lambda delivery: 1 / 0, lambda *_: None)  # type: ignore[arg-type, return-value]
    made.attach(Channel())  # type: ignore[arg-type]
    await made._on_message(message(1))
    assert [type(error) for error in reported] == [ZeroDivisionError]


async def test_a_lost_channel_ends_the_subscription() -> None:
    """After the loss nothing is delivered and nothing can be acknowledged."""
    channel = Channel()
    got: list[Any] = []
    bad: list[Any] = []
    made = subscription(channel, got, bad)
    channel.closing.set_result(None)
    await asyncio.sleep(0)
    assert not made.live
    await made._on_message(message(1))
    assert got == []
    outcome = await asyncio.gather(made.ack(1), return_exceptions=True)
    assert isinstance(outcome[0], BrokerUnavailable)


async def test_a_channel_lost_during_the_acknowledgement_is_unavailability() -> None:
    """The consumer learns that its acknowledgement may not have arrived."""
    channel = Channel()
    got: list[Any] = []
    bad: list[Any] = []
    made = subscription(channel, got, bad)
    channel.lost = True
    outcome = await asyncio.gather(made.ack(1), return_exceptions=True)
    assert isinstance(outcome[0], BrokerUnavailable)
