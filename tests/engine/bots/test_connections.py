"""Checks the bots' HTTP connections against servers that answer well, badly, in pieces, late or not at all."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest

from engine.bots.connections import Connections
from tests.waiting import until

OK = b'HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}'  # fmt: skip
Answer = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


class Seen:
    """What a server was asked, and over how many connections."""

    def __init__(self) -> None:
        self.requests: list[bytes] = []
        self.connections = 0


@asynccontextmanager
async def server(*answers: bytes, ends: bool = False) -> AsyncIterator[tuple[Connections, Seen]]:
    """A server that gives these answers in turn, then nothing; `ends` closes after each."""
    seen, left = Seen(), list(answers)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        seen.connections += 1
        while left and (head := await reader.readuntil(b"\r\n\r\n")):
            size = next((int(line[15:]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:")), 0)
            seen.requests.append(head + await reader.readexactly(size))
            for byte in (answer := left.pop(0)):  # in the smallest pieces
                writer.write(bytes([byte]))
                await writer.drain()
            if ends or not answer:
                break
        if ends:
            writer.close()
        else:
            await reader.read()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as listening:
        port = listening.sockets[0].getsockname()[1]
        connections = Connections(f"http://127.0.0.1:{port}/exchange", {"Authorization": "Bearer a"}, 1.0)
        try:
            yield connections, seen
        finally:
            connections.close()


async def test_a_connection_is_kept_for_the_next_request() -> None:
    """Two requests, one connection; path, query, headers and body arrive as they should."""
    async with server(OK, OK) as (connections, seen):
        assert await connections.request("GET", "/Order", {"clOrdID": "a&b"}) == (200, b"{}")
        assert await connections.request("POST", "/Order", {}, b'{"a":1}', "once") == (200, b"{}")
    assert seen.connections == 1
    first, second = seen.requests
    assert first.startswith(b"GET /exchange/Order?clOrdID=a%26b HTTP/1.1\r\nHost: 127.0.0.1:")
    assert b"Authorization: Bearer a\r\n" in first
    assert b"Content-Length: 7\r\n" in second
    assert b"Idempotency-Key: once\r\n" in second
    assert b"Idempotency-Key" not in first
    assert second.endswith(b'\r\n\r\n{"a":1}')


async def test_requests_at_once_have_a_connection_each() -> None:
    """None waits for the answer of another."""
    async with server(OK, OK, OK) as (connections, seen):
        found = await asyncio.gather(*(connections.request("GET", "/", {}) for _ in range(3)))
    assert found == [(200, b"{}")] * 3
    assert seen.connections == 3


@pytest.mark.parametrize("ends", [False, True])
async def test_a_connection_that_the_server_ends_is_not_used_again(ends: bool) -> None:
    """Whether it says so or just does it: the next request opens another."""
    answer = OK if ends else OK.replace(b"\r\n", b"\r\nConnection: close\r\n", 1)
    async with server(answer, OK, ends=ends) as (connections, seen):
        await connections.request("GET", "/", {})
        await until(lambda: not any(kept.usable for kept in connections._idle))
        assert await connections.request("GET", "/", {}) == (200, b"{}")
    assert seen.connections == 2


@pytest.mark.parametrize("answer", [b"SSH-2.0-OpenSSH_9\r\n", b"", b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{"])
async def test_what_is_no_whole_answer_is_a_fault(answer: bytes) -> None:
    """Another protocol, a closed connection, half a body: an OSError, and no connection is kept."""
    async with server(answer, ends=True) as (connections, _):
        with pytest.raises(OSError, match=r"not HTTP|closed the connection"):
            await connections.request("GET", "/", {})
        assert connections._idle == []


async def test_a_server_that_does_not_answer_is_a_fault_in_time() -> None:
    """The late answer would be taken for the next one's: the connection is given up."""
    async with server(b"HTTP/1.1 200 OK\r\n", OK) as (connections, seen):
        with pytest.raises(TimeoutError):
            await connections.request("GET", "/", {})
        assert await connections.request("GET", "/", {}) == (200, b"{}")
    assert seen.connections == 2
