"""Subscribes to channels and yields their pushes: a Python client that reconnects, resumes and repairs by itself.

    async with Client("ws://127.0.0.1:8400", token) as client:
        await client.subscribe("quote:AAPL", "board:gainers", hz=4)
        async for push in client:
            print(push.ch, push.copy.data)

Invariant: what `push.copy` shows is the server's state at that seq; between losing and resuming a connection nothing is shown.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import itertools
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlsplit

import orjson
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidURI
from websockets.typing import Subprotocol

from service.run import backoff_s
from wds.follow import Follower, Push
from wds.protocol import PATH, SUBPROTOCOL

Token = str | Callable[[], str | Awaitable[str]]
PUSHES_MAX = 10_000  # unread pushes; then reading stops and the server sees a slow client
PER_COMMAND = 50  # channels of one sub: with their `since` they stay within a frame
FRAME_BYTES_MAX = 64 * 2**20
CLOSE_S_MAX = 2.0  # a server that does not answer the goodbye is left without it
SILENCE_S = 60.0  # three missed pings: the connection is dead


class WdsError(Exception):
    """The server refused: `code` is an error code of the protocol, or a close code as text."""

    def __init__(self, code: str, message: str = "", retry: bool = False) -> None:
        super().__init__(f"{message} ({code})" if message else code)
        self.code = code
        self.retry = retry


def stream_url(url: str) -> str:
    """Return the stream's URL for `ws://host:port`, with or without its path."""
    parts = urlsplit(url)
    return url if parts.path.strip("/") else f"{parts.scheme}://{parts.netloc}{PATH}"


class Client:
    """One connection, kept up. `token` is a token, or a function that fetches a fresh one."""

    def __init__(self, url: str, token: Token, reconnect: bool = True) -> None:
        self.url = stream_url(url)
        self.follower = Follower()
        self._token = token
        self._reconnect = reconnect
        self._ids = itertools.count(1)
        self._replies: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self._asked: dict[str, dict[str, Any]] = {}  # what we are subscribed to, by name or pattern
        self._pushes: asyncio.Queue[Push | None] = asyncio.Queue(PUSHES_MAX)
        self._socket: ClientConnection | None = None
        self._task: asyncio.Task[None] | None = None
        self._fault: BaseException | None = None
        self._after_ms: int | None = None

    async def __aenter__(self) -> Self:
        try:
            await self._open()
        except BaseException:
            await self._hang_up()
            raise
        self._task = asyncio.create_task(self._run())
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        await self.close()

    async def close(self) -> None:
        """Say goodbye."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait({self._task})

    # Commands

    async def subscribe(
        self, *channels: str, hz: float | str | None = None, fields: list[str] | None = None
    ) -> list[dict[str, Any]]:
        """Subscribe; return the outcomes, one a channel. What was accepted is kept over reconnects."""
        extra = {name: value for name, value in (("hz", hz), ("fields", fields)) if value is not None}
        reply = await self.command({"op": "sub", "ch": list(channels), **extra})
        for outcome in reply["subs"]:
            if outcome["ch"] in channels and "error" not in outcome:
                self._asked[outcome["ch"]] = extra
        return list(reply["subs"])

    async def unsubscribe(self, *channels: str) -> None:
        """Leave channels or patterns."""
        for channel in channels:
            self._asked.pop(channel, None)
            self.follower.forget(channel)
        await self.command({"op": "unsub", "ch": list(channels)})

    async def get(self, *channels: str, limit: int | None = None) -> list[dict[str, Any]]:
        """Return a snapshot or an error for each channel."""
        extra = {} if limit is None else {"limit": limit}
        return list((await self.command({"op": "get", "ch": list(channels), **extra}))["snaps"])

    async def command(self, body: dict[str, Any], timeout_s: float = 10.0) -> dict[str, Any]:
        """Send a command and return its reply.  Raises: WdsError for a refusal, ConnectionError while disconnected."""
        number = next(self._ids)
        reply = self._replies[number] = asyncio.get_running_loop().create_future()
        try:
            await self._send({"id": number, **body})
            async with asyncio.timeout(timeout_s):
                answer: dict[str, Any] = await reply
        finally:
            self._replies.pop(number, None)
        if not answer["ok"]:
            fault = answer["error"]
            raise WdsError(fault["code"], fault.get("message", ""), fault.get("retry", False))
        return answer

    async def _send(self, body: dict[str, Any]) -> None:
        if self._socket is None:
            raise ConnectionError("not connected")
        try:
            await self._socket.send(orjson.dumps(body).decode())
        except ConnectionClosed as closed:
            raise ConnectionError(str(closed)) from None

    # Pushes

    async def __aiter__(self) -> AsyncIterator[Push]:
        while True:
            push = await self._pushes.get()
            if push is None:
                if self._fault is not None:
                    raise self._fault
                return
            yield push

    # The connection

    async def _open(self) -> None:
        self._after_ms = None
        self._socket = await connect(
            self.url,
            subprotocols=[Subprotocol(SUBPROTOCOL)],
            compression=None,
            max_size=FRAME_BYTES_MAX,
            ping_interval=None,
            open_timeout=5,
            close_timeout=CLOSE_S_MAX,
        )
        token = self._token() if callable(self._token) else self._token
        await self._send({"id": 0, "op": "auth", "token": await token if inspect.isawaitable(token) else token})
        while True:
            for frame in await self._receive():
                if frame.get("id") == 0:
                    if frame["ok"]:
                        return
                    raise WdsError(frame["error"]["code"], frame["error"].get("message", ""), frame["error"]["retry"])
                if frame.get("t") == "bye":
                    self._after_ms = frame.get("after_ms")

    async def _receive(self) -> list[dict[str, Any]]:
        assert self._socket is not None
        async with asyncio.timeout(SILENCE_S):
            text = await self._socket.recv(decode=False)
        frame = orjson.loads(text)
        return frame if isinstance(frame, list) else [frame]

    async def _run(self) -> None:
        try:
            while True:
                await self._read_until_lost()
                await self._come_back()
        except (WdsError, OSError, ConnectionClosed, InvalidHandshake, InvalidURI) as fault:
            self._fault = fault
        finally:
            await self._hang_up()
            with contextlib.suppress(asyncio.QueueFull):
                self._pushes.put_nowait(None)

    async def _hang_up(self) -> None:
        """Say goodbye to the server, which counts connections: one that only fell silent would be in the next one's way."""
        socket, self._socket = self._socket, None
        if socket is not None:
            await socket.close()

    async def _read_until_lost(self) -> None:
        try:
            while True:
                for frame in await self._receive():
                    await self._take(frame)
        except (ConnectionClosed, OSError, TimeoutError) as lost:
            code = lost.rcvd.code if isinstance(lost, ConnectionClosed) and lost.rcvd else 1006
            for reply in self._replies.values():
                if not reply.done():
                    reply.set_exception(ConnectionError(f"connection lost ({code})"))
            if not self._reconnect or 4000 <= code < 4100:
                raise WdsError(str(code), "the server closed the connection") from None

    async def _come_back(self) -> None:
        for attempt in itertools.count():
            pause_s = backoff_s(attempt, random.random(), 0.5, 30.0) if self._after_ms is None else self._after_ms / 1000
            await asyncio.sleep(pause_s)
            with contextlib.suppress(OSError, TimeoutError, ConnectionClosed, InvalidHandshake):
                try:
                    await self._open()
                    await self._resume()
                    return
                except WdsError as refused:
                    if not refused.retry:
                        raise

    async def _resume(self) -> None:
        by_extra: dict[str, list[str]] = {}
        for name, extra in self._asked.items():
            by_extra.setdefault(orjson.dumps(extra).decode(), []).append(name)
        for extra_text, names in by_extra.items():
            for at in range(0, len(names), PER_COMMAND):
                part = names[at : at + PER_COMMAND]
                since = self.follower.since(self._covered(part))
                await self._send({"op": "sub", "ch": part, "since": since, **orjson.loads(extra_text)})

    def _covered(self, names: list[str]) -> list[str]:
        kinds = tuple(name[:-1] for name in names if name.endswith(":*"))
        return [ch for ch in self.follower.copies if ch in names or (kinds and ch.startswith(kinds))][: 4 * PER_COMMAND]

    async def _take(self, frame: dict[str, Any]) -> None:
        kind = frame.get("t")
        if kind is None:
            self._answered(frame)
        elif kind == "ping":
            await self._send({"op": "pong"})
        elif kind == "auth_expiring":
            await self._refresh()
        elif kind == "bye":
            self._after_ms = frame.get("after_ms")
        else:
            await self._push(frame)

    async def _push(self, frame: dict[str, Any]) -> None:
        was_broken = frame.get("ch") in self.follower.broken
        push = self.follower.take(frame)
        if push is not None:
            await self._pushes.put(push)
        elif not was_broken and frame.get("ch") in self.follower.broken:
            await self._send({"id": f"mend:{frame['ch']}"[:64], "op": "get", "ch": [frame["ch"]]})

    async def _refresh(self) -> None:
        if callable(self._token):
            token = self._token()
            await self._send({"op": "auth", "token": await token if inspect.isawaitable(token) else token})

    def _answered(self, frame: dict[str, Any]) -> None:
        reply = self._replies.get(frame["id"]) if isinstance(frame.get("id"), int) else None
        if reply is not None and not reply.done():
            reply.set_result(frame)
        for snap in frame.get("snaps", ()):
            if "error" not in snap and (snap["ch"] in self.follower.copies or snap["ch"] in self.follower.broken):
                self.follower.mend(snap)
                if isinstance(frame.get("id"), str):
                    with contextlib.suppress(asyncio.QueueFull):
                        self._pushes.put_nowait(Push("snap", snap["ch"], {"t": "snap", **snap}, self.follower.copies[snap["ch"]]))
