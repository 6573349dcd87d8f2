"""Plays many clients of the stream in a process of its own, with sockets and nothing else: `python -m tests.containers.crowd`.

It shares the machine with the stack that it looks at, so a client costs some microseconds a frame: no library, no copy of what it
hears, only the numbers. Each follows one channel of events, comes back when it is sent off, as the protocol says, and resumes; a
step in the numbers that nothing declares is counted. Lines of JSON come in (first where and how many, then tokens, at last a question)
and one goes out for the start and one for the answer. It ends with its standard input.
"""

from __future__ import annotations

import asyncio
import base64
import os
import random
import sys
import time
from dataclasses import asdict, dataclass, field
from typing import Any, cast

import orjson
import uvloop

from service.run import backoff_s
from wds.protocol import SUBPROTOCOL

CONNECT_S_MAX = 5.0  # as wds/client/client.py
SIGN_IN_S_MAX = 10.0
BACKOFF_S = (0.5, 10.0)
AT_ONCE = 25  # that come the first time
TEXT, CLOSE = 1, 8


@dataclass
class Loss:
    """How one client was lost and came back; times by the machine's monotonic clock, which all processes share."""

    code: int
    after_ms: int | None
    lost_s: float
    asked_s: float = 0.0  # the try that succeeded began
    open_s: float = 0.0  # its WebSocket was open
    known_s: float = 0.0  # its token was taken
    back_s: float = 0.0  # its channel goes on
    refusals: list[str] = field(default_factory=list)  # of the tries before


def upgrade(host: str) -> bytes:
    """Return the request that opens a WebSocket."""
    key = base64.b64encode(os.urandom(16)).decode()
    return (
        f"GET /v1/stream HTTP/1.1\r\nHost: {host}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        f"Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Protocol: {SUBPROTOCOL}\r\n\r\n"
    ).encode()


def masked(command: dict[str, Any]) -> bytes:
    """Return a command as a client's text frame."""
    payload = orjson.dumps(command)
    size = bytes([0x81, 0x80 | len(payload)]) if len(payload) < 126 else b"\x81\xfe" + len(payload).to_bytes(2, "big")
    return size + b"\0\0\0\0" + payload


def frames(taken: bytearray) -> list[tuple[int, bytes]]:
    """Take the whole frames out of what a server sent; return (opcode, payload) of each."""
    found, at = [], 0
    while len(taken) >= at + 2:
        size, head = taken[at + 1] & 0x7F, 2
        if size > 125:
            head = 4 if size == 126 else 10
            if len(taken) < at + head:
                break
            size = int.from_bytes(taken[at + 2 : at + head], "big")
        if len(taken) < at + head + size:
            break
        found.append((taken[at] & 0xF, bytes(taken[at + head : at + head + size])))
        at += head + size
    del taken[:at]
    return found


class Viewer(asyncio.Protocol):
    """One client, over all its connections."""

    def __init__(self, place: Place, channel: str) -> None:
        self._place = place
        self._channel = channel
        self._wire: asyncio.Transport | None = None
        self._taken = bytearray()
        self._shaken = False
        self._since: dict[str, Any] = {}  # epoch and seq
        self._ending: int | None = None  # with which code the server ends the connection
        self._after_ms: int | None = None
        self._tries = 0
        self._guard: asyncio.TimerHandle | None = None
        self.arrived = asyncio.Event()
        self.losses: list[Loss] = []
        self.kinds: dict[str, int] = {}
        self.skipped = 0
        self.declared = 0

    @property
    def away(self) -> Loss | None:
        """Return the loss that is not over."""
        return self.losses[-1] if self.losses and not self.losses[-1].back_s else None

    # A connection's life

    async def connect(self) -> None:
        """Try once; whatever goes wrong comes back here later."""
        self._shaken, self._ending, self._after_ms, self._taken = False, None, None, bytearray()
        if self.away is not None:
            self.away.asked_s = time.monotonic()
        try:
            async with asyncio.timeout(CONNECT_S_MAX):
                await asyncio.get_running_loop().create_connection(lambda: self, self._place.host, self._place.port)
        except (OSError, TimeoutError) as fault:
            self._refused(type(fault).__name__)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._wire = cast(asyncio.Transport, transport)
        self._wire.write(upgrade(f"{self._place.host}:{self._place.port}"))
        self._guard = asyncio.get_running_loop().call_later(SIGN_IN_S_MAX, self._wire.abort)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._guard is not None:
            self._guard.cancel()
        if not self._place.open:
            return
        if self.away is not None or not self.arrived.is_set():
            self._refused(str(self._ending or "lost"))
            return
        self.losses.append(Loss(self._ending or 1006, self._after_ms, time.monotonic()))
        self._tries = 0
        self._later(0.0 if self._after_ms is not None else self._jitter_s())

    def _refused(self, why: str) -> None:
        if self.away is not None:
            self.away.refusals.append(why)
        self._tries += 1
        self._later(self._jitter_s())

    def _jitter_s(self) -> float:
        return backoff_s(self._tries, random.random(), *BACKOFF_S)

    def _later(self, pause_s: float) -> None:
        asyncio.get_running_loop().call_later((self._after_ms or 0) / 1000 + pause_s, self._place.start, self.connect())

    # What is heard

    def data_received(self, data: bytes) -> None:
        self._taken += data
        if not self._shaken:
            head, end, rest = self._taken.partition(b"\r\n\r\n")
            if not end:
                return
            if b" 101 " not in head[:20]:
                self._ending = int(head[9:12])
                cast(asyncio.Transport, self._wire).abort()
                return
            self._shaken, self._taken = True, rest
            if self.away is not None:
                self.away.open_s = time.monotonic()
            self._say({"id": 1, "op": "auth", "token": self._place.token})
        for opcode, payload in frames(self._taken):
            if opcode == TEXT:
                said = orjson.loads(payload)
                for one in said if isinstance(said, list) else (said,):
                    self._hear(one)
            elif opcode == CLOSE:
                self._ending = int.from_bytes(payload[:2], "big") or 1005
                cast(asyncio.Transport, self._wire).write(b"\x88\x82\0\0\0\0" + payload[:2])

    def _say(self, command: dict[str, Any]) -> None:
        cast(asyncio.Transport, self._wire).write(masked(command))

    def _hear(self, one: dict[str, Any]) -> None:
        kind = one.get("t", "")
        if kind in ("event", "snap", "lost"):
            self._push(kind, one)
        elif kind == "ping":
            self._say({"op": "pong"})
        elif kind == "auth_expiring":
            self._say({"id": 3, "op": "auth", "token": self._place.token})
        elif kind == "bye":
            self._after_ms = one.get("after_ms")
        elif one.get("id") == 1 and one["ok"]:
            if self.away is not None:
                self.away.known_s = time.monotonic()
            since = {"since": {self._channel: self._since}} if self._since else {}
            self._say({"id": 2, "op": "sub", "ch": [self._channel], **since})
        elif one.get("id") == 2 and one["ok"]:
            cast(asyncio.TimerHandle, self._guard).cancel()
            self._tries = 0
            if self.away is not None:
                self.away.back_s = time.monotonic()
            self.arrived.set()

    def _push(self, kind: str, one: dict[str, Any]) -> None:
        self.kinds[kind] = self.kinds.get(kind, 0) + 1
        if kind == "lost":
            self.declared += one["n"]
            self._since["seq"] += one["n"]
            return
        if kind == "event":
            self.skipped += one["prev"] != self._since.get("seq")
            self._since["seq"] = one["seq"]
        else:
            self._since = {"epoch": one["epoch"], "seq": one["seq"]}


class Place:
    """Where the clients go, and the token that they share."""

    def __init__(self, host: str, port: int, token: str) -> None:
        self.host, self.port, self.token = host, port, token
        self.open = True
        self._tasks: set[asyncio.Task[None]] = set()

    def start(self, body: Any) -> None:
        """Run something beside the rest."""
        task = asyncio.ensure_future(body)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def _told(viewers: list[Viewer]) -> dict[str, Any]:
    kinds: dict[str, int] = {}
    for one in viewers:
        for kind, count in one.kinds.items():
            kinds[kind] = kinds.get(kind, 0) + count
    return {
        "losses": [[asdict(loss) for loss in one.losses] for one in viewers], "kinds": kinds,
        "skipped": sum(one.skipped for one in viewers), "declared": sum(one.declared for one in viewers),
        "away": sum(one.away is not None for one in viewers), "cpu_s": time.process_time(),
    }  # fmt: skip


async def _join(place: Place, viewers: list[Viewer]) -> None:
    for at in range(0, len(viewers), AT_ONCE):
        some = viewers[at : at + AT_ONCE]
        for one in some:
            place.start(one.connect())
        for one in some:
            await one.arrived.wait()
    print(orjson.dumps({"ready": len(viewers)}).decode(), flush=True)


async def _play() -> None:
    reader = asyncio.StreamReader(limit=1 << 20)
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    given = orjson.loads(await reader.readline())
    place = Place(given["host"], given["port"], given["token"])
    viewers = [Viewer(place, given["channels"][at % len(given["channels"])]) for at in range(given["clients"])]
    place.start(_join(place, viewers))
    while line := await reader.readline():
        said = orjson.loads(line)
        place.token, place.port = said.get("token", place.token), said.get("port", place.port)
        if "tell" in said:
            print(orjson.dumps(_told(viewers)).decode(), flush=True)
    place.open = False


if __name__ == "__main__":
    uvloop.run(_play())
