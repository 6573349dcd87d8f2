"""Takes a connection from the server's thread to the loop of the calls out, where a long answer costs no thread.

gunicorn's thread sends the head and the first bytes as of any answer. Then the connection goes to the loop under a number of its
own, and gunicorn's number is made that of a dead end: whatever it writes, shuts down or closes afterwards reaches nobody.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Iterator
from typing import Any
from wsgiref.types import WSGIEnvironment

from scp.fleet.paper_streams import Place

UNREAD_BYTES_MAX = 256 << 10  # a page that does not read has so much before it; then it is let go, and comes again
LAST_S = 5.0  # for the last word to be read
FIRST = b"retry: 1000\n\n"


class Stream(asyncio.Protocol):
    """A page's connection on the loop."""

    def __init__(self, place: Place, chunked: bool) -> None:
        self.session = place.session
        self._place = place
        self._chunked = chunked
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin to hear."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._place.streams.join(self, self._place.account)

    def data_received(self, data: bytes) -> None:
        """Nobody asks anything on this connection any more."""

    def connection_lost(self, exc: Exception | None) -> None:
        """The page went, or was let go."""
        self._place.streams.part(self, self._place.account)
        self._place.leave()

    def send(self, event: bytes) -> None:
        """Send an event; who has not read the ones before is let go."""
        transport = self._transport
        if transport is None or transport.is_closing():
            return
        if transport.get_write_buffer_size() > UNREAD_BYTES_MAX:
            transport.abort()
            return
        transport.write(b"%x\r\n%b\r\n" % (len(event), event) if self._chunked else event)

    def end(self, event: bytes) -> None:
        """Send a last event and close."""
        self.send(event)
        if self._transport is not None and not self._transport.is_closing():
            if self._chunked:
                self._transport.write(b"0\r\n\r\n")
            self._transport.close()
            asyncio.get_running_loop().call_later(LAST_S, self._transport.abort)


class Handed:
    """The body of an answer that goes on elsewhere: what gunicorn iterates over."""

    def __init__(self, environ: WSGIEnvironment, place: Place, begin: Any) -> None:
        """`begin` lets a coroutine go on, on the loop of the calls out."""
        self._socket: socket.socket = environ["gunicorn.socket"]
        self._chunked = environ["SERVER_PROTOCOL"] == "HTTP/1.1"
        self._place = place
        self._begin = begin
        self._dead_end: socket.socket | None = None

    def __iter__(self) -> Iterator[bytes]:
        yield FIRST
        taken = socket.socket(fileno=os.dup(self._socket.fileno()))
        stand_in, self._dead_end = socket.socketpair()
        os.dup2(stand_in.fileno(), self._socket.fileno(), inheritable=False)
        stand_in.close()
        taken.setblocking(False)
        self._begin(_adopt(taken, Stream(self._place, self._chunked)))

    def close(self) -> None:
        """Called when gunicorn has done with it, or the page went before it had the first bytes."""
        if self._dead_end is None:
            self._place.leave()
        else:
            self._dead_end.close()


async def _adopt(taken: socket.socket, stream: Stream) -> None:
    try:
        await asyncio.get_running_loop().connect_accepted_socket(lambda: stream, taken)
    except OSError:
        taken.close()
        stream.connection_lost(None)
