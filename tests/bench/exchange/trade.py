"""How many orders a second does one WebSocket of `/v1/trade` take in batches, and how long does a batch wait?

One connection, batches of 100 orders, a few of them under way at a time: buys that rest, then sells of another account that
trade with them, so that books stay small. Server and client have a process each on one machine; every answer comes after its
fdatasync and is decoded. `stream`: the same while the caller also gets every execution of both accounts, so that frames are
built and journaled. Excluded: making the batches, TLS, the network. The folder is TMPDIR's.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import subprocess
import sys
import tempfile
import time
from collections import deque
from pathlib import Path
from typing import Any

import msgspec
import uvloop
import websockets

from engine.core.commands import CreateInstrument, Deposit, Instrument
from engine.core.state import State
from engine.gateway.app import Doors, GatewayServer
from engine.gateway.door import DoorLimits
from engine.journal.journal import open_journal
from engine.journal.sequencer import Sequencer
from engine.stores.message_builder import MessageBuilder
from engine.stores.message_log import MessageLog
from tests.engine.gateway.ground import operators
from tests.engine_process import OPERATOR
from tests.stack import ROOT

BATCH = 100
UNDER_WAY = 4


class Results(msgspec.Struct):
    """The part of an answer that is looked at."""

    type: str
    results: list[dict[str, Any]] = []


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--batches", type=int, default=2_000)
    parser.add_argument("--tiny", action="store_true", help="a moment's work, for the tests; its numbers mean nothing")
    parser.add_argument("--client", type=int, default=0, help="be the client of this port")
    parser.add_argument("--stream", action="store_true")
    given = parser.parse_args()
    batches = 10 if given.tiny else given.batches
    if given.client:
        print(json.dumps(uvloop.run(drive(given.client, batches, given.stream))))
        return
    for name in ("orders", "stream"):
        found = uvloop.run(measure(name, batches))
        for figure, unit in (("orders_per_s", "orders/s"), ("p50_ms", "ms"), ("p99_ms", "ms")):
            workload = f"{name}: one WebSocket, {batches} batches of {BATCH} orders, {UNDER_WAY} under way, half of them trade"
            shown = figure if name == "orders" else f"stream_{figure}"
            line = {"bench": "trade", "figure": shown, "value": found[figure], "unit": unit, "workload": workload}
            print(json.dumps({**line, "updates": found["updates"], "excludes": "making batches, TLS, network"}), flush=True)


async def measure(name: str, batches: int) -> dict[str, Any]:
    """Serve while a child drives; return what it counted."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "journal"
        sequencer = Sequencer(State(), open_journal(path), lambda: (State(), open_journal(path)), MessageBuilder)
        messages = MessageLog(path)
        messages.restore([], 0, 0)
        sequencer.on_commit(messages.on_commit)
        keys = operators(Path(folder) / "keys")
        gateway = GatewayServer(sequencer, messages, "127.0.0.1", 0, keys, doors=Doors(DoorLimits(orders_per_s=0)))
        await gateway.start()
        await sequencer.submit(CreateInstrument(Instrument("BENCH", taker_fee_ppm=500), 100))
        for account in (1, 2):
            await sequencer.submit(Deposit(account, 10**12))
        argv = ["--client", str(gateway.port), "--batches", str(batches), *(["--stream"] if name == "stream" else [])]
        child = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "tests.bench.exchange.trade", *argv, cwd=ROOT, stdout=subprocess.PIPE
        )
        out, _ = await child.communicate()
        await gateway.stop()
        await sequencer.close()
    found: dict[str, Any] = json.loads(out)
    return found


async def drive(port: int, batches: int, stream: bool) -> dict[str, Any]:
    """Send batches; return the rate and the percentiles of their answers."""
    texts = [batch(number) for number in range(batches)]
    decoder = msgspec.json.Decoder(Results)
    waits: list[float] = []
    sent: deque[float] = deque()
    updates = 0
    url = f"ws://127.0.0.1:{port}/v1/trade"
    options: Any = {"ping_interval": None, "max_size": None, "proxy": None, "compression": None}
    async with websockets.connect(url, additional_headers=OPERATOR, **options) as socket:
        if stream:
            await socket.send('{"op":"subscribe","accounts":[1,2]}')
            await socket.recv()
        began, at = time.perf_counter(), 0
        while len(waits) < batches:
            while at < batches and len(sent) < UNDER_WAY:
                sent.append(time.perf_counter())
                await socket.send(texts[at])
                at += 1
            found = decoder.decode(await socket.recv())
            if found.type == "update":
                updates += 1
                continue
            waits.append(time.perf_counter() - sent.popleft())
            bad = [one for one in found.results if one["status"] != 201]
            assert not bad, bad[0]
        took = time.perf_counter() - began
    waits.sort()
    at_share = {name: round(1_000 * waits[int(len(waits) * share)], 2) for name, share in (("p50_ms", 0.5), ("p99_ms", 0.99))}
    return {"orders_per_s": round(batches * BATCH / took), "updates": updates, **at_share}


def batch(number: int) -> str:
    """Return 100 orders: a buy that rests, then a sell that trades with it, with the sides changed in every other batch."""
    sides = ("Buy", "Sell") if number % 2 else ("Sell", "Buy")
    orders = [
        {
            "op": "place", "account": 1 + at % 2, "symbol": "BENCH", "clOrdID": f"{number}-{at}", "side": sides[at % 2],
            "orderQty": 1, "price": 100,
        }
        for at in range(BATCH)
    ]  # fmt: skip
    return json.dumps({"op": "batch", "id": number, "orders": orders})


if __name__ == "__main__":
    main()
