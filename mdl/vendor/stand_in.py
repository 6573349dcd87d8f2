"""Serves a feed's frames as the vendor does: what the vendor does to us, we can do to ourselves.

Invariants: one connection a key and asset class (the newcomer wins, the older one is told `max_connections`); what waits
for a client is bounded in bytes and seconds, and a client past a bound is cut.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import deque
from http import HTTPStatus
from typing import Any

import msgspec
import structlog
from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response

from mdl.feeds.feed import Feed
from mdl.feeds.simulator import SimulatorFeed
from mdl.news.opening import newsroom
from mdl.settings import VendorSettings
from mdl.vendor import news
from mdl.vendor.protocol import CLOSE_POLICY, EVENTS, MESSAGE_BYTES_MAX, SplitFrame, VendorSession, status
from mdl.vendor.reference import ReferenceDesk
from service import metrics
from service.admin import bind
from service.tasks import Tasks

ROOM_SHARE = 0.5
LAST_WORD_S = 0.5  # a client that is cut has so long to take the reason
clients_now = metrics.gauge("mdl_vendor", "clients", "authenticated connections")
cut_total = metrics.counter("mdl_vendor", "clients_cut", "connections ended by the server", ["reason"])
sent_total = metrics.counter("mdl_vendor", "sent_frames", "data frames handed to clients")
log = structlog.get_logger()


class Client:
    """One connection: its session, and what waits to be sent. The frame being sent stays first until it is gone."""

    def __init__(self, socket: ServerConnection, session: VendorSession) -> None:
        self.socket = socket
        self.session = session
        self.bytes = 0
        self.cut = False
        self._waiting: deque[tuple[bytes | str, float]] = deque()
        self._wake = asyncio.Event()
        self._idle = asyncio.Event()

    def push(self, data: bytes | str) -> None:
        """Queue one message."""
        self._waiting.append((data, time.monotonic()))
        self.bytes += len(data)
        self._idle.clear()
        self._wake.set()

    def age_s(self) -> float:
        """Return how long the oldest unsent message has waited."""
        return time.monotonic() - self._waiting[0][1] if self._waiting else 0.0

    async def write(self) -> None:
        """Send what is queued until the connection ends."""
        with contextlib.suppress(ConnectionClosed):
            while True:
                while self._waiting:
                    data = self._waiting[0][0]
                    await self.socket.send(data, text=True)
                    self._waiting.popleft()
                    self.bytes -= len(data)
                self._idle.set()
                self._wake.clear()
                await self._wake.wait()

    async def drained(self) -> None:
        """Wait until everything queued was handed to the socket."""
        await self._idle.wait()

    async def end(self, last_word: str) -> None:
        """Say why, close, and cut the wire when that takes too long."""
        self.cut = True
        with contextlib.suppress(TimeoutError, ConnectionClosed):
            async with asyncio.timeout(LAST_WORD_S):
                await self.socket.send(last_word, text=True)
                await self.socket.close(CLOSE_POLICY)
        self.socket.transport.abort()


class VendorServer:
    """The server around one feed. The feed starts with the first subscription, so that a tape is seen from its start."""

    def __init__(self, settings: VendorSettings, feed: Feed) -> None:
        self.port = settings.port
        self.refusing = False
        self.paused = False
        self.clients: set[Client] = set()
        self.cut_clients = 0
        self._settings = settings
        self._feed = feed
        self._newsroom = newsroom(settings)
        self._reference = ReferenceDesk(feed.simulated) if isinstance(feed, SimulatorFeed) else None
        self._holders: dict[tuple[str, str], Client] = {}
        self._wanted = asyncio.Event()
        self._tasks = Tasks("vendor")
        self._server: Server | None = None

    async def start(self) -> None:
        """Listen and play.  Raises: OperatorError when the port is taken."""
        sock = bind(self._settings.host, self.port, "MDL_VENDOR_PORT")
        self.port = sock.getsockname()[1]
        self._server = await serve(
            self._handle, sock=sock, process_request=self._admit, compression=None, max_size=MESSAGE_BYTES_MAX, close_timeout=1
        )
        self._tasks.start("feed", self._play(), ends=True)

    async def stop(self) -> None:
        """Close everything."""
        await self._feed.close()
        await self._tasks.close()
        if self._server is not None:
            self._server.close()
            await self._server.wait_closed()

    def drop_clients(self) -> int:
        """Cut every connection as a network would: no close frame."""
        for client in self.clients:
            client.socket.transport.abort()
        return len(self.clients)

    def inject(self, data: bytes | str) -> None:
        """Send `data` to every client that has subscribed, whatever it is."""
        for client in self._subscribed():
            client.push(data)

    def broadcast(self, data: bytes | str) -> None:
        """Give a data frame to whom it concerns, and cut who is too far behind."""
        frame = SplitFrame(data)
        for client in self._subscribed():
            chosen = frame.for_client(client.session.wants)
            if chosen is not None:
                client.push(chosen)
                sent_total.inc()
            if client.bytes > self._settings.client_bytes or client.age_s() > self._settings.client_s:
                self._cut(client, "slow_consumer")

    async def _play(self) -> None:
        await self._wanted.wait()
        async for frame in self._feed:
            if self._feed.lossless:
                await self._room()
            if not self.paused:
                self.broadcast(frame.data)
        log.info("vendor_feed_ended", feed=self._feed.name)

    async def _room(self) -> None:
        while self.paused or any(c.bytes > ROOM_SHARE * self._settings.client_bytes for c in self._subscribed()):
            for client in self._subscribed():
                if client.age_s() > self._settings.client_s:
                    self._cut(client, "slow_consumer")
            await asyncio.sleep(0.005)

    def _subscribed(self) -> list[Client]:
        return [client for client in self.clients if client.session.key and client.session.wants.count and not client.cut]

    async def _admit(self, socket: ServerConnection, request: Request) -> Response | None:
        if self.refusing:
            return socket.respond(HTTPStatus.SERVICE_UNAVAILABLE, "refusing connections\n")
        if self._settings.feed == "simulator" and (answer := await self._rest(request)) is not None:
            return _as_answer(socket, *answer)
        if _market_of(request.path).split("/")[0] not in EVENTS:
            return socket.respond(HTTPStatus.NOT_FOUND, f"no such market; there are: {', '.join(EVENTS)}\n")
        return None

    async def _rest(self, request: Request) -> tuple[int, dict[str, Any] | bytes] | None:
        """Return status and body for a request of the vendor's REST service, None for any other."""
        plans, now_ms, base = self._settings.plans, time.time_ns() // 1_000_000, f"http://{request.headers.get('Host', '')}"
        authorization = request.headers.get("Authorization", "")
        if request.path.partition("?")[0] == news.PATH:
            return news.answer(self._newsroom, request.path, authorization, plans, now_ms, base)
        if self._reference is not None and self._reference.knows(request.path):
            return await asyncio.to_thread(self._reference.answer, request.path, authorization, plans, now_ms, base)
        return None

    async def _handle(self, socket: ServerConnection) -> None:
        assert socket.request is not None
        client = Client(socket, VendorSession(self._settings.plans, _market_of(socket.request.path)))
        self.clients.add(client)
        writer = self._tasks.start("writer", client.write(), ends=True, on_fault=lambda _: socket.transport.abort())
        client.push(status("connected"))
        try:
            await self._converse(client)
        except ConnectionClosed:
            pass
        finally:
            writer.cancel()
            self._forget(client)

    async def _converse(self, client: Client) -> None:
        try:
            async with asyncio.timeout(self._settings.auth_s):
                while not client.session.key:
                    if not await self._answer(client, await client.socket.recv()):
                        return
        except TimeoutError:
            await client.end(status("auth_timeout"))
            return
        self._let_in(client)
        async for message in client.socket:
            if not await self._answer(client, message):
                return

    async def _answer(self, client: Client, message: bytes | str) -> bool:
        """Answer one message; return whether the connection goes on."""
        reply = client.session.receive(message)
        for text in reply.messages:
            client.push(text)
        if client.session.wants.count:
            self._wanted.set()
        if client.bytes > self._settings.client_bytes:
            self._cut(client, "slow_consumer")
        if reply.close:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(LAST_WORD_S):
                    await client.drained()
            await client.socket.close(CLOSE_POLICY)
        return not reply.close

    def _let_in(self, client: Client) -> None:
        place = (client.session.key, client.session.market)
        older = self._holders.get(place)
        self._holders[place] = client
        clients_now.set(len(self._holders))
        if older is not None:
            self._cut(older, "max_connections")

    def _forget(self, client: Client) -> None:
        self.clients.discard(client)
        place = (client.session.key, client.session.market)
        if self._holders.get(place) is client:
            del self._holders[place]
        clients_now.set(len(self._holders))

    def _cut(self, client: Client, reason: str) -> None:
        if client.cut:
            return
        client.cut = True
        self.cut_clients += 1
        cut_total.labels(reason).inc()
        log.warning("vendor_client_cut", reason=reason, waiting_bytes=client.bytes, waiting_s=round(client.age_s(), 2))
        self._tasks.start("last word", client.end(status(reason)), ends=True)


def _as_answer(socket: ServerConnection, status: int, body: dict[str, Any] | bytes) -> Response:
    made = socket.respond(HTTPStatus(status), "")
    made.body = body if isinstance(body, bytes) else msgspec.json.encode(body)
    for name in ("Content-Type", "Content-Length"):
        del made.headers[name]
    made.headers["Content-Type"] = "image/png" if isinstance(body, bytes) else "application/json"
    made.headers["Content-Length"] = str(len(made.body))
    return made


def _market_of(path: str) -> str:
    return path.partition("?")[0].strip("/")
