"""The documented consumer against the real engine: both are killed, the database refuses; no row is lost and none is doubled."""

from __future__ import annotations

import asyncio
import json
import random
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import websockets

from engine.journal.reader import read
from tests.engine_process import OPERATOR, TOKEN
from tests.message_store_script import GAP_EXIT, OF_ORDERS, OF_TRADES
from tests.scale import many
from tests.servers import free_port
from tests.stack import ROOT, _die_with_parent
from tests.waiting import until

pytestmark = pytest.mark.live

BTC = {"symbol": "BTC-PERP", "tickSize": "0.5", "lotSize": "0.001", "markPrice": 50_000}
ROUNDS = 9
AHEAD_MAX = 200  # messages that the traders may be ahead of the consumer


class Child:
    """A process of ours that a test may kill and start again."""

    def __init__(self, folder: Path, name: str, argv: list[str], env: dict[str, str]) -> None:
        self.log = folder / f"{name}.log"
        self._argv = argv
        self._env = {"PATH": "/usr/bin:/bin", **env}
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        with self.log.open("ab") as out:
            self.process = subprocess.Popen(
                [sys.executable, "-m", *self._argv], cwd=ROOT, env=self._env, stdin=subprocess.DEVNULL, stdout=out, stderr=out,
                preexec_fn=_die_with_parent,
            )  # fmt: skip

    def end(self, sig: int) -> int:
        assert self.process is not None
        if self.process.poll() is None:
            self.process.send_signal(sig)
        return self.process.wait(20)


class Scene:
    """The engine's folder and port, the consumer's database, and a client that trades."""

    def __init__(self, folder: Path, store: str) -> None:
        self.folder = folder
        self.store = store
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.database = folder / "oms.sqlite"
        settings = {
            "ENGINE_DIR": str(folder / "engine"), "ENGINE_PORT": str(self.port), "ENGINE_ADMIN_PORT": "0",
            "ENGINE_SNAPSHOT_INTERVAL_MS": "500", "RUN_DIR": str(folder), "ENGINE_API_TOKEN": TOKEN,
        }  # fmt: skip
        self.engine = Child(folder, "engine", ["engine", "serve"], settings)
        self.consumer = Child(folder, "consumer", ["tests.message_store_script", self.url, store, str(self.database), TOKEN], {})
        self.http = httpx.AsyncClient(base_url=self.url, headers=OPERATOR, timeout=10, trust_env=False)
        self.orders = 0

    async def insist(self, method: str, path: str, body: Any = None) -> httpx.Response:
        """Send a request until somebody answers it."""
        while True:
            try:
                answer = await self.http.request(method, path, json=body)
            except httpx.TransportError:
                await asyncio.sleep(0.02)
                continue
            if answer.status_code != 503:
                return answer
            await asyncio.sleep(0.02)

    async def open_market(self) -> None:
        """List the contract and give money to two accounts and the insurance."""
        assert (await self.insist("PUT", "/Instrument", BTC)).status_code == 200
        for account in (0, 1, 2, 3):
            await self.insist("POST", f"/Account/{account}/Deposit", {"amount": 10**12 if account != 3 else 6_000_000})

    async def trade(self, stop: asyncio.Event) -> None:
        """Send orders that rest, trade and are cancelled, until `stop`."""
        dice = random.Random(5)
        while not stop.is_set():
            self.orders += 1
            terms = {
                "account": 1 + self.orders % 2, "symbol": "BTC-PERP", "clOrdID": f"o{self.orders}", "orderQty": dice.randint(1, 9),
                "side": dice.choice(("Buy", "Sell")), "price": 50_000 + dice.randint(-3, 3) / 2,
                "timeInForce": dice.choice(("GoodTillCancel", "ImmediateOrCancel")),
            }  # fmt: skip
            answer = await self.insist("POST", "/Order", terms)
            if answer.status_code == 422:  # while the mark is down for the liquidation, this price is beyond the band
                continue
            assert answer.status_code in (201, 409), answer.text
            index = int(answer.json()["orderId"])
            if self.orders % 9 == 0:
                await self.insist("PUT", f"/LivenessCheck?checkId=after-{self.orders}")
            if self.orders % 10 == 0:  # the consumer writes and purges message by message, so it is the slower one
                await until(lambda at=index: stop.is_set() or at - self.last_index() < AHEAD_MAX, 60)  # type: ignore[misc]
            if self.orders % 20 == 0:
                await self.insist("DELETE", f"/Order/All?account={1 + dice.randrange(2)}")

    def rows(self, query: str) -> list[Any]:
        """Return rows of the consumer's database, none while there is no such table."""
        if not self.database.exists():
            return []
        with sqlite3.connect(self.database, timeout=5) as database:
            try:
                return database.execute(query).fetchall()
            except sqlite3.OperationalError:
                return []

    def last_index(self) -> int:
        """Return the consumer's last index."""
        found = self.rows("SELECT lastIndex FROM MessageIndex")
        return int(found[0][0]) if found else 0

    async def moved(self, by: int) -> None:
        """Wait until the consumer has stored some more messages."""
        before = self.last_index()
        await until(lambda: self.last_index() >= before + by, 40, "the consumer goes on")

    async def caught_up(self) -> None:
        """Wait until the store is empty: all is stored and purged."""

        async def empty() -> bool:
            stores = (await self.insist("GET", "/MessageStore")).json()
            return any(one["storeId"] == self.store and one["itemCount"] == 0 for one in stores)

        await until(empty, 40, "the consumer catches up")


@pytest.fixture(params=["", "my_message_store"][: many(2, 1)], ids=["default", "named"][: many(2, 1)])
def scene(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Scene]:
    made = Scene(tmp_path, request.param)
    yield made
    for child in (made.consumer, made.engine):
        if child.process is not None:
            child.end(signal.SIGKILL)


async def test_kills_and_database_errors_lose_and_double_no_row(scene: Scene) -> None:
    """Engine and consumer die by SIGKILL in turns, the database is locked for a while: the tables are the journal's executions."""
    scene.engine.start()
    await scene.open_market()
    scene.consumer.start()
    await until(lambda: scene.rows("SELECT * FROM MessageIndex"), 20)
    dice, stop = random.Random(3), asyncio.Event()
    trading = asyncio.create_task(scene.trade(stop))
    for number in range(ROUNDS):
        await scene.moved(dice.randint(3, 40))
        if number % 3 == 0:
            assert scene.engine.end(signal.SIGKILL) == -signal.SIGKILL
            scene.engine.start()
        elif number % 3 == 1:
            assert scene.consumer.end(signal.SIGKILL) == -signal.SIGKILL
            scene.consumer.start()
        else:
            await _lock(scene)
    await _liquidate(scene)
    stop.set()
    await trading
    await scene.caught_up()
    assert scene.consumer.end(signal.SIGTERM) == -signal.SIGTERM
    assert scene.engine.end(signal.SIGTERM) == 0
    compare(scene)
    told = scene.consumer.log.read_text()
    assert "database" in told or "OperationalError" in told, "the lock was felt"
    assert "IntegrityError" not in told
    assert "gap" not in told


async def _lock(scene: Scene) -> None:
    """Hold the database as a backup would, until a write of the consumer has failed."""
    before = scene.consumer.log.read_text().count("locked")
    holder = sqlite3.connect(scene.database, timeout=5, isolation_level=None)
    holder.execute("BEGIN EXCLUSIVE")
    await until(lambda: scene.consumer.log.read_text().count("locked") > before, 20, "the lock is felt")
    holder.execute("ROLLBACK")
    holder.close()


async def _liquidate(scene: Scene) -> None:
    """Let account 3 buy all it can and the mark fall, so that a liquidation is among the rows."""
    terms = {"account": 3, "symbol": "BTC-PERP", "clOrdID": "last", "side": "Buy", "orderQty": 1, "price": 50_100}
    offer = {"account": 1, "symbol": "BTC-PERP", "clOrdID": "offer", "side": "Sell", "orderQty": 30, "price": 50_000}
    for body in (offer, terms):
        answer = await scene.insist("POST", "/Order", body)
        assert answer.status_code in (201, 409), answer.text
    await scene.insist("PUT", "/MarkPrice?symbol=BTC-PERP&price=40000")
    assert (await scene.insist("GET", "/Account/3")).json()["positions"] == []
    await scene.insist("PUT", "/MarkPrice?symbol=BTC-PERP&price=50000")


def compare(scene: Scene) -> None:
    """Assert that the tables are what the journal's messages say."""
    orders: dict[str, tuple[Any, ...]] = {}
    trades: dict[str, tuple[Any, ...]] = {}
    last, kinds = 0, set()
    for record in read(scene.folder / "engine" / "journal"):
        if not record.message:
            continue
        message = json.loads(record.message)
        assert message["prevMessageIndex"] == last
        last = message["messageIndex"]
        for one in (one for group in message["executions"] for one in group):
            kinds.add(one["execType"])
            if one["execType"] in OF_ORDERS:
                orders[one["orderId"]] = (one["orderQty"], one["ordStatus"], one["cumQty"], one["cumCost"], one["avgPx"])
            if one["execType"] in OF_TRADES:
                assert one["execId"] not in trades
                trades[one["execId"]] = (one["orderId"], one["lastQty"], one["execCost"], one["lastPx"])
    assert kinds >= {"New", "Trade", "Canceled", "Liquidation"}
    stored = scene.rows("SELECT executionId, orderId, quantity, cost, price FROM Trades")
    assert len(stored) == len(trades) > 50
    assert {row[0]: row[1:] for row in stored} == trades
    stored = scene.rows("SELECT orderId, quantity, orderState, filledQuantity, filledCost, averagePrice FROM Orders")
    assert {row[0]: row[1:] for row in stored} == orders
    assert scene.last_index() == last


async def test_a_consumer_whose_messages_somebody_else_purged_stops_loudly(scene: Scene) -> None:
    """The database ends before what the engine still has: the feed says gap, and nothing is written past it."""
    scene.engine.start()
    await scene.open_market()
    scene.consumer.start()
    name = scene.store or "%22%22"
    await until(lambda: scene.rows("SELECT * FROM MessageIndex"), 20)
    stop = asyncio.Event()
    trading = asyncio.create_task(scene.trade(stop))
    await scene.moved(20)
    scene.consumer.end(signal.SIGKILL)
    kept = scene.last_index()
    await until(lambda: scene.orders > kept + 20, 30)
    stop.set()
    await trading
    last = (await scene.insist("PUT", "/LivenessCheck?checkId=end")).json()["messageIndex"]
    await scene.insist("DELETE", f"/MessageStore/Purge?storeId={name}&messageIndex={last - 1}")
    async with websockets.connect(
        f"ws://127.0.0.1:{scene.port}/joined?storeId={name}&lastSeen={kept}", proxy=None, additional_headers=OPERATOR
    ) as socket:
        text = json.loads(await socket.recv())
        assert isinstance(text, str)
        assert "gap" in text
    trades = len(scene.rows("SELECT * FROM Trades"))
    scene.consumer.start()
    assert scene.consumer.process is not None
    assert await asyncio.to_thread(scene.consumer.process.wait, 20) == GAP_EXIT
    assert "gap" in scene.consumer.log.read_text()
    assert len(scene.rows("SELECT * FROM Trades")) == trades
