"""How many messages a second does `/joined` send to one consumer, from memory and from the journal?

A store holds the messages of a seeded market; a consumer connects, takes all of them and goes, several times. Server (uvloop,
Litestar, one text message a command index) and consumer have a process each on one machine. The consumer counts frames by their
headers and checks each one's `messageIndex` against a run of its own beforehand; a slower one would measure itself.
`client_frames_per_s` is with a plain `websockets` client that decodes the JSON. Excluded: making the messages, the network.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import json
import socket
import subprocess
import sys
import tempfile
import time
from itertools import islice
from pathlib import Path
from typing import Any

import uvloop
import websockets

from engine.core.commands import CreateStore
from engine.core.state import State
from engine.gateway.app import GatewayServer
from engine.journal.journal import open_journal
from engine.journal.sequencer import Sequencer
from engine.stores.message_builder import MessageBuilder
from engine.stores.message_log import MessageLog
from tests.engine.gateway.ground import operators
from tests.engine.order_flow import commands
from tests.engine_process import OPERATOR, TOKEN
from tests.stack import ROOT

MESSAGES, ROUNDS, SEED = 60_000, 4, 7
FIGURES = {"frames_per_s": ("count", 65_536), "journal_frames_per_s": ("count", 100), "client_frames_per_s": ("client", 65_536)}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--messages", type=int, default=MESSAGES)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--tiny", action="store_true", help="a moment's work, for the tests; its numbers mean nothing")
    parser.add_argument("--consume", help="be the consumer: count or client")
    parser.add_argument("--port", type=int, default=0)
    given = parser.parse_args()
    if given.tiny:
        given.messages, given.rounds = 600, 1
    if given.consume:
        take = {"count": count, "client": client}[given.consume]
        print(json.dumps(take(given.port, given.messages)))
        return
    with tempfile.TemporaryDirectory() as folder:
        uvloop.run(measure(Path(folder), given.messages, given.rounds))


async def measure(folder: Path, messages: int, rounds: int) -> None:
    """Make the messages, then serve them; one JSON line a figure."""
    state, journal = State(), open_journal(folder)
    sequencer = Sequencer(state, journal, lambda: (state, journal), MessageBuilder, queue_max=2 * messages + 1_000)
    await sequencer.submit(CreateStore("bench"))
    listed = list(islice(commands(SEED, 2 * messages + 1_000), 2 * messages + 1_000))
    digest = hashlib.sha256()
    sequencer.on_commit(lambda records: [digest.update(record.message.partition(b"timestamp")[0]) for record in records] and None)
    await asyncio.gather(*(sequencer.submit(command) for command in listed))
    for figure, (consumer, frames_max) in FIGURES.items():
        log = MessageLog(folder, frames_max=frames_max)
        log.restore(list(state.stores.values()), sequencer.committed_index, sequencer.last_message_index)
        gateway = GatewayServer(sequencer, log, "127.0.0.1", 0, operators(folder / "keys"))
        await gateway.start()
        found = [await consume(consumer, gateway.port, messages) for _ in range(rounds)]
        await gateway.stop()
        rate = rounds * messages / sum(one["seconds"] for one in found)
        workload = (
            f"{messages} messages of 100 accounts, seed {SEED}, {found[0]['bytes'] // messages} bytes each, taken {rounds} times"
        )
        line = {"bench": "joined", "figure": figure, "value": round(rate), "unit": "frames/s", "workload": workload}
        print(json.dumps({**line, "hash": digest.hexdigest()[:16], "excludes": "making messages, network"}), flush=True)
    await sequencer.close()


async def consume(kind: str, port: int, messages: int) -> dict[str, Any]:
    """Let a child take the first `messages` messages; return what it counted."""
    argv = ["--consume", kind, "--port", str(port), "--messages", str(messages)]
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.bench.exchange.joined", *argv, cwd=ROOT, stdout=subprocess.PIPE
    )
    out, _ = await child.communicate()
    found: dict[str, Any] = json.loads(out)
    return found


def count(port: int, messages: int) -> dict[str, Any]:
    """Take frames off a socket, looking at headers and indices only."""
    with socket.create_connection(("127.0.0.1", port)) as sock:
        sock.sendall(
            b"GET /joined?storeId=bench HTTP/1.1\r\nHost: bench\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            + f"Authorization: Bearer {TOKEN}\r\n".encode()
            + b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
        )
        began, buffer, last, taken, size = time.perf_counter(), b"", 0, 0, 0
        while b"\r\n\r\n" not in buffer:
            buffer += sock.recv(1 << 20)
        buffer = buffer.partition(b"\r\n\r\n")[2]
        while taken < messages:
            at = 0
            while len(buffer) - at >= 10 and taken < messages:
                short = buffer[at + 1]
                head = 2 if short < 126 else 4 if short == 126 else 10
                length = short if short < 126 else int.from_bytes(buffer[at + 2 : at + head], "big")
                if len(buffer) - at < head + length:
                    break
                assert buffer[at] == 0x81, "one whole text message"
                index = int(buffer[at + head + 16 : buffer.index(b",", at + head)])  # {"messageIndex":12,
                assert index > last, f"{index} after {last}"
                last, taken, size, at = index, taken + 1, size + length, at + head + length
            buffer = buffer[at:] + sock.recv(1 << 20) if taken < messages else b""
        return {"seconds": time.perf_counter() - began, "bytes": size}


def client(port: int, messages: int) -> dict[str, Any]:
    """Take messages as most consumers do."""

    async def take() -> dict[str, Any]:
        url = f"ws://127.0.0.1:{port}/joined?storeId=bench"
        async with websockets.connect(
            url, ping_interval=None, max_size=None, proxy=None, close_timeout=0.1, additional_headers=OPERATOR
        ) as socket_:
            began, size = time.perf_counter(), 0
            for _ in range(messages):
                text = await socket_.recv()
                json.loads(text)
                size += len(text)
            return {"seconds": time.perf_counter() - began, "bytes": size}

    return uvloop.run(take())


if __name__ == "__main__":
    main()
