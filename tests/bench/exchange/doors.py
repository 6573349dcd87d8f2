"""How much later is an honest order answered while others attack the gateway?

One caller sends an order every 10 ms, for some seconds alone and for as long under attack (once its burst is over), three times
in turn. Attacks come all at once from a process of their own: orders above a key's rate, requests without a key, wrong keys,
bodies of 100 MB, heads that never end. `attacked_p99_ratio` is the p99 of the honest answers under attack ÷ the p99 alone; 1.1 is
what may be. `refused` counts what the attackers were told. Everything is on one machine, so
that attackers also take processor time from the honest caller and the server, as they would not from elsewhere: they pause for
a millisecond between two requests. The folder is TMPDIR's.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import uvloop

from engine.access.key_file import KeyFile
from engine.access.keys import Role, ranges
from engine.core.commands import CreateInstrument, Deposit, Instrument
from engine.core.state import State
from engine.gateway.app import Doors, GatewayServer
from engine.gateway.connections import ConnectionLimits
from engine.gateway.door import DoorLimits
from engine.journal.journal import open_journal
from engine.journal.sequencer import Sequencer
from engine.stores.message_builder import MessageBuilder
from engine.stores.message_log import MessageLog
from tests.engine.gateway.ground import operators
from tests.stack import ROOT

ATTACKS = ("flood", "public", "bodies", "heads", "guesses")
CONNECTIONS = 32
EVERY_S = 0.01
ROUNDS = 3
BURST_S = 2.0  # the time after which attackers have used up what a key may send at once
ORDERS_PER_S, REQUESTS_PER_S, PUBLIC_PER_S = 120.0, 50.0, 20.0  # low ones: what is allowed is no attack


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=float, default=4.0)
    parser.add_argument("--tiny", action="store_true", help="a moment's work, for the tests; its numbers mean nothing")
    parser.add_argument("--attack", action="store_true", help="be the attackers of this port")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--key", default="")
    given = parser.parse_args()
    seconds = 0.4 if given.tiny else given.seconds
    if given.attack:
        print(json.dumps(uvloop.run(attack(given.port, given.key, seconds))))
        return
    found = uvloop.run(measure(seconds))
    workload = (
        f"an order every {EVERY_S * 1_000:g} ms, {ROUNDS} times {seconds} s alone and {seconds} s beside {CONNECTIONS} attackers"
    )
    line = {"bench": "doors", "figure": "attacked_p99_ratio", "value": found.pop("ratio"), "unit": "", "workload": workload}
    print(json.dumps({**line, **found, "excludes": "network, TLS"}), flush=True)


async def measure(seconds: float) -> dict[str, Any]:
    """Serve, let the honest caller send, start the attackers beside it."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "journal"
        sequencer = Sequencer(State(), open_journal(path), lambda: (State(), open_journal(path)), MessageBuilder)
        messages = MessageLog(path)
        messages.restore([], 0, 0)
        sequencer.on_commit(messages.on_commit)
        file = KeyFile(Path(folder) / "keys" / "keys.json")
        texts = [file.create(time.time_ns(), Role.TRADER, accounts=ranges(number))[1] for number in ("1", "2")]
        keys = operators(Path(folder) / "keys")
        doors = Doors(DoorLimits(ORDERS_PER_S, REQUESTS_PER_S, PUBLIC_PER_S), ConnectionLimits(head_s=1.0, body_s=1.0))
        gateway = GatewayServer(sequencer, messages, "127.0.0.1", 0, keys, doors=doors)
        await gateway.start()
        await sequencer.submit(CreateInstrument(Instrument("BENCH"), 100))
        for account in (1, 2):
            await sequencer.submit(Deposit(account, 10**12))
        honest = Honest(gateway.port, texts[0])
        await honest.run(seconds)  # warm
        alone: list[float] = []
        under: list[float] = []
        told: Counter[str] = Counter()
        for _ in range(ROUNDS):
            alone += await honest.run(seconds)
            argv = ["--attack", "--port", str(gateway.port), "--key", texts[1], "--seconds", str(seconds + BURST_S)]
            child = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "tests.bench.exchange.doors", *argv, cwd=ROOT, stdout=subprocess.PIPE
            )
            assert child.stdout is not None
            await child.stdout.readline()  # it has begun
            await asyncio.sleep(min(seconds, BURST_S))
            under += await honest.run(seconds)
            out, _ = await child.communicate()
            told.update(json.loads(out))
        await gateway.stop()
        await sequencer.close()
    before, during = p99_ms(alone), p99_ms(under)
    return {"ratio": round(during / before, 2), "p99_ms": during, "alone_p99_ms": before, "refused": dict(sorted(told.items()))}


def p99_ms(waits: list[float]) -> float:
    return round(1_000 * sorted(waits)[int(len(waits) * 0.99)], 2)


class Honest:
    """A caller with a key of its own, one order at a time: it rests, the next one cancels it."""

    def __init__(self, port: int, key: str) -> None:
        self._port = port
        self._key = key
        self._sent = 0

    async def run(self, seconds: float) -> list[float]:
        """Send for so long; return how long each answer took."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
        waits: list[float] = []
        ends = time.perf_counter() + seconds
        while time.perf_counter() < ends:
            began = time.perf_counter()
            writer.write(self._next())
            status, _ = await answer(reader)
            waits.append(time.perf_counter() - began)
            assert status in (200, 201), f"the honest caller got {status}"
            await asyncio.sleep(max(0.0, EVERY_S - (time.perf_counter() - began)))
        writer.close()
        return waits

    def _next(self) -> bytes:
        number, self._sent = self._sent // 2, self._sent + 1
        if self._sent % 2 == 0:
            return request("DELETE", f"/Order?account=1&clOrdID=h{number}", self._key)
        return request("POST", "/Order", self._key, order(1, f"h{number}"))


def order(account: int, name: str) -> bytes:
    terms = {"account": account, "symbol": "BENCH", "clOrdID": name, "side": "Buy", "orderQty": 1, "price": 95}
    return json.dumps(terms).encode()


def request(method: str, path: str, key: str, body: bytes = b"", length: int = 0) -> bytes:
    """Return a request as it goes over the wire; `length` announces another body than comes."""
    head = f"{method} {path} HTTP/1.1\r\nHost: bench\r\n" + (f"Authorization: Bearer {key}\r\n" if key else "")
    kind = f"Content-Type: application/json\r\nContent-Length: {length or len(body)}\r\n" if body or length else ""
    return f"{head}{kind}\r\n".encode() + body


async def answer(reader: asyncio.StreamReader) -> tuple[int, bytes]:
    """Return status and body of an answer.  Raises: OSError, IncompleteReadError."""
    head = await reader.readuntil(b"\r\n\r\n")
    length = int(head.lower().partition(b"content-length:")[2].split(b"\r\n")[0])
    return int(head.split(b" ", 2)[1]), await reader.readexactly(length)


async def attack(port: int, key: str, seconds: float) -> dict[str, int]:
    """Attack over many connections, each opened again when it is cut; return how often which status came."""
    told: Counter[str] = Counter()
    ends = time.perf_counter() + seconds
    print(flush=True)

    async def one(number: int) -> None:
        while time.perf_counter() < ends:
            try:
                reader, writer = await asyncio.open_connection("127.0.0.1", port)
                await strike(ATTACKS[number % len(ATTACKS)], number, reader, writer, key, told, ends)
                writer.close()
            except (OSError, asyncio.IncompleteReadError):
                told["cut"] += 1
            await asyncio.sleep(0.001)

    await asyncio.gather(*(one(number) for number in range(CONNECTIONS)))
    return dict(told)


async def strike(
    name: str, number: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, key: str, told: Counter[str], ends: float
) -> None:
    """Use one connection badly until it is cut or the time is over."""
    at = 0
    while time.perf_counter() < ends:
        at += 1
        if name == "heads":
            writer.write(b"X-%d: a\r\n" % at if at > 1 else b"GET /Instrument HTTP/1.1\r\n")
            await asyncio.sleep(0.1)
            if reader.at_eof() or writer.is_closing():
                told["cut"] += 1
                return
            continue
        if name == "flood":
            writer.write(request("POST", "/Order", key, order(2, f"f{number}-{at}-{time.perf_counter_ns()}")))
        elif name == "bodies":
            writer.write(request("POST", "/Order", key, b" " * 65_536, 100 << 20))
        else:
            writer.write(request("GET", "/OrderBook?symbol=BENCH", "" if name == "public" else "tl_wrong"))
        status, _ = await answer(reader)
        told[str(status)] += 1
        if name == "bodies":
            writer.write(b" " * (1 << 20))
            await writer.drain()
            return
        await asyncio.sleep(0.001)


if __name__ == "__main__":
    main()
