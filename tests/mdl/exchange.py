"""Serves what a test dictates as the exchange's gateway would: the edges of its protocol, on demand.

Orders are not matched here, and nothing is kept on a disk; the real engine is in tests/live.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import uvicorn
from litestar import Litestar, Request, Response, WebSocket, delete, get, put, websocket
from litestar.exceptions import WebSocketDisconnect
from litestar.params import FromQuery

from service.admin import bind

TIME = "2025-11-21T02:16:49.{:03d}Z"


class Exchange:
    """One store. `send` appends a message; `purges` are the indices given back; a test may say what goes wrong."""

    def __init__(self) -> None:
        self.frames: dict[int, str] = {}
        self.last = 0
        self.newest = 0
        self.purges: list[int] = []
        self.joins: list[int | None] = []
        self.asked: list[str] = []
        self.tokens: set[str | None] = set()
        self.instruments: dict[str, dict[str, str]] = {}
        self.levels: dict[tuple[str, str], dict[float, int]] = {}
        self.refuses = 0  # answers to come that are 503
        self.trades = 0
        self.port = 0
        self.unsaid: list[str] = []
        self._sockets: set[WebSocket[Any, Any, Any]] = set()
        self._news = asyncio.Event()
        self._server: uvicorn.Server | None = None
        self._task: asyncio.Task[None] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def list(self, symbol: str, tick: str = "0.5", lot: str = "0.001") -> None:
        """Open trading in a contract."""
        self.instruments[symbol] = {"symbol": symbol, "tickSize": tick, "lotSize": lot}

    def send(self, *updates: tuple[str, str, float, int], trades: tuple[str, ...] = (), told: bool = True) -> int:
        """Commit one command: levels change, each symbol of `trades` trades once; `told` False keeps the message back."""
        self.newest += 1
        for symbol, side, price, lots in updates:
            levels = self.levels.setdefault((symbol, side), {})
            levels[price] = lots
            if not lots:
                del levels[price]
        groups = []
        for symbol in trades:
            self.trades += 1
            one = {"symbol": symbol, "execType": "Trade", "trdMatchID": str(self.trades), "lastQty": 2, "lastPx": 100.5}
            groups.append([one, one])
        frame = {
            "messageIndex": self.newest, "prevMessageIndex": self.last, "timestamp": TIME.format(self.newest % 1000),
            "executions": groups, "bookUpdates": [dict(zip(("symbol", "side", "price", "qty"), u, strict=True)) for u in updates],
        }  # fmt: skip
        self.last = self.newest
        if told:
            self.frames[self.newest] = json.dumps(frame)
            self.wake()
        return self.newest

    def say(self, text: str) -> None:
        """Send any text at all, out of order."""
        self.unsaid.append(text)
        self.wake()

    def wake(self) -> None:
        self._news.set()
        self._news = asyncio.Event()

    async def cut(self) -> None:
        """Close every connection."""
        for socket in list(self._sockets):
            await socket.close(1011)

    def forget(self) -> None:
        """Begin anew, as an exchange whose disk was emptied."""
        self.frames, self.last, self.newest, self.levels = {}, 0, 0, {}
        self.purges = []

    async def start(self) -> None:
        sock = bind("127.0.0.1", self.port, "TEST_PORT")
        self.port = sock.getsockname()[1]
        config = uvicorn.Config(_app(self), log_config=None, access_log=False, lifespan="off", timeout_graceful_shutdown=0)
        self._server = uvicorn.Server(config)
        self._task = asyncio.create_task(self._server._serve(sockets=[sock]))

    async def stop(self) -> None:
        """Go away; `start` opens the same port again, with everything there was."""
        assert self._server is not None
        assert self._task is not None
        await self.cut()
        self._server.should_exit = True
        await self._task

    @contextmanager
    def _at(self, socket: WebSocket[Any, Any, Any]) -> Iterator[None]:
        self._sockets.add(socket)
        try:
            yield
        finally:
            self._sockets.discard(socket)

    async def follow(self, socket: WebSocket[Any, Any, Any], last_seen: int | None) -> None:
        """Send what follows `last_seen` for as long as the connection lasts."""
        purged = self.purges[-1] if self.purges else 0
        if last_seen is not None and not purged <= last_seen <= self.newest:
            await socket.send_text(json.dumps(f"There is a gap: after {last_seen} comes {purged}"))
            await socket.close(4410)
            return
        position = purged if last_seen is None else last_seen
        with self._at(socket):
            while True:
                news = self._news
                for index in [index for index in self.frames if index > position]:
                    await socket.send_text(self.frames[index])
                    position = index
                while self.unsaid:
                    await socket.send_text(self.unsaid.pop(0))
                await news.wait()


def _app(exchange: Exchange) -> Litestar:
    @put("/MessageStore", status_code=200, sync_to_thread=False)
    def create(storeId: FromQuery[str]) -> dict[str, Any]:
        return {"storeId": storeId, "firstItemIndex": 0, "lastItemIndex": exchange.last}

    @delete("/MessageStore/Purge", status_code=200, sync_to_thread=False)
    def purge(storeId: FromQuery[str], messageIndex: FromQuery[int]) -> dict[str, Any]:
        exchange.purges.append(messageIndex)
        exchange.frames = {index: frame for index, frame in exchange.frames.items() if index > messageIndex}
        return {"storeId": storeId}

    @get("/Instrument", sync_to_thread=False)
    def instruments(request: Request[Any, Any, Any]) -> Response[Any]:
        exchange.asked.append("/Instrument")
        exchange.tokens.add(request.headers.get("authorization"))
        if exchange.refuses:
            exchange.refuses -= 1
            return Response({"title": "busy", "code": "EngineBusy"}, status_code=503)
        return Response(list(exchange.instruments.values()))

    @get("/OrderBook", sync_to_thread=False)
    def book(symbol: FromQuery[str], depth: FromQuery[int]) -> dict[str, Any]:
        assert depth == 0
        exchange.asked.append(symbol)
        sides = [
            [
                {"price": price, "qty": lots, "orders": 1}
                for price, lots in sorted(exchange.levels.get((symbol, side), {}).items())
            ]
            for side in ("Buy", "Sell")
        ]
        at = TIME.format(exchange.newest % 1000)
        return {"symbol": symbol, "messageIndex": exchange.newest, "timestamp": at, "bids": sides[0], "asks": sides[1]}

    @websocket("/joined")
    async def joined(socket: WebSocket[Any, Any, Any], storeId: FromQuery[str], lastSeen: FromQuery[int | None] = None) -> None:
        await socket.accept()
        exchange.joins.append(lastSeen)
        exchange.tokens.add(socket.headers.get("authorization"))
        following = asyncio.create_task(exchange.follow(socket, lastSeen))
        try:
            while True:
                await socket.receive_text()
        except WebSocketDisconnect:
            following.cancel()
            await asyncio.gather(following, return_exceptions=True)

    return Litestar([create, purge, instruments, book, joined], openapi_config=None, logging_config=None)
