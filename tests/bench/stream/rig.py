"""Runs a worker and a crowd of clients as two processes, which a benchmark controls over pipes in lines of JSON.

The worker is the real server around an in-process cache; documents enter where Redis messages do. The crowd counts frames
without parsing them and times one frame a received chunk: a slower client would measure itself.
"""

from __future__ import annotations

import asyncio
import base64
import gc
import json
import os
import random
import re
import resource
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, cast

import uvloop

from service.run import GC_THRESHOLD
from tests.waiting import until

ROOT = Path(__file__).resolve().parents[3]
CHANNEL = "quote:BENCH"
BOARDS = ("volume", "gainers", "losers", "gappers")
MANY = 1_000_000
LONG_NUMBER = re.compile(rb"[,\[](\d{12,})[,\]]")


class Child:
    """One of the two processes."""

    def __init__(self, role: str, **given: Any) -> None:
        code = f"from tests.bench.stream import rig; rig.{role}({json.dumps(given)!r})"
        self._process = subprocess.Popen(
            [sys.executable, "-c", code], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def hear(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if line.startswith("{"):
                found: dict[str, Any] = json.loads(line)
                return found
        raise RuntimeError(f"the child ended with {self._process.wait()}")

    def tell(self, **command: Any) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(command) + "\n")
        self._process.stdin.flush()

    def ask(self, **command: Any) -> dict[str, Any]:
        self.tell(**command)
        return self.hear()

    def end(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()


def say(**facts: Any) -> None:
    print(json.dumps(facts), flush=True)


async def _commands() -> asyncio.StreamReader:
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    return reader


# The worker


def server(given: str) -> None:
    """Run a worker; commands: {"publish": docs a second, "seconds", "burst"} and {"memory": true}."""
    uvloop.run(_serve(**json.loads(given)))


async def _serve(**settings: Any) -> None:
    from wds.access.keys import mint_local
    from wds.server import Server
    from wds.settings import WdsSettings

    with tempfile.TemporaryDirectory() as folder:
        limits = dict.fromkeys(("per_user_max", "per_address_max", "unauthenticated_max", "connections_max"), MANY)
        given = {"mdc_url": "memory://bench", "run_dir": folder, "port": 0, **limits, **settings}
        worker = Server(WdsSettings(**given))
        await worker.start()
        say(port=worker.port, token=mint_local(Path(folder)))
        commands = await _commands()
        publisher = _Publisher(worker)
        turns = _Turns()
        while line := await commands.readline():
            command = json.loads(line)
            if "fill" in command:
                await publisher.fill(command["fill"])
                say(filled=command["fill"])
            elif "pages" in command:
                say(**await publisher.pages(command["pages"], command["seconds"], command["universe"]))
            elif "turns" in command:
                say(**await turns.take(command["turns"], worker))
            elif "publish" in command:
                say(**await publisher.publish(command["publish"], command["seconds"], command["burst"]))
            else:
                say(rss_bytes=_rss_bytes(), connections=worker.census.connections)
        await worker.stop()


class _Turns:
    """Measures the loop's turns in processor time: what others of this machine take of it is not the worker's."""

    def __init__(self) -> None:
        self._longest_s = 0.0
        self._task: asyncio.Task[None] | None = None

    async def take(self, what: str, worker: Any) -> dict[str, Any]:
        """`begin` measuring; `end` it; `outage` = measure how long the cache's return takes, until all channels are warm."""
        if what == "begin":
            gc.collect()
            gc.freeze()
            gc.set_threshold(*GC_THRESHOLD)  # as a worker's own process has it
            self._longest_s = 0.0
            self._task = asyncio.create_task(self._watch())
            return {"measuring": True}
        began = time.monotonic()
        if what == "outage":
            worker.upstream._on_state(False, "gone")
            await asyncio.sleep(0.2)
            began = time.monotonic()
            worker.upstream._on_state(True, "")
            await until(lambda: all(topic.channel.warm for topic in worker.hub._topics.values()), 60, every_s=0.02)
        took_s = time.monotonic() - began
        if what == "end" and self._task is not None:
            self._task.cancel()
        return {"longest_s": self._longest_s, "seconds": took_s, "channels": worker.hub.watched}

    async def _watch(self) -> None:
        while True:
            began = time.thread_time()
            await asyncio.sleep(0)
            self._longest_s = max(self._longest_s, time.thread_time() - began)


class _Publisher:
    def __init__(self, worker: Any) -> None:
        self._worker = worker
        self._seq = 0
        self._dice = random.Random(7)

    async def publish(self, docs_s: float, seconds: float, burst: int) -> dict[str, Any]:
        """Publish at an even rate, `burst` documents a message; return what the worker's loop spent on it."""
        loop = asyncio.get_running_loop()
        began, cpu = loop.time(), time.process_time()
        sent, busy_s = 0, 0.0
        while loop.time() - began < seconds:
            entered = loop.time()
            self._worker.upstream._on_docs(self._message(burst))
            busy_s += loop.time() - entered
            sent += burst
            pause_s = began + sent / docs_s - loop.time()
            # A late publisher still lets the sockets have their turn: a burst without one would measure buffers.
            await asyncio.sleep(max(0.0, pause_s))
        took_s = loop.time() - began
        return {"docs": sent, "seconds": took_s, "hand_over_s": busy_s, "cpu_s": time.process_time() - cpu}

    async def fill(self, universe: int) -> None:
        """Put every channel of the page into the cache."""
        from mdc import keys
        from mdc.connect import open_cache

        cache = open_cache(self._worker.settings.mdc_url, "bench")
        for doc in [*(self._quote(n) for n in range(universe)), *(self._board(name) for name in BOARDS)]:
            await cache.set(keys.document(doc["ch"]), json.dumps(doc))
        await cache.sadd(keys.index("quote"), *(f"S{n:04d}" for n in range(universe)))
        await cache.aclose()

    async def pages(self, updates_s: float, seconds: float, universe: int) -> dict[str, Any]:
        """Publish quotes of random symbols in batches of 10 ms, and each board once a second; making them is not counted."""
        from mdc.documents import decode_message
        from wds import meter

        loop = asyncio.get_running_loop()
        began, cpu, frames = loop.time(), time.process_time(), meter.frames._value.get()
        sent, boards_at, made_s = 0, 0.0, 0.0
        while loop.time() - began < seconds:
            entered = time.process_time()
            burst = max(1, int(updates_s * 0.01))
            docs = [self._quote(self._dice.randrange(universe)) for _ in range(burst)]
            if loop.time() >= boards_at:
                boards_at = loop.time() + 1.0
                docs += [self._board(name) for name in BOARDS]
            body = json.dumps(docs, separators=(",", ":")).encode()
            made_s += time.process_time() - entered
            self._worker.upstream._on_docs(decode_message(body))
            sent += burst
            await asyncio.sleep(max(0.0, began + sent / updates_s - loop.time()))
        took_s = loop.time() - began
        cpu_s = time.process_time() - cpu - made_s
        return {"docs": sent, "seconds": took_s, "cpu_s": cpu_s, "frames": meter.frames._value.get() - frames}

    def _quote(self, n: int) -> dict[str, Any]:
        self._seq += 1
        price = round(100 + self._dice.random() * 10, 2)
        state = {
            "last": price, "bid": time.monotonic_ns(), "ask": price + 0.01, "bid_size": self._dice.randrange(900), "ask_size": 300,
            "open": 100.0, "high": 111.0, "low": 99.0, "volume": self._seq, "vwap": 104.5, "trades": self._seq,
            "prev_close": 99.5, "change": 1.25, "change_pct": 1.2, "session": "regular", "ts": 1_700_000_000_000,
        }  # fmt: skip
        return {"ch": f"quote:S{n:04d}", "epoch": "b", "seq": self._seq, "ts": time.time_ns() // 1_000_000, "data": state}

    def _board(self, name: str) -> dict[str, Any]:
        self._seq += 1
        order = [f"S{self._dice.randrange(2500):04d}" for _ in range(50)]
        rows = {sym: {"sym": sym, "last": self._dice.random(), "volume": self._seq} for sym in order}
        state = {"order": list(rows), "rows": rows}
        return {"ch": f"board:{name}", "epoch": "b", "seq": self._seq, "ts": time.time_ns() // 1_000_000, "data": state}

    def _message(self, burst: int) -> Any:
        from mdc.documents import decode_message

        docs = []
        for _ in range(burst):
            self._seq += 1
            now_ns = time.monotonic_ns()
            state = {"last": self._seq, "bid": now_ns, "vwap": f"{self._seq:060d}"}
            docs.append({"ch": CHANNEL, "epoch": "b", "seq": self._seq, "ts": time.time_ns() // 1_000_000, "data": state})
        return decode_message(json.dumps(docs, separators=(",", ":")).encode())


def _rss_bytes() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize()


# The crowd


def crowd(given: str) -> None:
    """Connect clients; commands: {"measure": seconds} counts and times frames, {"stall": n} stops reading on n of them."""
    uvloop.run(_crowd(**json.loads(given)))


async def _crowd(port: int, token: str, clients: int, subscribe: bool) -> None:
    count = _Count()
    members = []
    for at in range(0, clients, 50):
        members += await asyncio.gather(*(_Reader.connect(port, token, count, subscribe) for _ in range(min(50, clients - at))))
    say(ready=len(members))
    commands = await _commands()
    while line := await commands.readline():
        command = json.loads(line)
        if "stall" in command:
            for member in members[: command["stall"]]:
                member.stall()
            say(stalled=command["stall"])
        elif "start" in command:
            count.begin()
            say(started=True)
        else:
            say(**count.end())


def pages(given: str) -> None:
    """Connect pages when told {"connect": true}; then as the crowd."""
    uvloop.run(_pages(**json.loads(given)))


async def _pages(port: int, token: str, clients: int, quotes: int, universe: int, kind: str, form: str = "json") -> None:
    dice, count = random.Random(3), _Count()
    commands = await _commands()
    await commands.readline()
    same = dice.sample(range(universe), quotes)
    for at in range(0, clients, 20):
        wanted = []
        for _ in range(min(20, clients - at)):
            own = same if kind == "shared" else dice.sample(range(universe), quotes)
            focus = dice.choice(own)
            names = [f"quote:S{n:04d}" for n in own if n != focus] + [f"board:{name}" for name in BOARDS]
            wanted.append([{"op": "sub", "ch": names, "hz": 4}, {"op": "sub", "ch": [f"quote:S{focus:04d}"], "hz": "raw"}])
        await asyncio.gather(*(_Reader.connect(port, token, count, True, subs, form) for subs in wanted))
    say(ready=clients)
    while line := await commands.readline():
        if "start" in json.loads(line):
            count.begin()
            say(started=True)
        else:
            say(**count.end())


def greedy(given: str) -> None:
    """Ask for too much in the way of `kind` on {"start": true} until {"stop": true}; says how many bytes came of it."""
    uvloop.run(_greedy(**json.loads(given)))


# What one greedy client sends at once; it comes back when it has been sent away.
GREED: dict[str, list[dict[str, Any]]] = {
    "gets": [{"op": "get", "ch": ["quote:*"]}] * 100,
    "subs": [{"op": "sub", "ch": [f"quote:Z{n:05d}" for n in range(at, at + 500)]} for at in range(0, 20_000, 500)],
    "nothing": [{"op": op, "ch": ["halts:*"]} for op in ("sub", "get", "unsub")] * 33,
}


async def _greedy(port: int, token: str, kind: str) -> None:
    commands = await _commands()
    while await commands.readline():
        stop = asyncio.ensure_future(commands.readline())
        taken, rounds = 0, 0
        while not stop.done():
            reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1 << 22)
            writer.write(_upgrade())
            writer.write(_masked({"id": 1, "op": "auth", "token": token}))
            for number, command in enumerate(GREED[kind], 2):
                writer.write(_masked({"id": number, **command}))
            begun = time.monotonic()
            rounds += 1
            while not stop.done() and time.monotonic() - begun < 1.0:  # then anew, with a new allowance
                try:
                    async with asyncio.timeout(0.05):
                        data = await reader.read(1 << 20)
                except TimeoutError:
                    continue
                if not data:
                    break
                taken += len(data)
            writer.close()
        await stop
        say(bytes=taken, rounds=rounds)


def _upgrade() -> bytes:
    key = base64.b64encode(os.urandom(16)).decode()
    return (
        f"GET /v1/stream HTTP/1.1\r\nHost: b\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        f"Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n\r\n"
    ).encode()


def _masked(command: dict[str, Any]) -> bytes:
    payload = json.dumps(command).encode()
    size = bytes([0x81, 0x80 | len(payload)]) if len(payload) < 126 else bytes([0x81, 0xFE]) + len(payload).to_bytes(2, "big")
    return size + b"\0\0\0\0" + payload


class _Count:
    def __init__(self) -> None:
        self.frames = 0
        self.ages_ns: list[int] = []
        self.began = 0.0

    def begin(self) -> None:
        self.frames = 0
        self.ages_ns = []
        self.began = time.monotonic()

    def end(self) -> dict[str, Any]:
        ages = sorted(self.ages_ns) or [0]
        return {
            "frames": self.frames,
            "p50_ms": ages[len(ages) // 2] / 1e6,
            "p99_ms": ages[int(len(ages) * 0.99)] / 1e6,
            "samples": len(ages),
            "seconds": time.monotonic() - self.began,
        }


class _Reader(asyncio.Protocol):
    """One client: a handshake, two commands, then counting."""

    def __init__(
        self, token: str, count: _Count, subscribe: bool, subs: list[dict[str, Any]] | None = None, form: str = "json"
    ) -> None:
        self._token = token
        self._form = {} if form == "json" else {"form": form}
        self._count = count
        self._subscribe = subscribe
        self._subs = subs or [{"op": "sub", "ch": [CHANNEL], "hz": "raw"}]
        self._transport: asyncio.Transport
        self._stalled = False
        self.ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    @classmethod
    async def connect(
        cls, port: int, token: str, count: _Count, subscribe: bool, subs: list[dict[str, Any]] | None = None, form: str = "json"
    ) -> _Reader:
        loop = asyncio.get_running_loop()
        _, reader = await loop.create_connection(lambda: cls(token, count, subscribe, subs, form), "127.0.0.1", port)
        await reader.ready
        return reader

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport = cast(asyncio.Transport, transport)
        transport.write(_upgrade())

    def data_received(self, data: bytes) -> None:
        if self.ready.done():
            self._take(data)
        elif b" 101 " in data[:20]:
            self._send({"id": 1, "op": "auth", "token": self._token, **self._form})
            if self._subscribe:
                for number, sub in enumerate(self._subs, 2):
                    self._send({"id": number, **sub})
        elif b'"subs"' in data or (not self._subscribe and b'"ok":true' in data):
            self.ready.set_result(None)

    def _take(self, data: bytes) -> None:
        count = self._count
        if b'"t":"ping"' in data:
            self._send({"op": "pong"})
        if self._form:  # what is written is counted by the worker; of all values only the bid, our time, has so many digits
            if times := LONG_NUMBER.findall(data, max(0, len(data) - 300)):
                count.ages_ns.append(time.monotonic_ns() - int(times[-1]))
            return
        count.frames += data.count(b'"t":"upd"')
        at = data.rfind(b'"bid":')
        if at >= 0 and (end := data.find(b",", at)) > 0:
            count.ages_ns.append(time.monotonic_ns() - int(data[at + 6 : end]))

    def _send(self, command: dict[str, Any]) -> None:
        self._transport.write(_masked(command))

    def stall(self) -> None:
        """Stop reading, with a small receive buffer, so that the server feels it soon."""
        self._transport.pause_reading()
        sock = self._transport.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
