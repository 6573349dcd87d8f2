"""Connections that ask nothing, or too much, or too slowly: each is cut with the reason, and others are served meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from engine.gateway.app import Doors
from engine.gateway.connections import SPARE_BYTES, ConnectionLimits
from tests.engine.gateway.ground import Ground, exchange
from tests.engine_process import TOKEN
from tests.waiting import until

LIMITS = ConnectionLimits(head_s=0.3, body_s=0.4, head_bytes=4_096, per_address=8)
HEAD = f"POST /Order HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {TOKEN}\r\nContent-Type: application/json\r\n".encode()
SECONDS = 20


@pytest.fixture
async def ground(tmp_path: Path) -> AsyncIterator[Ground]:
    async with exchange(tmp_path, doors=Doors(connections=LIMITS)) as running:
        yield running


class Peer:
    """A connection whose bytes a test writes itself."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self.writer = writer

    @classmethod
    async def of(cls, ground: Ground) -> Peer:
        return cls(*await asyncio.open_connection("127.0.0.1", ground.gateway.port))

    def send(self, data: bytes) -> None:
        self.writer.write(data)

    async def rest(self) -> bytes:
        """Return everything until the other side closes."""
        found = b""
        async with asyncio.timeout(SECONDS):
            try:
                while data := await self._reader.read(65_536):
                    found += data
            except ConnectionError:
                pass
        return found

    async def answer(self) -> bytes:
        """Return the head of one answer and what came with it."""
        async with asyncio.timeout(SECONDS):
            return await self._reader.readuntil(b"\r\n\r\n")


@pytest.mark.parametrize("sent", [b"", b"GET /Instrument HTTP/1.1\r\nHost: x\r\nX-A: "])
async def test_a_head_that_does_not_come_is_not_waited_for(ground: Ground, sent: bytes) -> None:
    """Nothing at all, or a line now and then: 408 and the end, and somebody else is served."""
    peer = await Peer.of(ground)
    peer.send(sent)
    await ground.ask("GET", "/Instrument")
    found = await peer.rest()
    assert found.startswith(b"HTTP/1.1 408")
    assert b"The head of a request has 0.3 s to arrive" in found


async def test_a_head_that_drips_is_cut(ground: Ground) -> None:
    """A byte at a time keeps nothing open: the time is that of the whole head."""
    peer = await Peer.of(ground)

    async def drip() -> None:
        while True:
            peer.send(b"GET /Instrument HTTP/1.1\r\nHost: x\r\n" if not dripped else b"A: b\r\n")
            dripped.append(1)
            await asyncio.sleep(0.02)

    dripped: list[int] = []
    dripping = asyncio.create_task(drip())
    assert (await peer.rest()).startswith(b"HTTP/1.1 408")
    dripping.cancel()


async def test_a_body_that_does_not_come_is_not_waited_for(ground: Ground) -> None:
    """Announced and not sent: 408; the next connection's request is answered."""
    peer = await Peer.of(ground)
    peer.send(HEAD + b"Content-Length: 50\r\n\r\n{")
    assert b"408 Request Timeout" in await peer.rest()
    await ground.ask("GET", "/Instrument")


async def test_a_head_without_end_is_refused(ground: Ground) -> None:
    """More than a few kB of headers: 431."""
    peer = await Peer.of(ground)
    peer.send(b"GET /Instrument HTTP/1.1\r\nHost: x\r\n")
    peer.send(b"".join(b"X-%d: %s\r\n" % (number, b"a" * 100) for number in range(45)))
    assert b"431 Request Header Fields Too Large" in await peer.rest()


async def test_100_mb_are_refused_before_they_are_sent(ground: Ground) -> None:
    """By what is announced, for whoever asks; who sends on is cut after 256 kB."""
    for head in (HEAD, b"POST /Order HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"):
        peer = await Peer.of(ground)
        peer.send(head + b"Content-Length: 104857600\r\nExpect: 100-continue\r\n\r\n")
        assert (await peer.answer()).startswith(b"HTTP/1.1 413")
        sent = 0
        async with asyncio.timeout(SECONDS):
            try:
                while sent < 104_857_600:
                    peer.send(b" " * 65_536)
                    await peer.writer.drain()
                    sent += 65_536
            except ConnectionError:
                pass
        assert sent < SPARE_BYTES + (8 << 20), "what the kernel's buffers hold comes on top"
        peer.writer.close()


async def test_a_body_in_chunks_is_refused_where_it_is_too_long(ground: Ground) -> None:
    """Whatever it announces: nothing more is kept than fits."""
    peer = await Peer.of(ground)
    peer.send(HEAD + b"Transfer-Encoding: chunked\r\n\r\n")
    for _ in range(20):
        peer.send(b"2000\r\n" + b" " * 0x2000 + b"\r\n")
    assert (await peer.answer()).startswith(b"HTTP/1.1 413")
    peer.writer.close()


async def test_one_address_has_so_many_connections(ground: Ground) -> None:
    """One more is told why and closed; a place is free again as soon as one has gone."""
    peers = [await Peer.of(ground) for _ in range(LIMITS.per_address)]
    for peer in peers:
        peer.send(HEAD.replace(b"POST /Order", b"GET /Account") + b"\r\n")
        assert (await peer.answer()).startswith(b"HTTP/1.1 200")
    more = await Peer.of(ground)
    assert b"TooManyConnections" in await more.rest()
    peers[0].writer.close()
    await peers[0].writer.wait_closed()

    async def served() -> bool:
        peer = await Peer.of(ground)
        peer.send(b"GET /Instrument HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        return b"TooManyConnections" not in await peer.rest()

    await until(served)


async def test_who_opens_connections_without_end_waits(tmp_path: Path) -> None:
    """The first request of one too many is answered, half a second later; others of the address that are open are not held up."""
    doors = Doors(connections=ConnectionLimits(opened_per_s=2))
    async with exchange(tmp_path, doors=doors) as ground:
        request = b"GET /Instrument HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
        await ground.ask("GET", "/Instrument")
        peers = [await Peer.of(ground) for _ in range(8)]
        for peer in peers:
            peer.send(request)
        ended: list[int] = []

        async def rest(number: int) -> None:
            assert (await peers[number].rest()).startswith(b"HTTP/1.1 200")
            ended.append(number)

        resting = [asyncio.create_task(rest(number)) for number in range(8)]
        await until(lambda: ended)
        await ground.ask("GET", "/Instrument")
        assert len(ended) < 8, "some wait"
        await asyncio.gather(*resting)
