"""Does what the original service's browser client does with its socket: auth, get and subscribe in one go, then it listens."""

from __future__ import annotations

import asyncio
import json
from typing import Any, Self

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from tests.waiting import PATIENCE, until


class App:
    """One widget's connection. Every message is kept in `heard` as the app reads it, whole: it knows no arrays of frames."""

    def __init__(self, socket: ClientConnection) -> None:
        self.socket = socket
        self.heard: list[Any] = []
        self._reads = asyncio.Event()
        self._reads.set()
        self._task = asyncio.create_task(self._listen())

    @classmethod
    async def to(cls, port: int, key: str | None = None, feed: str = "", cache: str = "", limit: int = 0, **more: Any) -> Self:
        """Connect and send, without waiting for an answer, what the client sends when its socket opens."""
        app = cls(await connect(f"ws://127.0.0.1:{port}/ws", compression=None, max_size=None, ping_interval=None, **more))
        if key is not None:
            await app.send(action="auth", api_key=key)
        if cache:
            await app.send(action="get", cache=cache, **({"limit": limit} if limit else {}))
        if feed:
            await app.send(action="subscribe", feed=feed)
        return app

    async def _listen(self) -> None:
        try:
            async for text in self.socket:
                self.heard.append(json.loads(text))
                await self._reads.wait()
        except ConnectionClosed:
            pass

    def pause(self) -> None:
        """Read nothing more: what is sent fills the buffers on the way."""
        self._reads.clear()

    def go_on(self) -> None:
        """Read again."""
        self._reads.set()

    async def send(self, **frame: Any) -> None:
        await self.socket.send(json.dumps(frame))

    def pushes(self) -> list[Any]:
        """What came that is neither a status nor the answer to a get."""
        return [one for one in self.heard if not (isinstance(one, dict) and ("status" in one or "cache" in one))]

    def all(self, **wanted: Any) -> list[dict[str, Any]]:
        found = [one for one in self.heard if isinstance(one, dict)]
        return [one for one in found if all(one.get(name) == value for name, value in wanted.items())]

    async def find(self, seconds: float = 10, **wanted: Any) -> dict[str, Any]:
        """Wait for the first object with these fields."""
        return (await until(lambda: self.all(**wanted), seconds, f"{wanted}; heard {self.heard[-4:]}"))[0]  # type: ignore[no-any-return]

    async def push(self, n: int = 1, seconds: float = 10) -> Any:
        """Wait until `n` pushes came; return the last of them."""
        return (await until(lambda: self.pushes()[:n] if len(self.pushes()) >= n else None, seconds, f"heard {self.heard[-4:]}"))[
            -1
        ]

    async def status(self, status: str, **more: Any) -> dict[str, Any]:
        return await self.find(status=status, **more)

    async def document(self, cache: str, n: int = 1) -> Any:
        """Wait for the answer to the `n`-th get of this key; return its data."""
        return (await until(lambda: self.all(cache=cache)[n - 1 :], 10, f"{cache}; heard {self.heard[-4:]}"))[0]["data"]

    async def closed(self, seconds: float = 10) -> int | None:
        """Wait for the end of the connection; return its close code."""
        async with asyncio.timeout(seconds * PATIENCE):
            await asyncio.shield(self._task)
        return self.socket.close_code

    async def close(self) -> None:
        await self.socket.close()
        await self._task
