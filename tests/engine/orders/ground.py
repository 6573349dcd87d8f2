"""Starts an exchange that takes its orders from the queue, and shows what a test wants to see of both."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiormq
from aiormq.abc import DeliveredMessage
from pamqp.commands import Basic

from engine.core import commands as cm
from engine.core import events as ev
from engine.core.events import decode
from engine.journal.reader import read
from engine.journal.sequencer import Sequencer
from engine.orders.client import OrdersClient
from engine.orders.consumer import OrdersQueue
from engine.orders.topology import DEAD, DEAD_EXCHANGE, ORDERS, QUEUES
from engine.risk.checker import RiskChecker
from engine.risk.rules import REQUESTS, RESPONSES
from engine.stores.message_builder import MessageBuilder
from tests.engine.lives import rebuilt

SYMBOL = "BTC-PERP"
RICH, POOR = 1, 2  # accounts
CROWD = tuple(range(10, 20))  # rich ones, for more orders than one account may have open


async def exchange(folder: Path, crowd: bool = False, **more: Any) -> Sequencer:
    """Return a sequencer on a folder, with a contract, a rich account and a poor one when the folder is new."""
    folder.mkdir(exist_ok=True)  # noqa: ASYNC240  (a test may wait for the disk)
    sequencer = Sequencer(*rebuilt(folder), lambda: rebuilt(folder), MessageBuilder, **more)
    if SYMBOL not in sequencer.state.markets:
        instrument = cm.Instrument(SYMBOL, tick_size="0.5", size_lots_max=10**6, price_ticks_max=10**6)
        for command in (cm.CreateInstrument(instrument, 100), cm.Deposit(RICH, 10**12), cm.Deposit(POOR, 1)):
            await sequencer.submit(command)
        if crowd:
            await asyncio.gather(*[sequencer.submit(cm.Deposit(account, 10**12)) for account in CROWD])
    return sequencer


def place(name: str, **more: Any) -> dict[str, Any]:
    """Return the message of a small order: 1 lot bid at 40.0 (80 ticks)."""
    terms = {"account": RICH, "symbol": SYMBOL, "clOrdID": name, "side": "Buy", "orderQty": 1, "price": 40}
    return {"type": "place"} | terms | more


def places(count: int) -> list[dict[str, Any]]:
    """Return the messages of many small orders, `o0` and so on, of the crowd."""
    return [place(f"o{n}", account=CROWD[n % len(CROWD)]) for n in range(count)]


@asynccontextmanager
async def desk(
    url: str, folder: Path, risk: RiskChecker | None = None, prefetch: int = 500, sequencer: Sequencer | None = None
) -> AsyncIterator[tuple[Sequencer, OrdersQueue, OrdersClient]]:
    """Run an exchange, its order queue and a client of that."""
    sequencer = sequencer or await exchange(folder, crowd=True)
    queue = OrdersQueue(url, sequencer, risk, prefetch)
    async with OrdersClient(url) as client:
        queue.start()
        try:
            yield sequencer, queue, client
        finally:
            await queue.close()
            await sequencer.close()


def accepted(folder: Path) -> list[str]:
    """Return the client ids of the orders that the journal has accepted, in order."""
    events = (event for record in read(folder) for event in decode(record.payload))
    return [event.order.cl_ord_id for event in events if isinstance(event, ev.OrderAccepted)]


async def with_channel(url: str, work: Any) -> Any:
    """Return what `await work(channel)` returns, on a connection of its own."""
    connection = await aiormq.connect(url)
    try:
        return await work(await connection.channel())
    finally:
        await connection.close()


async def declare(url: str) -> None:
    """Declare the queues of orders, as publishers do that are there before the engine."""

    async def work(channel: aiormq.Channel) -> None:
        await channel.exchange_declare(DEAD_EXCHANGE, exchange_type="direct", durable=True)
        for name, arguments in QUEUES.items():
            await channel.queue_declare(name, durable=True, arguments=dict(arguments))
            if name not in (ORDERS,):
                await channel.queue_bind(name, DEAD_EXCHANGE, name)

    await with_channel(url, work)


async def delete(url: str, names: Iterable[str] = (*QUEUES, REQUESTS, RESPONSES)) -> None:
    """Delete the queues."""

    async def work(channel: aiormq.Channel) -> None:
        for name in names:
            await channel.queue_delete(name)

    await with_channel(url, work)


async def push(url: str, bodies: Iterable[bytes | dict[str, Any]], queue: str = ORDERS, **properties: Any) -> None:
    """Publish messages, persistent and confirmed, one after the other."""

    async def work(channel: aiormq.Channel) -> None:
        for body in bodies:
            raw = body if isinstance(body, bytes) else json.dumps(body).encode()
            await channel.basic_publish(
                raw, routing_key=queue, properties=Basic.Properties(**{"delivery_mode": 2} | properties), mandatory=True
            )

    await with_channel(url, work)


async def depth(url: str, queue: str = ORDERS) -> int:
    """Return how many messages are ready in a queue."""

    async def work(channel: aiormq.Channel) -> int:
        return (await channel.queue_declare(queue, passive=True)).message_count or 0

    return int(await with_channel(url, work))


async def dead_letters(url: str, queue: str = DEAD) -> list[DeliveredMessage]:
    """Return and take away what is in the dead letters (or another queue)."""

    async def work(channel: aiormq.Channel) -> list[DeliveredMessage]:
        found = []
        while not isinstance((got := await channel.basic_get(queue, no_ack=True)).delivery, Basic.GetEmpty):
            found.append(got)
        return found

    found: list[DeliveredMessage] = await with_channel(url, work)
    return found


def reasons(found: Iterable[DeliveredMessage]) -> list[str]:
    """Return why messages are dead letters."""
    return [str((message.header.properties.headers or {})["x-reason"]) for message in found]


def properties_of(message: DeliveredMessage) -> dict[str, Any]:
    """Return a message's properties as values that compare."""
    found = {name: getattr(message.header.properties, name) for name in Basic.Properties.__slots__}
    return {name: value for name, value in found.items() if value not in (None, "")}
