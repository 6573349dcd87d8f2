"""The connection that comes back: what is said while it is away, what a defect in serving does, what cannot be decoded."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime

import pytest
from pamqp.commands import Basic
from structlog.testing import capture_logs

from mdq.broker import BrokerUnavailable
from mdq.rabbit_link import UNREADABLE, RabbitLink, Wire, publish, survive_bad_properties, text
from tests.engine.orders.ground import delete, depth
from tests.servers import RabbitMQ, free_port
from tests.waiting import until


@pytest.mark.live
async def test_a_link_is_served_again_after_every_loss(rabbitmq_server: RabbitMQ) -> None:
    """Stopped, killed, lost: `fault` says so meanwhile; the same coroutine serves the next connection."""
    served: list[Wire] = []

    async def serve(wire: Wire) -> None:
        served.append(wire)
        wire.ready = True
        await wire.lost

    link = RabbitLink(rabbitmq_server.url, "test", serve)
    assert link.fault == "not connected yet"
    link.start()
    await until(lambda: link.ready, 10)
    assert link.fault == ""
    await asyncio.to_thread(rabbitmq_server.kill)
    await until(lambda: not link.ready, 10)
    assert f"127.0.0.1:{rabbitmq_server.port} is away" in link.fault
    await asyncio.to_thread(rabbitmq_server.start)
    await until(lambda: link.ready, 20)
    served[-1].lose("by the test")
    await until(lambda: len(served) == 3 and link.ready, 10)
    await link.close()
    assert not link.ready


@pytest.mark.live
async def test_a_defect_in_serving_is_logged_and_served_again(rabbitmq_url: str) -> None:
    """It neither ends the link nor goes unseen."""
    served = 0

    async def serve(wire: Wire) -> None:
        nonlocal served
        served += 1
        if served < 3:
            raise ZeroDivisionError("a defect")
        wire.ready = True
        await wire.lost

    link = RabbitLink(rabbitmq_url, "test", serve)
    with capture_logs() as logged:
        link.start()
        await until(lambda: link.ready, 10)
        await link.close()
    assert served == 3
    assert [line["event"] for line in logged].count("serving_failed") == 2


@pytest.mark.live
async def test_publishing_to_a_queue_that_is_not_there_is_said(rabbitmq_url: str) -> None:
    """Confirmed means that a queue has it; the name is in the error. Serving that returns is the end."""
    found: list[str] = []

    async def serve(wire: Wire) -> None:
        channel = await wire.channel(confirms=True)
        try:
            await publish(channel, b"x", Basic.Properties(), "nowhere.test")
        except BrokerUnavailable as error:
            found.append(str(error))
        await wire.declare({"somewhere.test": {}})
        await publish(channel, b"x", Basic.Properties(), "somewhere.test")

    link = RabbitLink(rabbitmq_url, "test", serve)
    link.start()
    async with asyncio.timeout(10):
        await link.finished()
    await link.close()
    assert len(found) == 1
    assert "nowhere.test" in found[0]
    assert await depth(rabbitmq_url, "somewhere.test") == 1
    await delete(rabbitmq_url, ["somewhere.test"])


@pytest.mark.live
async def test_a_missing_vhost_is_a_fault_with_its_mending(rabbitmq_server: RabbitMQ) -> None:
    """In the words of the setting that holds the URL."""

    async def serve(wire: Wire) -> None:
        raise AssertionError("there is nothing to serve")

    link = RabbitLink(rabbitmq_server.url_of(vhost="nowhere"), "test", serve, "SOME_URL")
    link.start()
    await until(lambda: "refused the vhost" in link.fault, 10)
    assert "SOME_URL" in link.fault
    assert not link.ready
    await link.close()


async def test_nobody_listening_is_a_fault_and_closing_ends_the_attempts() -> None:
    """A broker that is not up is waited for."""
    port = free_port()

    async def serve(wire: Wire) -> None:
        raise AssertionError("there is nothing to serve")

    link = RabbitLink(f"amqp://127.0.0.1:{port}/", "test", serve)
    link.start()
    await until(lambda: "Connect call failed" in link.fault, 10)
    async with asyncio.timeout(5):
        await link.close()


def test_properties_that_cannot_be_decoded_arrive_marked() -> None:
    """A time beyond every calendar and text that is no UTF-8 leave one header that says so; good ones are read as ever."""
    survive_bad_properties()
    survive_bad_properties()
    good = Basic.Properties(message_id="m", timestamp=datetime(2026, 11, 21, tzinfo=UTC), headers={"a": 1})
    raw = good.marshal()
    flags, data = int.from_bytes(raw[:2], "big"), raw[2:]
    read = Basic.Properties()
    read.unmarshal(flags, data)
    assert (read.message_id, read.headers, read.timestamp) == ("m", {"a": 1}, good.timestamp)
    for broken in (data[:-8] + b"\x18" * 8, data.replace(b"\x01m", b"\x01\xff"), data[:3]):
        bad = Basic.Properties(app_id="left over")
        bad.unmarshal(flags, broken)
        assert bad.headers is not None
        assert list(bad.headers) == [UNREADABLE]
        assert bad.message_id is bad.timestamp is bad.app_id is None


def test_properties_are_text() -> None:
    """Absent, text, bytes."""
    assert [text(None), text("a"), text(b"b\xff")] == ["", "a", "b\N{REPLACEMENT CHARACTER}"]
