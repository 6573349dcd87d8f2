"""A cable between a process and a server that a test can cut, or let hang without a word."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from urllib.parse import urlsplit, urlunsplit

CHUNK_BYTES = 65_536


class Cable:
    """Forwards a loopback port to a server's. `cut` resets and refuses; `hang` keeps connections and forwards nothing.

    `hang_answers` and `hang_questions` do that in one direction only.
    """

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        assert parts.hostname is not None
        self._target = (parts.hostname, parts.port)
        self._ways = asyncio.Event(), asyncio.Event()  # to the server, back from it
        self._refusing = False
        self._writers: set[asyncio.StreamWriter] = set()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self._server = self._call(asyncio.start_server(self._serve, "127.0.0.1", 0))
        self.port: int = self._server.sockets[0].getsockname()[1]
        user = f"{parts.netloc.rpartition('@')[0]}@" if "@" in parts.netloc else ""
        self.url = urlunsplit(parts._replace(netloc=f"{user}127.0.0.1:{self.port}"))
        self.mend()

    def cut(self) -> None:
        """Break every connection and let none be made."""
        self._refusing = True
        self._run(self._drop)

    def hang(self) -> None:
        """Forward nothing any more; nobody is told."""
        self.hang_questions()
        self.hang_answers()

    def hang_questions(self) -> None:
        """Forward nothing to the server."""
        self._run(self._ways[0].clear)

    def hang_answers(self) -> None:
        """Forward nothing that comes back."""
        self._run(self._ways[1].clear)

    def mend(self) -> None:
        """Forward again."""
        self._refusing = False
        for way in self._ways:
            self._run(way.set)

    def close(self) -> None:
        """Remove the cable."""
        self.cut()
        self._run(self._server.close)
        self._run(self._loop.stop)
        self._thread.join(5)

    def __enter__(self) -> Cable:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _call(self, coroutine):  # type: ignore[no-untyped-def]
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(5)

    def _run(self, call) -> None:  # type: ignore[no-untyped-def]
        self._loop.call_soon_threadsafe(call)

    def _drop(self) -> None:
        for writer in list(self._writers):
            writer.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._refusing:
            writer.transport.abort()
            return
        far_reader, far_writer = await asyncio.open_connection(*self._target)
        self._writers |= {writer, far_writer}
        try:
            await asyncio.gather(self._forward(reader, far_writer, 0), self._forward(far_reader, writer, 1))
        finally:
            for one in (writer, far_writer):
                self._writers.discard(one)
                one.transport.abort()

    async def _forward(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, way: int) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(CHUNK_BYTES):
                await self._ways[way].wait()
                writer.write(data)
                await writer.drain()
        writer.transport.abort()
