"""The rows that a database must hold, worked out by plain JSON, and an engine's message store that a test can misuse."""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import sqlite3
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import uvicorn
from litestar import Litestar, Response, WebSocket, delete, get, put, websocket
from litestar.exceptions import WebSocketDisconnect
from litestar.params import FromQuery

from engine.core import commands as cm
from engine.core.exchange import Exchange
from engine.stores.message_builder import MessageBuilder
from service.admin import bind
from tests.engine.core.linked_orders import linked_order
from tests.engine.core.test_accounts import random_command

Rows = dict[str, dict[str, Any]]
NOW_NS = 1_795_227_409_123_456_789
FIRST = 2  # index of the first command that a store of `frames` keeps; its firstItemIndex is one less


def frames(seed: int, count: int) -> list[bytes]:
    """Return the messages of `count` random commands, liquidations and refusals among them."""
    dice, exchange, found = random.Random(seed), Exchange(MessageBuilder), []
    exchange.decide(1, NOW_NS, cm.CreateStore("oms"))
    for index in range(FIRST, count):
        command = random_command(dice, index)
        if index < FIRST + 2:
            command = cm.CreateInstrument(cm.Instrument("AB"[index - 2], taker_fee_ppm=600, tick_size="0.05"), 100)
        elif dice.random() < 0.1:
            command = linked_order(dice, dice.randint(1, 6), dice.choice("AB"), str(index))
        elif dice.random() < 0.05 and exchange.state.orders:
            order = dice.choice(list(exchange.state.orders.values()))
            command = cm.AmendOrder(order.terms.account, order.terms.cl_ord_id, size_lots=order.size_lots + dice.randint(-1, 1))
        exchange.decide(index, NOW_NS + index * 1_000_000, command)
        if exchange.message:
            found.append(exchange.message)
    return found


def expected(messages: Iterable[bytes]) -> tuple[Rows, Rows]:
    """Return orders by id and trades by id as the frames tell them, in plain JSON; an execution told twice is an error."""
    orders: Rows = {}
    trades: Rows = {}
    for message in messages:
        body = json.loads(message)
        for group in body["executions"]:
            takers = [e["orderId"] for e in group if e.get("lastLiquidityInd") == "RemovedLiquidity"]
            for e in group:
                if e["execType"] not in ("Liquidation", "Deleverage", "Funding"):
                    orders[e["orderId"]] = {
                        "clordid": e["clOrdID"], "account": e["account"], "symbol": e["symbol"], "side": e["side"],
                        "ordertype": e["ordType"], "timeinforce": e["timeInForce"], "price": e["price"],
                        "stopprice": e.get("stopPx"), "quantity": e["orderQty"], "openquantity": e["leavesQty"],
                        "orderstate": e["ordStatus"], "filledquantity": e["cumQty"], "filledcost": e["cumCost"],
                        "averageprice": e["avgPx"], "lastupdatetime": e["timestamp"], "rejectiontype": e.get("ordRejReason"),
                        "cancelreason": e.get("text"), "messageindex": body["messageIndex"],
                    }  # fmt: skip
                if e["execType"] in ("Trade", "Liquidation", "Deleverage"):
                    assert e["execId"] not in trades, f"execution {e['execId']} is told twice"
                    trades[e["execId"]] = {
                        "executiontype": e["execType"], "orderid": e["orderId"],
                        "aggressingorderid": takers[0] if takers else None, "matchid": e.get("trdMatchID"),
                        "account": e["account"], "symbol": e["symbol"], "side": e["side"], "quantity": e["lastQty"],
                        "cost": e["execCost"], "price": e["lastPx"], "commission": e["commission"],
                        "execcommission": e["execComm"], "transactiontime": e["transactTime"],
                        "messageindex": body["messageIndex"],
                    }  # fmt: skip
    return orders, trades


def stored(url: str) -> tuple[Rows, Rows]:
    """Return the same out of a database; two rows of one id are an error."""
    return _by_id(url, "Orders"), _by_id(url, "Trades")


def last_index(url: str) -> int:
    """Return the lastIndex of a database, 0 when it has none yet."""
    with contextlib.suppress(sqlite3.OperationalError, psycopg.errors.UndefinedTable):
        rows, _ = query(url, "SELECT lastIndex FROM MessageIndex")
        return rows[0][0] if rows else 0
    return 0


def query(url: str, sql: str) -> tuple[list[tuple[Any, ...]], list[str]]:
    """Return rows and lower-case column names. Both databases, own connections."""
    if url.startswith("sqlite"):
        with contextlib.closing(sqlite3.connect(url.removeprefix("sqlite:///"), timeout=10)) as db:
            cursor = db.execute(sql)
            return cursor.fetchall(), [column[0].lower() for column in cursor.description]
    with psycopg.connect(url) as connection:
        done = connection.execute(sql.encode())
        return done.fetchall(), [column.name for column in done.description or ()]


def _by_id(url: str, table: str) -> Rows:
    rows, names = query(url, f"SELECT * FROM {table}")
    found = {row[0]: dict(zip(names[1:], row[1:], strict=True)) for row in rows}
    assert len(found) == len(rows), f"{table} has an id twice"
    return found


class StandIn:
    """A gateway with one message store whose frames and faults the test chooses. Checks every purge against the database."""

    def __init__(self, messages: list[bytes], database: str = "", first_index: int = FIRST) -> None:
        self.messages = messages
        self.exists = False
        self.first_index = first_index
        self.purged: list[int] = []
        self.violations: list[str] = []
        self.joined: list[int] = []  # lastSeen of each connection
        self.cuts: Iterator[int] = iter(())  # after how many frames each connection ends; then never
        self.repeats = 0  # frames sent again at the start of a connection
        self.skip: int | None = None  # position of a frame that is left out
        self.words: list[tuple[str, int]] = []  # sent as JSON strings instead of frames, and the close code that follows
        self.purge_status = 200
        self.token = ""
        self.open = asyncio.Event()
        self.open.set()
        self._database = database
        self.url = ""

    async def __aenter__(self) -> StandIn:
        socket = bind("127.0.0.1", 0, "")
        self.url = f"http://127.0.0.1:{socket.getsockname()[1]}"
        config = uvicorn.Config(self._app(), log_config=None, lifespan="off", timeout_graceful_shutdown=1)
        self._server = uvicorn.Server(config)
        self._server.install_signal_handlers = lambda: None  # type: ignore[attr-defined]
        self._task = asyncio.create_task(self._server._serve(sockets=[socket]))
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.should_exit = True
        await self._task
        assert not self.violations

    def _app(self) -> Litestar:
        @get("/MessageStore", sync_to_thread=False)
        def stores() -> list[dict[str, Any]]:
            return [{"storeId": "oms", "firstItemIndex": self.first_index - 1}] if self.exists else []

        @get("/Account", sync_to_thread=False)
        def accounts() -> list[dict[str, Any]]:
            return []

        @put("/MessageStore", sync_to_thread=False)
        def create(storeId: FromQuery[str]) -> dict[str, Any]:
            assert storeId == "oms"
            self.exists = True
            return {"storeId": "oms", "firstItemIndex": self.first_index - 1}

        @delete("/MessageStore/Purge", sync_to_thread=True, status_code=200)
        def purge(messageIndex: FromQuery[int]) -> Response[None]:
            if self.purge_status == 200:
                committed = last_index(self._database) if self._database else messageIndex
                if messageIndex > committed:
                    self.violations.append(f"purged {messageIndex}, committed {committed}")
                self.purged.append(messageIndex)
            return Response(None, status_code=self.purge_status)

        @websocket("/joined")
        async def joined(socket: WebSocket[Any, Any, Any], lastSeen: FromQuery[int]) -> None:
            if self.token and socket.headers.get("authorization") != f"Bearer {self.token}":
                await socket.close(4401)
                return
            await socket.accept()
            self.joined.append(lastSeen)
            with contextlib.suppress(WebSocketDisconnect):
                await self._send(socket, lastSeen)

        return Litestar([stores, accounts, create, purge, joined], logging_config=None, openapi_config=None)

    async def _send(self, socket: WebSocket[Any, Any, Any], last_seen: int) -> None:
        if self.words:
            text, code = self.words.pop(0)
            await socket.send_text(json.dumps(text))
            await socket.close(code)
            return
        cut = next(self.cuts, None)
        first = next((n for n, m in enumerate(self.messages) if json.loads(m)["messageIndex"] > last_seen), len(self.messages))
        for sent, number in enumerate(range(max(0, first - self.repeats), len(self.messages))):
            await self.open.wait()
            if sent == cut:
                await socket.close()
                return
            if number != self.skip:
                await socket.send_text(self.messages[number].decode())
        await socket.receive()  # until the client leaves


def sqlite_url(folder: Path) -> str:
    return f"sqlite:///{folder / 'oms.sqlite'}"
