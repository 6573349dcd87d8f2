"""Speaks the protocol over a bare socket with small buffers that reads only when told to: a client that stalls and recovers."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
from typing import Any, Self

from tests.waiting import until
from wds.server import Server
from wds.transport.connection import Connection

HANDSHAKE = (
    b"GET /v1/stream HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
)


class Raw:
    """One client; what it has read is kept in `heard`."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.heard: list[dict[str, Any]] = []
        self.ended = False
        self.first_line = ""
        self._bytes = bytearray()
        self._greeted = False

    @classmethod
    async def to(cls, port: int, receive_bytes: int = 4096, address: str = "127.0.0.1", silent: bool = False) -> Self:
        """Connect from `address` and, unless `silent`, send the handshake; read nothing."""
        sock = socket.socket()
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
        sock.setblocking(False)
        sock.bind((address, 0))
        await asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", port))
        raw = cls(sock)
        if not silent:
            await raw.write(HANDSHAKE)
        return raw

    async def write(self, data: bytes) -> None:
        await asyncio.get_running_loop().sock_sendall(self.sock, data)

    async def send(self, **command: Any) -> None:
        """Send a command as one masked frame (with a mask of zeros)."""
        payload = json.dumps(command).encode()
        size = len(payload)
        head = bytes([0x81, 0x80 | size]) if size < 126 else bytes([0x81, 0xFE]) + size.to_bytes(2, "big")
        await self.write(head + bytes(4) + payload)

    def read(self, most: int = 1 << 20) -> list[dict[str, Any]]:
        """Take what has arrived, at most `most` bytes; return everything heard so far."""
        left = most
        while left > 0 and not self.ended:
            try:
                data = self.sock.recv(min(left, 65_536))
            except BlockingIOError:
                break
            except OSError:
                data = b""
            self.ended = not data
            self._bytes += data
            left -= len(data)
        self._take()
        return self.heard

    def _take(self) -> None:
        buffer = self._bytes
        if not self._greeted:
            end = buffer.find(b"\r\n\r\n")
            if end < 0:
                return
            self.first_line = bytes(buffer).partition(b"\r\n")[0].decode()
            del buffer[: end + 4]
            self._greeted = True
        at = 0
        while at + 2 <= len(buffer):
            opcode, size, head = buffer[at] & 15, buffer[at + 1], 2
            if size >= 126:
                more = 2 if size == 126 else 8
                size, head = int.from_bytes(buffer[at + 2 : at + 2 + more], "big"), 2 + more
            if at + head + size > len(buffer):
                break
            payload = bytes(buffer[at + head : at + head + size])
            at += head + size
            if opcode == 8:
                self.heard.append({"t": "close", "code": int.from_bytes(payload[:2], "big")})
            elif opcode == 1:
                frame = json.loads(payload)
                self.heard += frame if isinstance(frame, list) else [frame]
        del buffer[:at]

    def all(self, **wanted: Any) -> list[dict[str, Any]]:
        """Return what was heard so far with these fields, without reading."""
        return [item for item in self.heard if all(item.get(name) == value for name, value in wanted.items())]

    async def find(self, seconds: float = 10, **wanted: Any) -> dict[str, Any]:
        """Read until an object with these fields was heard."""

        def found() -> list[dict[str, Any]]:
            self.read()
            return self.all(**wanted)

        return (await until(found, seconds, f"{wanted}; heard last {self.heard[-3:]}"))[0]  # type: ignore[no-any-return]

    async def sign_in(self, token: str) -> str:
        """Authenticate; return the connection's name."""
        await self.send(id=0, op="auth", token=token)
        assert (await self.find(id=0))["ok"]
        return str(self.all(t="hello")[0]["conn"])

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self.sock.close()


def connection_of(server: Server, name: str) -> Connection:
    """Return the server's side of a client."""
    return next(one for one in server.roster if one.session is not None and one.session.conn == name)
