"""How many orders a second does the gateway answer over HTTP, each after its fdatasync, and how long does one wait?

Sixteen connections that are kept alive, each with one order under way at a time: a buy that rests, then a sell of another
account that trades with it, so that books stay small. The server (uvloop, httptools, Litestar) and the clients have a process
each on one machine. Percentiles are of all answers after the warm-up of half a second. `store`: the same with a message store,
so that every command's frame is built and journaled. Excluded: making the requests, TLS, the network. The folder is TMPDIR's.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import uvloop

from engine.core.commands import CreateInstrument, CreateStore, Deposit, Instrument
from engine.core.state import State
from engine.gateway.app import GatewayServer
from engine.journal.journal import open_journal
from engine.journal.sequencer import Sequencer
from engine.stores.message_builder import MessageBuilder
from engine.stores.message_log import MessageLog
from tests.engine.gateway.ground import operators
from tests.engine_process import TOKEN
from tests.stack import ROOT

CONNECTIONS = 16
WARM_UP_S = 0.5
HEAD = (
    f"POST /Order HTTP/1.1\r\nHost: bench\r\nAuthorization: Bearer {TOKEN}\r\nContent-Type: application/json\r\n"
    "Content-Length: %d\r\n\r\n"
).encode()
FLIP = 200  # orders after which an account that bought sells: positions stay small


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=float, default=6.0)
    parser.add_argument("--connections", type=int, default=CONNECTIONS)
    parser.add_argument("--tiny", action="store_true", help="a moment's work, for the tests; its numbers mean nothing")
    parser.add_argument("--client", type=int, default=0, help="be the clients of this port")
    given = parser.parse_args()
    seconds = 0.3 if given.tiny else given.seconds
    if given.client:
        print(json.dumps(uvloop.run(drive(given.client, given.connections, seconds))))
        return
    for name in ("quiet", "store"):
        found = uvloop.run(measure(name, given.connections, seconds))
        for figure, unit in (("orders_per_s", "orders/s"), ("p50_ms", "ms"), ("p99_ms", "ms")):
            report(
                name,
                ("" if name == "quiet" else "store_") + figure,
                found[figure],
                unit,
                given.connections,
                seconds,
                found["answers"],
            )


def report(name: str, figure: str, value: float, unit: str, connections: int, seconds: float, answers: int) -> None:
    """Print one JSON line."""
    workload = f"{name}: {connections} connections, one order each at a time, half of them trade, {seconds} s, fdatasync a group"
    line = {"bench": "gateway", "figure": figure, "value": value, "unit": unit, "workload": workload, "answers": answers}
    print(json.dumps({**line, "excludes": "making requests, warm-up, TLS, network"}), flush=True)


async def measure(name: str, connections: int, seconds: float) -> dict[str, Any]:
    """Serve while a child drives; return what it counted."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "journal"
        journal = open_journal(path)
        sequencer = Sequencer(State(), journal, lambda: (State(), open_journal(path)), MessageBuilder)
        messages = MessageLog(path)
        messages.restore([], 0, 0)
        sequencer.on_commit(messages.on_commit)
        gateway = GatewayServer(sequencer, messages, "127.0.0.1", 0, operators(Path(folder) / "keys"))
        await gateway.start()
        await sequencer.submit(CreateInstrument(Instrument("BENCH", taker_fee_ppm=500), 100))
        for account in range(1, 2 * connections + 1):
            await sequencer.submit(Deposit(account, 10**12))
        if name == "store":
            await sequencer.submit(CreateStore("bench"))
        argv = ["--client", str(gateway.port), "--connections", str(connections), "--seconds", str(seconds)]
        child = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "tests.bench.exchange.gateway", *argv, cwd=ROOT, stdout=subprocess.PIPE
        )
        out, _ = await child.communicate()
        await gateway.stop()
        await sequencer.close()
    found: dict[str, Any] = json.loads(out)
    return found


async def drive(port: int, connections: int, seconds: float) -> dict[str, Any]:
    """Send orders over `connections` sockets; return the rate and the percentiles of the answers."""
    loop = asyncio.get_running_loop()
    clients = []
    for number in range(connections):
        _, client = await loop.create_connection(lambda at=number: Client(at), "127.0.0.1", port)
        clients.append(client)
    for client in clients:
        client.send()
    await asyncio.sleep(WARM_UP_S if seconds > 1 else 0)
    for client in clients:
        client.waits.clear()
    began = time.perf_counter()
    await asyncio.sleep(seconds)
    took = time.perf_counter() - began
    waits = sorted(wait for client in clients for wait in client.waits)
    for client in clients:
        client.stop()
    bad = sum(client.refused for client in clients)
    assert not bad, f"{bad} orders were refused: {next(c.last for c in clients if c.refused)!r}"
    at = {name: round(1_000 * waits[int(len(waits) * share)], 2) for name, share in (("p50_ms", 0.5), ("p99_ms", 0.99))}
    return {"orders_per_s": round(len(waits) / took), "answers": len(waits), **at}


class Client(asyncio.Protocol):
    """One connection: the next order goes out when the answer to the last one is here."""

    def __init__(self, number: int) -> None:
        self.waits: list[float] = []
        self.refused = 0
        self.last = b""
        self._accounts = 2 * number + 1, 2 * number + 2
        self._sent = 0
        self._at = 0.0
        self._buffer = b""
        self._stopped = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport: Any = transport

    def send(self) -> None:
        """Send the next order."""
        number, self._sent = self._sent, self._sent + 1
        account, flipped = self._accounts[number % 2], number // FLIP % 2
        body = json.dumps({
            "account": account, "symbol": "BENCH", "clOrdID": f"o{number}", "side": ("Buy", "Sell")[(number + flipped) % 2],
            "orderQty": 1, "price": 100,
        }).encode()  # fmt: skip
        head = HEAD % len(body)
        self._at = time.perf_counter()
        self._transport.write(head + body)

    def data_received(self, data: bytes) -> None:
        """Take an answer; it has come whole when its body is as long as announced."""
        self._buffer += data
        head, found, body = self._buffer.partition(b"\r\n\r\n")
        if not found or len(body) < int(head.lower().partition(b"content-length:")[2].split(b"\r\n")[0]):
            return
        self.waits.append(time.perf_counter() - self._at)
        self.last, self._buffer = self._buffer, b""
        self.refused += not head.startswith(b"HTTP/1.1 201")
        if not self._stopped:
            self.send()

    def stop(self) -> None:
        """Send no more."""
        self._stopped = True
        self._transport.close()


if __name__ == "__main__":
    main()
