"""Opens connections and channels of aio-pika, and turns what goes wrong with them into our own errors, in time.

What only the operator can mend is told from what passes by itself. Connections and topology are aio-pika's (the plain
connection, not the robust one: a loss must be seen at once); messages go over channels of aiormq, the layer below it in the
same connection, because the message objects of aio-pika cost a fifth of a publish and two thirds of a delivery (README).
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import Awaitable, Iterator
from typing import TypeVar, cast

import aio_pika
import aiormq
from aio_pika.abc import AbstractChannel, AbstractConnection
from aiormq.exceptions import (
    AMQPError,
    AuthenticationError,
    ChannelAccessRefused,
    ChannelPreconditionFailed,
    ConnectionNotAllowed,
    InvalidFrameError,
    ProbableAuthenticationError,
)
from yarl import URL

from mdq.broker import BrokerUnavailable
from mdq.topology import EXCHANGE, Queue, other_arguments
from service.errors import OperatorError

CONNECT_S = 10.0
CALL_S = 10.0  # declare, consume, cancel: far above what a healthy node needs
CLOSE_S = 2.0
DEPENDENCY = 3  # exit code

T = TypeVar("T")


async def in_time(call: Awaitable[T]) -> T:
    """Await an AMQP call, at most 10 s: a hung node must not hang us.  Raises: TimeoutError."""
    async with asyncio.timeout(CALL_S):
        return await call


@contextlib.contextmanager
def broker_errors() -> Iterator[None]:
    """Turn every way in which aiormq reports a lost connection into BrokerUnavailable."""
    try:
        yield
    except BrokerUnavailable:
        raise
    except StopAsyncIteration:  # aiormq's word for a connection that ends while it is being opened
        raise BrokerUnavailable("RabbitMQ: the connection ended while it was being opened") from None
    except (AMQPError, OSError, RuntimeError) as error:  # RuntimeError: aiormq's word for "already closed"
        raise BrokerUnavailable(f"RabbitMQ: {reason_of(error)}") from None
    except asyncio.CancelledError:
        task = asyncio.current_task()
        if task is not None and task.cancelling():
            raise  # somebody cancels us
        raise BrokerUnavailable("RabbitMQ: connection lost") from None  # aiormq cancels what waits on a lost connection


async def connect(url: URL, seconds: float = CONNECT_S) -> AbstractConnection:
    """Open a connection in at most `seconds`.  Raises: OperatorError for a refusal, BrokerUnavailable."""
    try:
        async with asyncio.timeout(seconds):
            return await aio_pika.connect(url)
    except BaseException as error:
        if refusal := refusal_of_connect(error, url):
            raise refusal from None
        with broker_errors():
            raise
        raise


async def topology_channel(connection: AbstractConnection) -> AbstractChannel:
    """Open a channel for declarations."""
    return await in_time(_initialized(connection.channel(publisher_confirms=False)))


async def _initialized(channel: AbstractChannel) -> AbstractChannel:
    await channel.initialize()
    return channel


async def message_channel(connection: AbstractConnection, confirms: bool = False) -> aiormq.Channel:
    """Open a channel for messages.

    Its buffer of frames has no bound of its own: what the node sends is bounded already, by the prefetch and by the window of
    unconfirmed batches. With a bound a channel that is given up in the middle of a call, its frames read by nobody any more,
    would fill it and stop the whole connection.
    """
    if connection.transport is None:
        raise BrokerUnavailable("RabbitMQ: closed")
    opened = await in_time(connection.transport.connection.channel(publisher_confirms=confirms, frame_buffer_size=0))
    return cast(aiormq.Channel, opened)


async def close_channel(channel: AbstractChannel | aiormq.abc.AbstractChannel) -> None:
    """Close a channel; a dead connection is no reason to wait or to complain."""
    with contextlib.suppress(AMQPError, OSError, RuntimeError):
        async with asyncio.timeout(CLOSE_S):
            await channel.close()


async def close_connection(connection: AbstractConnection) -> None:
    """Close a connection; a dead one is no reason to wait or to complain.

    Below aio-pika: its own `close`, when it is cut short, waits on without a limit for what a hung node never sends.
    """
    transport, connection.transport = connection.transport, None
    if transport is None:
        return
    with contextlib.suppress(AMQPError, OSError, RuntimeError):
        async with asyncio.timeout(CLOSE_S):
            await transport.connection.close()


def place(url: URL) -> str:
    """Return host, port and vhost (when not the default one) of an AMQP URL: what may be shown."""
    vhost = url.path.lstrip("/")
    return f"{url.host}:{url.port or (5671 if url.scheme == 'amqps' else 5672)}" + (f"/{vhost}" if vhost else "")


def reason_of(error: BaseException | None) -> str:
    """Return an AMQP error in words."""
    if error is None:
        return "closed"
    words = [str(part) for part in error.args if part not in (None, "")]
    return ": ".join(words) or type(error).__name__


def refusal_of_connect(error: BaseException, url: URL) -> OperatorError | None:
    """Return what the operator must mend when a connection was refused for good; None when trying again may help."""
    where = f"RabbitMQ at {place(url)}"
    if isinstance(error, OperatorError):
        return error
    if isinstance(error, (ProbableAuthenticationError, AuthenticationError)):
        fix = "Correct user and password in MDQ_URL (the user guest may connect from the node's own machine only)"
        return OperatorError(f"{where} refused the credentials of user {url.user or 'guest'!r}", fix, DEPENDENCY)
    # aiormq reports the node's refusal of a vhost as an unexpected frame in answer to Connection.Open.
    if isinstance(error, ConnectionNotAllowed) or (isinstance(error, InvalidFrameError) and "Connection.OpenOk" in str(error)):
        fix = "Create the vhost and give the user permissions (rabbitmqctl add_vhost, set_permissions), or correct MDQ_URL"
        return OperatorError(f"{where} refused the vhost: it does not exist or is not open to the user", fix, DEPENDENCY)
    if isinstance(error, OSError) and any(word in str(error) for word in ("CERTIFICATE_VERIFY_FAILED", "WRONG_VERSION_NUMBER")):
        fix = "Use the TLS port (5671) and a trusted certificate (?cafile=/path/ca.pem), or amqp:// where TLS is not wanted"
        return OperatorError(f"{where}: TLS failed: {reason_of(error)}", fix, DEPENDENCY)
    if isinstance(error, (FileNotFoundError, ssl.SSLError)):
        return OperatorError(f"{where}: TLS files: {error}", "Correct cafile, certfile and keyfile in MDQ_URL")
    return None


def refusal_of_declare(error: AMQPError, queue: Queue | None) -> OperatorError | None:
    """Return what the operator must mend when declaring `queue` (None: the exchange) was refused; None when it may pass."""
    if isinstance(error, ChannelPreconditionFailed):
        if queue is not None:
            return other_arguments(queue, reason_of(error))
        fix = "Delete it or use a vhost of its own in MDQ_URL"
        return OperatorError(f"exchange {EXCHANGE} exists with another type ({reason_of(error)})", fix, DEPENDENCY)
    if isinstance(error, ChannelAccessRefused):
        fix = "Give the user configure, write and read permission on ^md(\\..*)?$ (rabbitmqctl set_permissions)"
        return OperatorError(f"RabbitMQ refused to declare the queues: {reason_of(error)}", fix, DEPENDENCY)
    return None
