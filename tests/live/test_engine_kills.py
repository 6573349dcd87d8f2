"""The real engine process under load, killed with SIGKILL again and again: what it acknowledged is there, once, whoever asks."""

from __future__ import annotations

import asyncio
import json
import random
import signal
from collections import Counter
from pathlib import Path
from typing import Any

import httpx
import pytest

from engine.core import events as ev
from engine.core.state import State
from engine.journal.reader import read
from engine.recovery.replay import recover
from engine.recovery.snapshot_files import FileSnapshotStore
from tests.engine_process import OPERATOR, EngineProcess
from tests.scale import many
from tests.waiting import until

pytestmark = pytest.mark.live

KILLS = many(50)
CLIENTS = 8
BTC = {"symbol": "BTC-PERP", "tickSize": "0.5", "lotSize": "0.001", "markPrice": 50_000}


class Client:
    """Sends orders of its own account; what has no answer it sends again, as it was, until it has one."""

    def __init__(self, engine: EngineProcess, account: int) -> None:
        self.engine = engine
        self.account = account
        self.acknowledged: dict[str, str] = {}  # client id → order id
        self.repeated = 0
        self._http = httpx.AsyncClient(base_url=engine.url, headers=OPERATOR, timeout=10, trust_env=False)
        self._dice = random.Random(account)

    async def run(self, stop: asyncio.Event) -> None:
        """Trade until `stop`."""
        number = 0
        while not stop.is_set():
            number += 1
            terms = {
                "account": self.account, "symbol": "BTC-PERP", "clOrdID": f"{self.account}-{number}",
                "side": self._dice.choice(("Buy", "Sell")), "orderQty": self._dice.randint(1, 9),
                "price": 50_000 + self._dice.randint(-4, 4) / 2, "timeInForce": self._dice.choice(("GoodTillCancel", "ImmediateOrCancel")),
            }  # fmt: skip
            answer = await self.insist("POST", "/Order", terms)
            assert answer.status_code in (201, 409), answer.text
            self.repeated += answer.status_code == 409
            self.acknowledged[str(terms["clOrdID"])] = answer.json()["orderId"]
            if number % 5 == 0:  # so that there is room for the next ones
                await self.insist("DELETE", f"/Order/All?account={self.account}")
        await self._http.aclose()

    async def insist(self, method: str, path: str, body: Any = None) -> httpx.Response:
        """Send a request until somebody answers it."""
        while True:
            try:
                answer = await self._http.request(method, path, json=body)
            except httpx.TransportError:
                await asyncio.sleep(0.02)
                continue
            if answer.status_code != 503:
                return answer
            await asyncio.sleep(0.02)


async def test_sigkills_under_load_lose_and_double_nothing(tmp_path: Path) -> None:
    """8 clients, 50 kills (20 in the usual run) at random times, snapshots every 300 ms: every acknowledged order is in the journal once."""
    engine, dice, stop = EngineProcess(tmp_path, ENGINE_SNAPSHOT_INTERVAL_MS="300"), random.Random(11), asyncio.Event()
    engine.start()
    clients = [Client(engine, account) for account in range(1, CLIENTS + 1)]
    assert (await clients[0].insist("PUT", "/Instrument", BTC)).status_code in (200, 201)
    assert (await clients[0].insist("PUT", "/MessageStore?storeId=audit")).status_code == 200
    for client in clients:
        await client.insist("POST", f"/Account/{client.account}/Deposit", {"amount": 10**12})
    running = [asyncio.create_task(client.run(stop)) for client in clients]
    for kill in range(KILLS):
        done = sum(len(client.acknowledged) for client in clients)
        await until(lambda done=done: sum(len(c.acknowledged) for c in clients) > done + dice.randint(1, 90), 60, f"life {kill}")  # type: ignore[misc]
        assert engine.end(signal.SIGKILL) == -signal.SIGKILL
        engine.start()
    await until(
        lambda: sum(len(client.acknowledged) for client in clients) > 1_000, 60, "enough orders for the test to mean anything"
    )
    stop.set()
    await asyncio.gather(*running)
    assert engine.end(signal.SIGTERM) == 0

    folder = tmp_path / "engine" / "journal"
    accepted: Counter[str] = Counter()
    by_name: dict[str, str] = {}
    trades: list[int] = []
    executions: list[str] = []
    plain, last = State(), 0
    for record in read(folder):
        for event in ev.decode(record.payload):
            plain.apply(event)
            if isinstance(event, ev.OrderAccepted):
                accepted[event.order.cl_ord_id] += 1
                by_name[event.order.cl_ord_id] = str(event.order_id)
            elif isinstance(event, ev.Traded):
                trades.append(event.trade_id)
        if record.message:
            message = json.loads(record.message)
            assert message["prevMessageIndex"] == last
            last = plain.message_index = message["messageIndex"]
            executions += [execution["execId"] for group in message["executions"] for execution in group]
    acknowledged = {name: order for client in clients for name, order in client.acknowledged.items()}
    assert set(accepted.values()) == {1}, "an order was taken twice"
    assert acknowledged.items() <= by_name.items(), "an acknowledged order is lost or has another id"
    assert trades == list(range(1, len(trades) + 1))
    assert len(executions) == len(set(executions))
    assert sum(client.repeated for client in clients) > 0, "no kill came between journal and answer: the test has lost its point"
    assert len(acknowledged) > 1_000
    recovered = recover(folder, tmp_path / "engine" / "snapshots")
    assert recovered.snapshot_index > 0
    assert recovered.state.digest() == plain.digest()
    assert FileSnapshotStore(tmp_path / "engine" / "snapshots").read_latest("BTC-PERP") is not None
