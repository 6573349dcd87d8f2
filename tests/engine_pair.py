"""Two engines of which one leads, clients that send until somebody answers, and what their journals hold afterwards."""

from __future__ import annotations

import asyncio
import json
import random
import subprocess
import sys
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import httpx

from engine.core import events as ev
from engine.core.state import State
from engine.journal.reader import read
from tests.engine_process import OPERATOR, TOKEN, EngineProcess
from tests.stack import ROOT
from tests.waiting import until

BTC = {"symbol": "BTC-PERP", "tickSize": "0.5", "lotSize": "0.001", "markPrice": 50_000}


class Pair:
    """Two engines, of which one leads; `lead` and `stand` change places as promotions do."""

    def __init__(self, folder: Path, **settings: str) -> None:
        self.engines = []
        for name in ("one", "two"):
            (folder / name).mkdir()
            self.engines.append(EngineProcess(folder / name, ENGINE_SNAPSHOT_INTERVAL_MS="500", **settings))
        self.lead, self.stand = self.engines

    async def start(self) -> None:
        """Start both; return when both are ready: the standby follows, and the leader takes commands."""
        self.lead.start()
        self.follow()
        await self.ready()

    async def ready(self) -> None:
        """Wait until both do what they are for."""
        for engine in self.engines:
            await until(lambda engine=engine: engine.readiness().get("ready"), 60, f"{engine.folder.name}: {engine.readiness()}")

    def follow(self, url: str = "") -> None:
        """Start the standby."""
        self.stand.settings |= {"ENGINE_FOLLOW": url or self.lead.url, "ENGINE_FOLLOW_KEY": TOKEN}
        self.stand.start()

    async def promote(self, *more: str) -> dict[str, Any]:
        """Make the standby the leader by the command; return what it prints."""
        done = await asyncio.to_thread(promote, self.stand, *more)
        assert done.returncode == 0, done.stderr
        self.lead, self.stand = self.stand, self.lead
        return dict(json.loads(done.stdout))

    def stop(self) -> None:
        """End both."""
        for engine in self.engines:
            if engine.process is not None and engine.process.poll() is None:
                engine.process.kill()
                engine.process.wait(20)


def promote(engine: EngineProcess, *more: str) -> subprocess.CompletedProcess[str]:
    """Run the command beside an engine, with its settings."""
    argv = [sys.executable, "-m", "engine", "promote", *more]
    return subprocess.run(argv, cwd=ROOT, env=engine.settings, capture_output=True, text=True, timeout=180, check=False)


class Client:
    """Sends orders of its own account to whoever leads; what has no answer it sends again, as it was, until it has one."""

    def __init__(self, pair: Pair, account: int) -> None:
        self.pair = pair
        self.account = account
        self.acknowledged: dict[str, str] = {}  # client id → order id
        self.repeated = 0
        self._http = httpx.AsyncClient(headers=OPERATOR, timeout=3, trust_env=False)
        self._dice = random.Random(account)

    async def run(self, stop: asyncio.Event) -> None:
        """Trade until `stop`."""
        number = 0
        while not stop.is_set():
            number += 1
            terms = {
                "account": self.account, "symbol": "BTC-PERP", "clOrdID": f"{self.account}-{number}",
                "side": self._dice.choice(("Buy", "Sell")), "orderQty": self._dice.randint(1, 9),
                "price": 50_000 + self._dice.randint(-4, 4) / 2, "timeInForce": "ImmediateOrCancel",
            }  # fmt: skip
            answer = await self.insist("POST", "/Order", terms)
            assert answer.status_code in (201, 409), answer.text
            self.repeated += answer.status_code == 409
            self.acknowledged[str(terms["clOrdID"])] = answer.json()["orderId"]
        await self._http.aclose()

    async def insist(self, method: str, path: str, body: Any = None) -> httpx.Response:
        """Send a request until somebody answers it."""
        while True:
            for engine in self.pair.engines:
                try:
                    answer = await self._http.request(method, engine.url + path, json=body)
                except httpx.TransportError:
                    continue
                if answer.status_code != 503:
                    return answer
            await asyncio.sleep(0.02)


async def opened(*clients: Client) -> None:
    """List the contract, and give every client's account money."""
    assert (await clients[0].insist("PUT", "/Instrument", BTC)).status_code in (200, 201)
    for client in clients:
        await client.insist("POST", f"/Account/{client.account}/Deposit", {"amount": 10**12})


def acknowledged_by(clients: Iterable[Client]) -> dict[str, str]:
    """Return client id → order id of everything that anybody was told."""
    return {name: order for client in clients for name, order in client.acknowledged.items()}


def shown(engine: EngineProcess) -> dict[str, Any]:
    """Return an engine's view of the replication, nothing while it does not answer."""
    try:
        return dict(httpx.get(f"{engine.url}/Replication", headers=OPERATOR, timeout=5, trust_env=False).json())
    except httpx.TransportError:
        return {}


async def ordered(engine: EngineProcess, name: str) -> tuple[int, str]:
    """Return status and code of the answer to one order, 0 when there is none."""
    terms = {"account": 1, "symbol": "BTC-PERP", "clOrdID": name, "side": "Buy", "orderQty": 1, "price": 50_000}
    async with httpx.AsyncClient(headers=OPERATOR, timeout=60, trust_env=False) as http:
        try:
            answer = await http.post(f"{engine.url}/Order", json=terms)
        except httpx.TransportError:
            return 0, ""
        return answer.status_code, answer.json().get("code", "")


def told(folder: Path) -> tuple[State, dict[str, str]]:
    """Return the state that an engine's journal makes, and the id of each order in it; none is in it twice."""
    plain, by_name, accepted, last = State(), {}, Counter[str](), 0
    for record in read(folder / "journal"):
        for event in ev.decode(record.payload):
            plain.apply(event)
            if isinstance(event, ev.OrderAccepted):
                accepted[event.order.cl_ord_id] += 1
                by_name[event.order.cl_ord_id] = str(event.order_id)
        if record.message:
            message = json.loads(record.message)
            assert message["prevMessageIndex"] == last
            last = plain.message_index = message["messageIndex"]
    assert set(accepted.values()) == {1}, "an order was taken twice"
    return plain, by_name
