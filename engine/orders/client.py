"""Sends a program's order messages until the broker confirms them, and returns the engine's answers.

A message is sent again, with the same message id, until the broker has confirmed it: the engine knows it again. Messages of
concurrent `send` calls keep their order as long as the connection lasts; who needs more awaits one before the next.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, Self
from uuid import uuid4

import aiormq
import msgspec
from aiormq.abc import DeliveredMessage
from pamqp.commands import Basic
from pamqp.common import FieldTable

from engine.orders.message import KEY
from engine.orders.topology import BOUND, DEAD_EXCHANGE, ORDERS, QUEUES
from engine.risk.rules import URL_SETTING
from mdq.broker import BrokerUnavailable
from mdq.rabbit_calls import broker_errors, in_time
from mdq.rabbit_link import RabbitLink, Wire, publish, text
from service.clock import Clock, SystemClock

REPLY_TO = "amq.rabbitmq.reply-to"  # RabbitMQ's own queue of answers to this channel
AGAIN_S = 0.05
TIMEOUT_S = 30.0

_ENCODER = msgspec.json.Encoder()


class OrdersClient:
    """Sends order messages; `async with` connects and disconnects."""

    def __init__(self, url: str, name: str = "tapeline-orders-client", clock: Clock | None = None, key: str = "") -> None:
        """`key` is shown with every message; an exchange that trusts its broker's users needs none."""
        self._link = RabbitLink(url, name, self._serve, URL_SETTING)
        self._clock = clock or SystemClock()
        self._headers: FieldTable = {KEY: key} if key else {}
        self._channel: aiormq.Channel | None = None
        self._open = asyncio.Event()
        self._asked: dict[str, asyncio.Future[dict[str, Any]]] = {}

    async def __aenter__(self) -> Self:
        self._link.start()
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        await self._link.close()

    async def send(
        self, body: Mapping[str, Any] | bytes, priority: int = 0, time_to_live_ms: int | None = None, message_id: str = "",
        timeout_s: float = TIMEOUT_S,
    ) -> None:  # fmt: skip
        """Return when the broker has the message on its disk. `priority` is 0 to 10, the higher the sooner.

        Raises: TimeoutError; the message may be there all the same.
        """
        async with asyncio.timeout(timeout_s):
            await self._send(body, self._properties(priority, time_to_live_ms, message_id))

    async def ask(
        self, body: Mapping[str, Any] | bytes, priority: int = 0, time_to_live_ms: int | None = None, timeout_s: float = TIMEOUT_S
    ) -> dict[str, Any]:
        """Return the engine's answer: the order, or a problem with `status` and `code`.  Raises: TimeoutError."""
        properties = self._properties(priority, time_to_live_ms, "")
        properties.reply_to, properties.correlation_id = REPLY_TO, properties.message_id
        future = self._asked[text(properties.message_id)] = asyncio.get_running_loop().create_future()
        try:
            async with asyncio.timeout(timeout_s):
                await self._send(body, properties)
                answer: dict[str, Any] = await future
                return answer
        finally:
            del self._asked[text(properties.message_id)]

    def _properties(self, priority: int, time_to_live_ms: int | None, message_id: str) -> Basic.Properties:
        return Basic.Properties(
            content_type="application/json",
            headers=self._headers or None,
            delivery_mode=2,
            priority=priority or None,
            expiration=None if time_to_live_ms is None else str(time_to_live_ms),
            message_id=message_id or uuid4().hex,
            timestamp=datetime.fromtimestamp(self._clock.wall_ns() // 10**9, UTC),
        )

    async def _send(self, body: Mapping[str, Any] | bytes, properties: Basic.Properties) -> None:
        encoded = body if isinstance(body, bytes) else _ENCODER.encode(body)
        while True:
            await self._open.wait()
            assert self._channel is not None
            try:
                await publish(self._channel, encoded, properties, ORDERS)
                return
            except BrokerUnavailable:  # away, or the queue is full
                await asyncio.sleep(AGAIN_S)

    async def _serve(self, wire: Wire) -> None:
        await wire.declare(QUEUES, DEAD_EXCHANGE, BOUND)
        channel = await wire.channel(confirms=True)
        with broker_errors():
            await in_time(channel.basic_consume(REPLY_TO, self._on_answer, no_ack=True))
        self._channel = channel
        self._open.set()
        wire.ready = True
        try:
            await wire.lost
        finally:
            self._open.clear()

    async def _on_answer(self, message: DeliveredMessage) -> None:
        future = self._asked.get(text(message.header.properties.correlation_id))
        if future is not None and not future.done():
            future.set_result(msgspec.json.decode(message.body))
