"""Keeps an AMQP connection open and a coroutine serving it: a new connection, and the same coroutine again, after each loss.

What is served declares what it needs, every time: a broker may come back empty. Losing a connection is ordinary: it ends the
serving, not the component; pauses grow to a second. A refusal (credentials, a queue with other arguments) may pass too, when
an operator mends it, so it is tried again and said in `fault` and in the log.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import aiormq
import structlog
from aio_pika.abc import AbstractConnection
from aiormq.exceptions import AMQPError, ChannelAccessRefused, ChannelPreconditionFailed
from pamqp.commands import Basic

from mdq.broker import BrokerUnavailable
from mdq.rabbit_calls import (
    DEPENDENCY,
    broker_errors,
    close_channel,
    close_connection,
    in_time,
    message_channel,
    reason_of,
    topology_channel,
)
from mdq.rabbit_nodes import Nodes
from service.errors import OperatorError
from service.run import backoff_s

HEARTBEAT_S = 5  # both sides; a peer that is silent for three of them is gone
CONFIRM_S = 10.0
RECONNECT_S_MAX = 1.0
LASTED_S = 2.0
ANSWER_MS = "60000"  # an answer that nobody has fetched by then is not waited for

log = structlog.get_logger()


class Wire:
    """One connection from its opening to its loss."""

    def __init__(self, connection: AbstractConnection, setting: str) -> None:
        self._connection = connection
        self._setting = setting
        self.lost: asyncio.Future[str] = asyncio.get_running_loop().create_future()  # the reason
        self.ready = False
        connection.close_callbacks.add(lambda _, error: self.lose(reason_of(error)))

    async def channel(self, prefetch: int = 0, confirms: bool = False) -> aiormq.Channel:
        """Open a channel; when it is closed the wire counts as lost.  Raises: BrokerUnavailable."""
        with broker_errors():
            channel = await message_channel(self._connection, confirms)
            channel.closing.add_done_callback(self._closed)
            channel.on_consumer_cancel_callbacks.add(self._cancelled)
            if prefetch:
                await in_time(channel.basic_qos(prefetch_count=prefetch))
        return channel

    async def declare(self, queues: Mapping[str, Mapping[str, Any]], exchange: str = "", bound: tuple[str, ...] = ()) -> None:
        """Declare durable queues, and a direct exchange with some of them bound under their own names.

        Raises: BrokerUnavailable; OperatorError when the broker refuses.
        """
        what = exchange
        with broker_errors():
            channel = await topology_channel(self._connection)
            try:
                if exchange:
                    await in_time(channel.declare_exchange(exchange, "direct", durable=True))
                for what, arguments in queues.items():
                    declared = await in_time(channel.declare_queue(what, durable=True, arguments=dict(arguments)))
                    if what in bound:
                        await in_time(declared.bind(exchange, what))
            except AMQPError as error:
                if refusal := _refusal(error, what, self._setting):
                    raise refusal from None
                raise
            finally:
                await close_channel(channel)

    def lose(self, reason: str) -> None:
        """Give the connection up; whoever serves it ends."""
        self.ready = False
        if not self.lost.done():
            self.lost.set_result(reason)

    async def close(self) -> None:
        """Close it, at most 2 s."""
        self.lose("closed")
        await close_connection(self._connection)

    def _closed(self, closing: asyncio.Future[None]) -> None:
        self.lose("cancelled" if closing.cancelled() else reason_of(closing.exception()))

    def _cancelled(self, _: Basic.Cancel) -> None:
        self.lose("the broker has cancelled a consumer: its queue was deleted or its node went away")


Serve = Callable[[Wire], Awaitable[None]]
UNREADABLE = "x-unreadable"  # the only header of a message whose own properties cannot be decoded: why not


def survive_bad_properties() -> None:
    """Let a message with properties that cannot be decoded (a time in ns, Latin-1 text) arrive, marked UNREADABLE.

    Without this the client library ends the connection over it, the message comes again, and the queue stands still for ever.
    """
    decode = Basic.Properties.unmarshal
    if getattr(decode, "survives", False):
        return

    def unmarshal(properties: Basic.Properties, flags: int, data: bytes) -> None:
        try:
            decode(properties, flags, data)
        except Exception as error:  # ValueError, UnicodeDecodeError, OverflowError, struct.error, IndexError …
            for name in properties.__slots__:
                setattr(properties, name, None)
            properties.headers = {UNREADABLE: repr(error)[:500]}

    unmarshal.survives = True  # type: ignore[attr-defined]
    Basic.Properties.unmarshal = unmarshal  # type: ignore[method-assign, assignment]


class RabbitLink:
    """Keeps a connection open and `serve(wire)` running on it. `serve` returns only when it is asked to end.

    `name` is what the broker shows; `setting` is the setting that holds the URL, for the words of a fault.
    """

    def __init__(self, url: str, name: str, serve: Serve, setting: str = "MDQ_URL") -> None:
        self._nodes = Nodes(url, name, HEARTBEAT_S, setting)
        self._name = name
        self._serve = serve
        self._setting = setting
        self._wire: Wire | None = None
        self._keeper: asyncio.Task[None] | None = None
        self._fault = "not connected yet"
        survive_bad_properties()
        logging.getLogger("aiormq").setLevel(logging.CRITICAL)  # every loss is one line here, not tracebacks there

    @property
    def ready(self) -> bool:
        """Whether the connection is open and served."""
        return self._wire is not None and self._wire.ready

    @property
    def fault(self) -> str:
        """In words why it is not ready; empty while it is."""
        return "" if self.ready else self._fault

    def start(self) -> None:
        """Begin to connect."""
        if self._keeper is None:
            self._keeper = asyncio.get_running_loop().create_task(self._keep())

    async def finished(self) -> None:
        """Wait until `serve` has returned, which it does when its owner asks it to."""
        if self._keeper is not None:
            with contextlib.suppress(asyncio.CancelledError):
                await self._keeper

    async def close(self) -> None:
        """Stop serving and close the connection."""
        if self._keeper is not None:
            self._keeper.cancel()
            await self.finished()
            self._keeper = None

    async def _keep(self) -> None:
        attempt, loop = 0, asyncio.get_running_loop()
        while True:
            opened_s = loop.time()
            try:
                wire = self._wire = await self._open()
                served = await self._serve_until_lost(wire)
                if served is None:
                    return
                log.warning("broker_lost", link=self._name, broker=self._nodes.place, reason=served)
                self._fault = f"RabbitMQ at {self._nodes.place} is away: {served}"
                if loop.time() - opened_s > LASTED_S:  # else something ends every connection, and must not do so all the time
                    attempt = 0
            except (OSError, OperatorError) as error:
                away = f"RabbitMQ at {self._nodes.place} is away: {reason_of(error)}"
                self._fault = str(error) if isinstance(error, OperatorError) else away
                if attempt & (attempt - 1) == 0:  # the 1st, 2nd, 3rd, 5th, 9th …: a long outage must not fill the log
                    log.warning("broker_connect_failed", link=self._name, attempt=attempt + 1, error=str(error))
            finally:
                if self._wire is not None:
                    await self._wire.close()
                    self._wire = None
            await asyncio.sleep(backoff_s(attempt, random.random(), most_s=RECONNECT_S_MAX))
            attempt += 1

    async def _open(self) -> Wire:
        try:
            return Wire(await self._nodes.connect(), self._setting)
        except OperatorError as refusal:
            fix = refusal.fix.replace("MDQ_URL", self._setting)
            raise OperatorError(refusal.what, fix, refusal.exit_code) from None

    async def _serve_until_lost(self, wire: Wire) -> str | None:
        """Return why the wire was lost, or None when `serve` has ended by itself."""
        serving: asyncio.Future[Any] = asyncio.ensure_future(self._serve(wire))
        try:
            await asyncio.wait([serving, wire.lost], return_when=asyncio.FIRST_COMPLETED)
        finally:
            if not serving.done():
                serving.cancel()
                await asyncio.wait({serving})
        if wire.lost.done() and (serving.cancelled() or serving.exception() is None):
            return wire.lost.result()
        try:
            serving.result()
        except BrokerUnavailable as error:
            return wire.lost.result() if wire.lost.done() else str(error)
        except OperatorError:
            raise
        except Exception as error:  # a defect of ours: what it held comes again, and is counted as an attempt
            log.exception("serving_failed", link=self._name)
            return f"serving failed: {error!r}"
        return None


async def publish(
    channel: aiormq.Channel, body: bytes, properties: Basic.Properties, routing_key: str, exchange: str = ""
) -> None:
    """Publish to a queue that must be there and wait for the confirmation (at most 10 s).  Raises: BrokerUnavailable."""
    try:
        with broker_errors():
            async with asyncio.timeout(CONFIRM_S):
                await channel.basic_publish(
                    body, exchange=exchange, routing_key=routing_key, properties=properties, mandatory=True, wait=False
                )
    except BrokerUnavailable as error:
        raise BrokerUnavailable(f"{routing_key}: {error}") from None


async def answer(channel: aiormq.Channel, asked: Basic.Properties, body: bytes) -> None:
    """Send the answer to a message that has a `reply_to`, without waiting: who is not there any more gets none.

    Raises: BrokerUnavailable.
    """
    if not asked.reply_to:
        return
    properties = Basic.Properties(
        content_type="application/json", correlation_id=asked.correlation_id, delivery_mode=1, expiration=ANSWER_MS
    )
    with broker_errors():
        await channel.basic_publish(body, routing_key=text(asked.reply_to), properties=properties, wait=False)


def text(value: str | bytes | None) -> str:
    """Return a property as text."""
    return value.decode(errors="replace") if isinstance(value, bytes) else value or ""


def _refusal(error: AMQPError, what: str, setting: str) -> OperatorError | None:
    if isinstance(error, ChannelPreconditionFailed):
        fix = f"Delete it (rabbitmqctl delete_queue {what}) or use a vhost of its own in {setting}"
        return OperatorError(f"{what} exists with other arguments ({reason_of(error)})", fix, DEPENDENCY)
    if isinstance(error, ChannelAccessRefused):
        fix = f"Give the user of {setting} configure, write and read permission on {what} (rabbitmqctl set_permissions)"
        return OperatorError(f"RabbitMQ refused to declare {what}: {reason_of(error)}", fix, DEPENDENCY)
    return None
