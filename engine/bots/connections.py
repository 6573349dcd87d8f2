"""Sends the bots' requests over kept HTTP/1.1 connections: a general client spent half of the bots' time on what they never use.

Invariant: a connection carries one request at a time; one whose answer did not come whole is closed, never used again.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Mapping
from typing import cast
from urllib.parse import urlencode, urlsplit

import httptools

ANSWER_BYTES_MAX = 16 * 1024 * 1024


class Connections:
    """The connections to one server: as many as requests are under way at once. No redirects, no proxies, no cookies."""

    def __init__(self, url: str, headers: Mapping[str, str], answer_s_max: float) -> None:
        parts = urlsplit(url)
        self._tls = ssl.create_default_context() if parts.scheme == "https" else None
        self._host, self._port = parts.hostname or "", parts.port or (443 if self._tls else 80)
        self._path = parts.path.rstrip("/")
        self._head = "".join(f"{name}: {value}\r\n" for name, value in {"Host": parts.netloc, **headers}.items())
        self._answer_s_max = answer_s_max
        self._idle: list[_Connection] = []
        self.closed = False

    async def request(
        self, method: str, path: str, parameters: Mapping[str, str], body: bytes | None = None, key: str = ""
    ) -> tuple[int, bytes]:
        """Return status and body of the answer; `body` is JSON, `key` goes as `Idempotency-Key`.

        Raises: OSError, also when none came in time.
        """
        query = f"?{urlencode(parameters)}" if parameters else ""
        kind = "Content-Type: application/json\r\n" if body else ""
        sent = f"Idempotency-Key: {key}\r\n" if key else ""
        length = "" if body is None and method in ("GET", "DELETE") else f"Content-Length: {len(body or b'')}\r\n"
        head = f"{method} {self._path}{path}{query} HTTP/1.1\r\n{self._head}{kind}{sent}{length}\r\n".encode()
        async with asyncio.timeout(self._answer_s_max):
            connection = self._kept() or await self._connect()
            try:
                answer = await connection.ask(head + (body or b""))
            except BaseException:
                connection.close()
                raise
        if self.closed:
            connection.close()
        elif connection.usable:
            self._idle.append(connection)
        return answer

    def close(self) -> None:
        """Close what is open; nothing is asked any more."""
        self.closed = True
        for connection in self._idle:
            connection.close()
        self._idle.clear()

    def _kept(self) -> _Connection | None:
        while self._idle:
            if (connection := self._idle.pop()).usable:
                return connection
        return None

    async def _connect(self) -> _Connection:
        loop = asyncio.get_running_loop()
        _, connection = await loop.create_connection(_Connection, self._host, self._port, ssl=self._tls)
        return connection


class _Connection(asyncio.Protocol):
    """One connection; the parser calls the methods that begin with `on_`."""

    def __init__(self) -> None:
        self.usable = False
        self._transport: asyncio.Transport
        self._parser = httptools.HttpResponseParser(self)
        self._body = bytearray()
        self._answer: asyncio.Future[tuple[int, bytes]] | None = None

    def ask(self, request: bytes) -> asyncio.Future[tuple[int, bytes]]:
        """Send a request; the future holds status and body."""
        self._answer = asyncio.get_running_loop().create_future()
        self._body.clear()
        self._transport.write(request)
        return self._answer

    def close(self) -> None:
        self.usable = False
        self._transport.close()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self.usable = True

    def data_received(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as error:
            self._fail(ConnectionError(f"not HTTP: {error}"))

    def on_body(self, part: bytes) -> None:
        self._body += part
        if len(self._body) > ANSWER_BYTES_MAX:
            self._fail(ConnectionError(f"an answer of more than {ANSWER_BYTES_MAX} bytes"))

    def on_message_complete(self) -> None:
        if not self._parser.should_keep_alive():
            self.close()
        if self._answer is not None and not self._answer.done():
            self._answer.set_result((self._parser.get_status_code(), bytes(self._body)))

    def connection_lost(self, error: Exception | None) -> None:
        self._fail(ConnectionError(str(error) if error else "the server closed the connection"))

    def _fail(self, error: ConnectionError) -> None:
        self.close()
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(error)
