"""Speaks the protocol as a bare WebSocket client that does nothing by itself, to show what is on the wire."""

from __future__ import annotations

import asyncio
import json
from typing import Any, Self

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed


class Talk:
    """A connection; every received object, and every array of the compact form, is kept in `heard`."""

    def __init__(self, socket: ClientConnection) -> None:
        self.socket = socket
        self.heard: list[dict[str, Any]] = []
        self.code: int | None = None
        self._ids = 100
        self._task = asyncio.create_task(self._listen())

    @classmethod
    async def to(cls, port: int, token: str | None = None, query: str = "", **more: Any) -> Self:
        """Connect, and authenticate when a token is given."""
        url = f"ws://127.0.0.1:{port}/v1/stream{query}"
        socket = await connect(url, compression=None, max_size=None, ping_interval=None, **more)
        talk = cls(socket)
        if token is not None:
            reply = await talk.ask(op="auth", token=token)
            assert reply["ok"], reply
        return talk

    async def _listen(self) -> None:
        try:
            async for text in self.socket:
                frame = json.loads(text)
                several = isinstance(frame, list) and not isinstance(frame[0], int)
                self.heard += frame if several else [frame]
        except ConnectionClosed:
            pass
        self.code = self.socket.close_code

    async def send(self, **command: Any) -> None:
        await self.socket.send(json.dumps(command))

    async def ask(self, **command: Any) -> dict[str, Any]:
        """Send a command and return its reply."""
        self._ids += 1
        number = self._ids
        await self.send(id=number, **command)
        return await self.find(id=number)

    def all(self, **wanted: Any) -> list[dict[str, Any]]:
        """Return what was heard so far with these fields."""
        return [
            item
            for item in self.heard
            if isinstance(item, dict) and all(item.get(name) == value for name, value in wanted.items())
        ]

    async def find(self, seconds: float = 5, **wanted: Any) -> dict[str, Any]:
        """Wait for the first object with these fields."""
        return (await self.count(1, seconds, **wanted))[0]

    async def count(self, n: int, seconds: float = 5, **wanted: Any) -> list[dict[str, Any]]:
        """Wait until `n` objects with these fields were heard."""
        deadline = asyncio.get_running_loop().time() + seconds
        while len(found := self.all(**wanted)) < n:
            if asyncio.get_running_loop().time() > deadline:
                raise AssertionError(f"{len(found)} of {n} with {wanted} within {seconds} s; heard last: {self.heard[-5:]}")
            await asyncio.sleep(0.005)
        return found

    async def closed(self, seconds: float = 5) -> int | None:
        """Wait for the end of the connection; return its close code."""
        async with asyncio.timeout(seconds):
            await asyncio.shield(self._task)
        return self.code

    async def close(self) -> None:
        await self.socket.close()
        await self._task
