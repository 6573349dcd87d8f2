"""Copies a message store into an SQLite file of orders, trades and the last index, as the product's documentation shows.

Its steps are those of the documented script: tables, store, index to start from, WebSocket, one transaction a message, purge
after it. Run as `python -m tests.message_store_script URL STORE FILE KEY`; it ends with exit code 4 when messages are missing.
"""

from __future__ import annotations

import asyncio
import json
import sqlite3
import sys
import time
from typing import Any
from urllib.parse import quote

import httpx
import websockets

GAP_EXIT = 4
PAUSE_S = 0.05
LOCKED_S_MAX = 0.1
TABLES = (
    "CREATE TABLE IF NOT EXISTS MessageIndex (lastIndex BIGINT)",
    """CREATE TABLE IF NOT EXISTS Orders (
        orderId VARCHAR(36) PRIMARY KEY, account BIGINT, symbol VARCHAR(64), price DOUBLE PRECISION, quantity BIGINT,
        orderState VARCHAR(15), filledQuantity BIGINT, filledCost BIGINT, averagePrice DOUBLE PRECISION,
        lastUpdateTime VARCHAR(24), rejectionType VARCHAR(64))""",
    """CREATE TABLE IF NOT EXISTS Trades (
        executionId VARCHAR(36) PRIMARY KEY, executionType VARCHAR(36), orderId VARCHAR(36), aggressingOrderId VARCHAR(36),
        symbol VARCHAR(64), quantity BIGINT, cost BIGINT, price DOUBLE PRECISION, commission DOUBLE PRECISION,
        execCommission BIGINT, transactionTime VARCHAR(24))""",
)
OF_ORDERS = ("New", "Trade", "Canceled")
OF_TRADES = ("Trade", "Liquidation", "Deleverage")


class Gap(Exception):
    """The feed says that messages are missing."""


class Consumer:
    """One store into one file. `store` is "" for the default one."""

    def __init__(self, url: str, store: str, path: str, token: str) -> None:
        self._store = store
        self._name = quote(store or '""')
        self._ws_url = url.replace("http", "ws", 1)
        self._headers = {"Authorization": f"Bearer {token}"}
        self._http = httpx.Client(base_url=url, headers=self._headers, timeout=5, trust_env=False)
        self._database = sqlite3.connect(path, timeout=LOCKED_S_MAX)
        self._retried(self._make_tables)

    def _retried(self, work: Any) -> Any:
        while True:
            try:
                with self._database:
                    return work()
            except sqlite3.OperationalError as error:
                print(f"database: {error}", flush=True)
                time.sleep(PAUSE_S)

    def _make_tables(self) -> None:
        for table in TABLES:
            self._database.execute(table)
        if not self._database.execute("SELECT COUNT(*) FROM MessageIndex").fetchone()[0]:
            self._database.execute("INSERT INTO MessageIndex VALUES (0)")

    def _last_index(self) -> int:
        return int(self._database.execute("SELECT lastIndex FROM MessageIndex").fetchone()[0])

    def _first_index(self) -> int:
        """Return where the store begins; make it when it is not there."""
        stores = self._http.get("/MessageStore/").raise_for_status().json()
        store = next((one for one in stores if one["storeId"] == self._store), None)
        if store is None:
            store = self._http.put(f"/MessageStore?storeId={self._name}").raise_for_status().json()
        return int(store["firstItemIndex"])

    async def run(self) -> None:
        """Follow the store for ever.  Raises: Gap."""
        while True:
            try:
                first, known = self._first_index(), self._retried(self._last_index)
                if 0 < known < first:
                    raise Gap(f"the database ends at {known}, the store begins at {first}")
                await self._follow(f"{self._ws_url}/joined?storeId={self._name}&lastSeen={max(first, known)}")
            except (OSError, httpx.HTTPError, websockets.WebSocketException, sqlite3.Error) as error:
                print(f"again: {type(error).__name__} {error}", flush=True)
                await asyncio.sleep(PAUSE_S)

    async def _follow(self, url: str) -> None:
        async with websockets.connect(
            url, additional_headers=self._headers, ping_interval=None, proxy=None, open_timeout=2, close_timeout=1
        ) as socket:
            async for text in socket:
                message = json.loads(text)
                if isinstance(message, str):
                    raise Gap(message)
                with self._database:  # rows and index together, or neither
                    self._process(message)
                self._http.delete(f"/MessageStore/Purge?storeId={self._name}&messageIndex={message['messageIndex']}")

    def _process(self, message: dict[str, Any]) -> None:
        for group in message["executions"]:
            takers = [one["orderId"] for one in group if one.get("lastLiquidityInd") == "RemovedLiquidity"]
            for one in group:
                if one["execType"] in OF_ORDERS:
                    row = (
                        one["orderId"], one["account"], one["symbol"], one["price"], one["orderQty"], one["ordStatus"], one["cumQty"],
                        one["cumCost"], one["avgPx"], one["timestamp"], one.get("ordRejReason"),
                    )  # fmt: skip
                    self._database.execute("REPLACE INTO Orders VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", row)
                if one["execType"] in OF_TRADES:
                    row = (
                        one["execId"], one["execType"], one["orderId"], takers[0] if takers else None, one["symbol"], one["lastQty"],
                        one["execCost"], one["lastPx"], one["commission"], one["execComm"], one["transactTime"],
                    )  # fmt: skip
                    self._database.execute("INSERT INTO Trades VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", row)
        self._database.execute("UPDATE MessageIndex SET lastIndex = ?", (message["messageIndex"],))


def main() -> None:
    """Run until killed, or until messages are missing."""
    url, store, path, token = sys.argv[1:]
    try:
        asyncio.run(Consumer(url, store, path, token).run())
    except Gap as gap:
        print(f"gap: {gap}", flush=True)
        sys.exit(GAP_EXIT)


if __name__ == "__main__":
    main()
