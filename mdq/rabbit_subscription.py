"""Turns the deliveries of one AMQP channel into callbacks, and acknowledges them: what one consumer holds of its queues.

Invariant: once it has ended nothing is delivered any more and nothing can be acknowledged.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence

from aio_pika.abc import AbstractConnection
from aiormq.abc import AbstractChannel, DeliveredMessage
from pamqp.commands import Basic

from mdq.batch import MalformedBatch, from_message
from mdq.broker import BrokerUnavailable, Delivery, OnDelivery, OnMalformed
from mdq.rabbit_calls import broker_errors, close_channel, in_time, message_channel
from mdq.topology import Queue


class RabbitSubscription:
    """The queues one consumer reads together on a channel of its own; its tags are the channel's delivery tags."""

    def __init__(self, on_delivery: OnDelivery, on_malformed: OnMalformed) -> None:
        self._live = True
        self._channel: AbstractChannel | None = None
        self._on_delivery = on_delivery
        self._on_malformed = on_malformed
        self._consumers: list[str] = []
        self._acked = 0
        self._acking = asyncio.Lock()

    @property
    def live(self) -> bool:
        return self._live

    async def open(self, connection: AbstractConnection, queues: Sequence[Queue], prefetch: int) -> None:
        """Begin to read `queues`, one after the other, unless it is ended meanwhile.  Raises: BrokerUnavailable."""
        with broker_errors():
            channel = await message_channel(connection)
            self.attach(channel)
            try:
                await in_time(channel.basic_qos(prefetch_count=prefetch))  # per consumer: RabbitMQ 4.x has no other kind
                for queue in queues:
                    if self._live:
                        answer = await in_time(channel.basic_consume(queue.name, self._on_message))
                        self._consumers.append(str(answer.consumer_tag))
            except BaseException:
                await self.close()  # else the queues it did get would have a consumer that nobody reads
                raise

    def attach(self, channel: AbstractChannel) -> None:
        """Live and end with `channel`."""
        self._channel = channel
        channel.closing.add_done_callback(lambda _: self.end())
        channel.on_consumer_cancel_callbacks.add(self._on_cancelled)

    async def ack(self, tag: int) -> None:
        if not self._live or self._channel is None:
            raise BrokerUnavailable("the subscription has ended; what it held is redelivered")
        async with self._acking:  # else a newer one may overtake this one on its way to the socket
            if tag <= self._acked:
                return  # RabbitMQ closes the channel when a tag is acknowledged twice
            with broker_errors():
                await self._channel.basic_ack(tag, multiple=True, wait=False)
            self._acked = tag

    async def pause(self) -> None:
        while self._consumers and self._live and self._channel is not None:
            with contextlib.suppress(BrokerUnavailable), broker_errors():
                await in_time(self._channel.basic_cancel(self._consumers.pop()))

    async def close(self) -> None:
        self.end()
        if self._channel is not None:
            await close_channel(self._channel)

    def end(self) -> None:
        """Deliver nothing more: the channel or the connection under it is lost, or nobody wants it any more."""
        self._live = False

    async def _on_message(self, message: DeliveredMessage) -> None:
        tag = message.delivery_tag
        if not self._live or tag is None or self._channel is None:
            return
        try:
            batch = from_message(message.header.properties.headers or {}, message.body)
        except MalformedBatch as error:
            await self._channel.basic_ack(tag, wait=False)
            self._on_malformed(message.body, str(error))
            return
        try:
            self._on_delivery(Delivery(batch, tag, bool(message.redelivered)))
        except Exception as error:  # a defect of the consumer: reported as any callback of the loop, not swallowed by aiormq
            asyncio.get_running_loop().call_exception_handler({"message": "on_delivery failed", "exception": error})

    async def _on_cancelled(self, _: Basic.Cancel) -> None:
        # The queue was deleted or its node went away. The others of the channel may go on, but a partition is read as a whole.
        await self.close()
