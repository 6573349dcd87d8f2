"""How many orders a second pass from a publisher through RabbitMQ into the journal, on the same two cores?

Workload: orders around one price and cancels of earlier ones, of 50 accounts; every message persistent and confirmed by the
broker, every command fsynced by the journal before it is acknowledged. `stream_orders_per_s`: from the first message to the
last acknowledgement, with the publisher (a process of its own) at work all the time. `backlog_orders_per_s`: the same orders
from a queue that was full when the engine came. Checked: every message was done once, nothing is left in the queue, nothing
in the dead letters, and both runs end in the same state, whose hash is printed. Excluded: start-up, accounts and deposits.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import gc
import hashlib
import json
import random
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import uvloop

from engine.core import commands as cm
from engine.journal.sequencer import Sequencer
from engine.orders.client import OrdersClient
from engine.orders.consumer import OrdersQueue
from engine.orders.topology import DEAD
from service.run import GC_THRESHOLD
from tests.engine.orders.ground import SYMBOL, declare, depth, exchange
from tests.servers import RabbitMQ
from tests.stack import ROOT
from tests.waiting import until

SEED, ACCOUNTS = 7, 50
WINDOW = 1_000  # messages published and not yet confirmed


def main() -> None:
    """Run the benchmark and print its figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--orders", type=int, default=60_000)
    parser.add_argument("--tiny", action="store_true", help="a second's work, to see that the benchmark itself works")
    parser.add_argument("--publish", metavar="URL", help="be the publisher")
    options = parser.parse_args()
    orders = 1_000 if options.tiny else options.orders
    gc.set_threshold(*GC_THRESHOLD)
    if options.publish:
        uvloop.run(publish(options.publish, orders))
        return
    with RabbitMQ() as server, tempfile.TemporaryDirectory() as folder:
        uvloop.run(measure(server.url, Path(folder), orders))


async def measure(url: str, folder: Path, orders: int) -> None:
    """Run the orders twice and print what was measured."""
    await declare(url)
    streamed = await run(url, folder / "streamed", orders, backlog=False)
    backlog = await run(url, folder / "backlog", orders, backlog=True)
    assert streamed[1] == backlog[1], "the same orders ended in two states"
    workload = f"{orders} orders of {ACCOUNTS} accounts, a quarter cancels, seed {SEED}, prefetch 500"
    for figure, (rate, digest) in (("stream_orders_per_s", streamed), ("backlog_orders_per_s", backlog)):
        line = {"bench": "orders", "figure": figure, "value": round(rate), "unit": "orders/s", "workload": workload}
        print(json.dumps({**line, "lost": 0, "sha256": digest, "excludes": "start-up, accounts, deposits"}), flush=True)


async def run(url: str, folder: Path, orders: int, backlog: bool) -> tuple[float, str]:
    """Return orders a second and the hash of the state afterwards."""
    sequencer = await exchange(folder)
    for account in range(1, ACCOUNTS + 1):
        await sequencer.submit(cm.Deposit(account, 10**12))
    queue = OrdersQueue(url, sequencer)
    publisher = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.bench.exchange.orders", "--publish", url, "--orders", str(orders), cwd=ROOT
    )
    if backlog:
        await publisher.wait()
    queue.start()
    began = await until(lambda: queue.counts["done"] and time.monotonic(), 60, "the first order", 0.002)
    await until(lambda: queue.counts["done"] >= orders, 60 + orders / 500, "all orders", 0.005)
    seconds = time.monotonic() - began
    await publisher.wait()
    await queue.close()
    await check(url, queue, sequencer, orders)
    return orders / seconds, ending(sequencer)


def ending(sequencer: Sequencer) -> str:
    """Return the SHA-256 of contracts, accounts and orders: the keys of retries, which differ in every run, are left out."""
    return hashlib.sha256(msgspec.msgpack.encode(sequencer.state.snapshot()[:3])).hexdigest()


async def check(url: str, queue: OrdersQueue, sequencer: Sequencer, orders: int) -> None:
    """Assert that every message was done once and nothing is left."""
    assert queue.counts["done"] == orders, queue.counts
    assert not set(queue.counts) - {"done", "held"}, queue.counts
    assert (await depth(url), await depth(url, DEAD)) == (0, 0)
    sequencer.state.ledger.audit()
    await sequencer.close()


def workload(count: int) -> Iterator[bytes]:
    """Yield the messages: three of four are new orders, the fourth cancels one of the last fifty."""
    dice = random.Random(SEED)
    for number in range(count):
        body: dict[str, Any]
        if number % 4 == 3:
            earlier = number - 1 - dice.randint(0, min(50, number - 1))
            body = {"type": "cancel", "account": 1 + earlier % ACCOUNTS, "clOrdID": f"o{earlier}"}
        else:
            price = 50 + round(dice.gauss(0, 8)) * 0.5
            body = {"type": "place", "account": 1 + number % ACCOUNTS, "symbol": SYMBOL, "clOrdID": f"o{number}"}
            body |= {"side": dice.choice(("Buy", "Sell")), "orderQty": dice.randint(1, 9), "price": price}
        yield msgspec.json.encode(body)


async def publish(url: str, orders: int) -> None:
    """Publish the orders, `WINDOW` of them unconfirmed at a time."""
    room = asyncio.Semaphore(WINDOW)
    async with OrdersClient(url) as client, asyncio.TaskGroup() as tasks:
        for body in workload(orders):
            await room.acquire()
            task = tasks.create_task(client.send(body))
            task.add_done_callback(lambda _: room.release())


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        main()
