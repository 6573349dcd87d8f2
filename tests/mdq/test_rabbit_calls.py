"""AMQP's ways to say no, in our words."""

from __future__ import annotations

import asyncio

import pytest
from aiormq.exceptions import (
    AMQPConnectionError,
    ChannelAccessRefused,
    ChannelClosed,
    ChannelInvalidStateError,
    ChannelPreconditionFailed,
    ProbableAuthenticationError,
)
from yarl import URL

from mdq.broker import BrokerUnavailable
from mdq.rabbit_calls import broker_errors, connect, in_time, place, reason_of, refusal_of_connect, refusal_of_declare
from mdq.topology import queue
from service.errors import OperatorError

MDQ = URL("amqp://ann:s3cret@mq.example/")


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("amqp://ann:s3cret@mq.example", "mq.example:5672"),
        ("amqp://mq.example/%2F", "mq.example:5672"),
        ("amqps://mq.example/prod", "mq.example:5671/prod"),
        ("amqp://mq.example:5999/prod", "mq.example:5999/prod"),
    ],
)
def test_the_place_of_a_broker_has_no_secrets(url: str, shown: str) -> None:
    """Logs and errors name host, port and vhost, never user or password."""
    assert place(URL(url)) == shown


@pytest.mark.parametrize(
    "error",
    [
        AMQPConnectionError("gone"),
        ConnectionResetError("gone"),
        ChannelInvalidStateError("closed"),
        RuntimeError("closed"),
        TimeoutError(),
        StopAsyncIteration(),
        asyncio.CancelledError(),
    ],
)
async def test_every_kind_of_loss_is_unavailability(error: BaseException) -> None:
    """However aiormq reports that the connection is lost, callers see one exception."""
    with pytest.raises(BrokerUnavailable), broker_errors():
        raise error


async def test_our_own_cancellation_passes() -> None:
    """Who cancels a call gets it cancelled: that is no loss of the connection."""

    async def call() -> None:
        with broker_errors():
            await asyncio.Event().wait()

    task = asyncio.create_task(call())
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_a_hung_call_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    """No call waits longer than its bound, however silent the node."""
    monkeypatch.setattr("mdq.rabbit_calls.CALL_S", 0.01)
    with pytest.raises(BrokerUnavailable), broker_errors():
        await in_time(asyncio.Event().wait())


@pytest.mark.parametrize("error", [AMQPConnectionError(111, "Connect call failed"), ChannelClosed(0, ""), TimeoutError()])
def test_what_may_pass_is_not_refused(error: BaseException) -> None:
    """An unreachable or busy node is worth another try."""
    assert refusal_of_connect(error, MDQ) is None


def test_refused_credentials_name_the_user() -> None:
    """The user is named, the password is not."""
    refusal = refusal_of_connect(ProbableAuthenticationError("ACCESS_REFUSED"), MDQ)
    assert refusal is not None
    assert "'ann'" in refusal.what
    assert "s3cret" not in str(refusal)
    assert refusal.exit_code == 3


def test_refused_declarations_say_what_to_do() -> None:
    """Other arguments and missing permissions are the operator's, anything else may pass."""
    other = refusal_of_declare(ChannelPreconditionFailed("PRECONDITION_FAILED - inequivalent arg"), queue("trades", 1))
    assert other is not None
    assert "inequivalent arg" in other.what
    exchange = refusal_of_declare(ChannelPreconditionFailed("PRECONDITION_FAILED"), None)
    assert exchange is not None
    assert "exchange md" in exchange.what
    denied = refusal_of_declare(ChannelAccessRefused("ACCESS_REFUSED"), queue("trades", 1))
    assert denied is not None
    assert "set_permissions" in denied.fix
    assert refusal_of_declare(ChannelClosed(504, "CHANNEL_ERROR"), queue("trades", 1)) is None


def test_an_error_without_words_has_its_name() -> None:
    """There is always something to read."""
    assert reason_of(TimeoutError()) == "TimeoutError"
    assert reason_of(AMQPConnectionError(111, "refused")) == "111: refused"
    assert reason_of(None) == "closed"


@pytest.mark.parametrize("greeting", [None, b"", b"\x01\x00", b"AMQP\x00\x00\x09\x01", b"HTTP/1.1 400 Bad Request\r\n\r\n"])
async def test_a_connection_that_ends_while_it_is_opened_is_an_outage(greeting: bytes | None) -> None:
    """Cut at once, in the middle of a frame, or by something that is no RabbitMQ: never an exception of aiormq's own."""

    async def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if greeting is not None:
            await reader.read(8)
            writer.write(greeting)
        writer.close()

    server = await asyncio.start_server(hang_up, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    for _ in range(10):  # whether the end is seen before the first frame is waited for, is a matter of chance
        with pytest.raises((BrokerUnavailable, OperatorError)):
            await connect(URL(f"amqp://guest:guest@127.0.0.1:{port}/"))
    server.close()
