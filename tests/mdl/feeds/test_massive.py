"""The vendor's own client against our vendor server, over a real socket: keys, wildcards, one connection, damage, drops."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from mdl.feeds.feed import FeedRefused, Frame
from mdl.feeds.massive import MassiveFeed
from mdl.feeds.simulator import SimulatorFeed
from mdl.settings import VendorSettings
from mdl.simulation.market import Simulator
from mdl.vendor.stand_in import VendorServer
from tests.waiting import until


class Tap:
    """Collects what a feed yields."""

    def __init__(self, feed: MassiveFeed) -> None:
        self.feed = feed
        self.frames: list[Frame] = []
        self.error: BaseException | None = None
        self.task = asyncio.create_task(self._run())

    async def _run(self) -> None:
        try:
            async for frame in self.feed:
                self.frames.append(frame)
        except FeedRefused as error:
            self.error = error

    def events(self, *kinds: str) -> list[dict[str, Any]]:
        found = []
        for frame in self.frames:
            with contextlib.suppress(ValueError):
                found += [event for event in json.loads(frame.data) if event.get("ev") in kinds or not kinds]
        return found

    async def stop(self) -> None:
        await self.feed.close()
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)


@pytest.fixture
async def server() -> AsyncIterator[VendorServer]:
    """A vendor with two keys and a lively small market."""
    settings = VendorSettings(port=0, keys="good,other", auth_s=0.5, client_bytes=256 * 1024, client_s=0.5)
    made = VendorServer(settings, SimulatorFeed(Simulator(20, seed=7), 3_000))
    await made.start()
    yield made
    await made.stop()


@pytest.fixture
async def tap(server: VendorServer) -> AsyncIterator[Callable[..., Tap]]:
    """Makes a tapped feed of the server."""
    taps: list[Tap] = []

    def make(key: str = "good", topics: tuple[str, ...] = ("T.*", "Q.*"), market: str = "stocks") -> Tap:
        feed = MassiveFeed(key, market, topics, url=f"ws://127.0.0.1:{server.port}", open_timeout_s=1, dice=lambda: 0.05)
        taps.append(Tap(feed))
        return taps[-1]

    yield make
    for one in taps:
        await one.stop()


async def test_the_official_client_gets_its_data(tap: Callable[..., Tap]) -> None:
    """Only what was subscribed; each frame stamped; the state is live."""
    one = tap(topics=("T.*", "Q.NVDA", "A.*"))
    await until(lambda: len(one.events("T")) > 50 and one.events("Q") and one.events("A"))
    assert {event["ev"] for event in one.events()} == {"status", "T", "Q", "A"}
    assert {event["sym"] for event in one.events("Q")} == {"NVDA"}
    stamps = [frame.received_ns for frame in one.frames]
    assert stamps == sorted(stamps)
    assert (one.feed.state, one.feed.reconnects) == ("live", 0)
    told = [event["message"] for event in one.events("status")]
    assert sorted(told) == ["subscribed to: A.*", "subscribed to: Q.NVDA", "subscribed to: T.*"]


async def test_a_refused_key_is_not_tried_again(tap: Callable[..., Tap], server: VendorServer) -> None:
    """The feed ends with the vendor's words."""
    one = tap(key="wrong")
    await until(lambda: one.task.done())
    assert "authentication failed" in str(one.error)
    assert (one.feed.state, one.feed.reconnects) == ("refused", 0)
    assert not server.clients


async def test_no_key_is_refused_without_asking(tap: Callable[..., Tap]) -> None:
    """The vendor need not be bothered."""
    one = tap(key="")
    await until(lambda: one.task.done())
    assert "no API key" in str(one.error)


async def test_a_dropped_connection_is_made_again(tap: Callable[..., Tap], server: VendorServer) -> None:
    """With the same subscriptions, after a pause."""
    one = tap()
    await until(lambda: one.events("T"))
    assert server.drop_clients() == 1
    await until(lambda: one.feed.reconnects == 1 and one.feed.state == "live")
    before = len(one.events("Q"))
    await until(lambda: len(one.events("Q")) > before)


async def test_an_unreachable_vendor_is_tried_again_and_again(tap: Callable[..., Tap], server: VendorServer) -> None:
    """Refused handshakes (503) and refused connections alike; the reason is said."""
    server.refusing = True
    one = tap()
    await until(lambda: one.feed.reconnects >= 2)
    assert "503" in one.feed.reason
    assert one.feed.state == "connecting"
    server.refusing = False
    await until(lambda: one.events("T"))
    await server.stop()
    await until(lambda: "cannot connect" in one.feed.reason)


async def test_garbage_does_not_end_the_connection(tap: Callable[..., Tap], server: VendorServer) -> None:
    """The frame is passed on as it is: the router counts it."""
    one = tap()
    await until(lambda: one.events("T"))
    server.inject("not JSON")
    await until(lambda: any(frame.data in ("not JSON", b"not JSON") for frame in one.frames))
    assert (one.feed.state, one.feed.reconnects) == ("live", 0)


async def test_the_newer_connection_of_a_key_wins(tap: Callable[..., Tap], server: VendorServer) -> None:
    """The older one is told max_connections and closed; other keys and other markets are left alone."""
    other, crypto = tap(key="other"), tap(topics=("XT.*",), market="crypto")
    async with connect(f"ws://127.0.0.1:{server.port}/stocks") as first:
        await first.recv()
        await first.send('{"action":"auth","params":"good"}')
        assert "auth_success" in await first.recv()
        second = tap()
        assert "max_connections" in await first.recv()
        await first.wait_closed()
        assert first.close_code == 1008
    await until(lambda: second.events("T") and other.events("T"))
    assert other.feed.reconnects == crypto.feed.reconnects == second.feed.reconnects == 0


async def test_a_slow_reader_is_cut(tap: Callable[..., Tap], server: VendorServer) -> None:
    """By bytes or age of what waits for it; the others do not notice."""
    quick = tap(key="other")
    async with connect(f"ws://127.0.0.1:{server.port}/stocks", max_queue=1, close_timeout=0.1) as slow:
        await slow.recv()
        await slow.send('{"action":"auth","params":"good"}')
        await slow.send('{"action":"subscribe","params":"*"}')
        await until(lambda: len(server.clients) == 2 and all(client.session.wants.count for client in server.clients))
        slow.transport.pause_reading()

        def cut() -> bool:
            server.broadcast(b'[{"ev":"T","sym":"X","pad":"' + b"x" * 60_000 + b'"}]')
            return server.cut_clients == 1

        await until(cut)
        await until(lambda: len(server.clients) == 1)
    assert quick.feed.reconnects == 0


async def test_who_does_not_authenticate_is_sent_away(server: VendorServer) -> None:
    """After the time the vendor gives."""
    async with connect(f"ws://127.0.0.1:{server.port}/stocks") as idle:
        assert json.loads(await idle.recv())[0]["status"] == "connected"
        assert json.loads(await idle.recv())[0]["status"] == "auth_timeout"
        with pytest.raises(ConnectionClosed):
            await idle.recv()


async def test_hostile_clients_get_errors_and_disturb_nobody(tap: Callable[..., Tap], server: VendorServer) -> None:
    """Bytes that are no text, text that is no JSON, a message beyond all bounds."""
    one = tap()
    async with connect(f"ws://127.0.0.1:{server.port}/stocks") as hostile:
        await hostile.recv()
        for message in (b"\xff\x00", "{", "[" * 5000):
            await hostile.send(message)
            assert json.loads(await hostile.recv())[0]["status"] == "error"
        await hostile.send("x" * 100_000)
        await hostile.wait_closed()
        assert hostile.close_code == 1009
    await until(lambda: one.events("T"))
    assert one.feed.reconnects == 0


async def test_an_unknown_market_is_not_found(server: VendorServer) -> None:
    """With a list of those there are."""
    with pytest.raises(InvalidStatus) as refused:
        await connect(f"ws://127.0.0.1:{server.port}/bonds")
    assert refused.value.response.status_code == 404


async def test_a_silent_server_is_given_up(tap: Callable[..., Tap]) -> None:
    """Something that accepts and says nothing must not hold us for ever."""
    silent = await asyncio.start_server(lambda *_: None, "127.0.0.1", 0)
    port = silent.sockets[0].getsockname()[1]
    one = Tap(MassiveFeed("key", "stocks", ("T.*",), url=f"ws://127.0.0.1:{port}", open_timeout_s=0.2, dice=lambda: 0.0))
    await until(lambda: one.feed.reconnects >= 1)
    assert one.feed.state == "connecting"
    await one.stop()
    silent.close()
