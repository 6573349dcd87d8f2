"""Turns messages into rows of tables, and writes the SQL that stores them.

The same SQL runs on SQLite and PostgreSQL; only the sign of a parameter differs. Quantities and money are whole numbers (lots
and units, 64 bits), prices are floats as in the frames. Orders holds the last known state of each order, Trades every fill,
also of liquidations; Transactions, Balances and Positions are `money.py`'s. MessageIndex has one row: where this database
begins and up to where it is complete. Tables are only ever added, each made where it is missing, so that an older database is
brought up to date by opening it, any number of times.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import NamedTuple

import msgspec

from engine.oms.money import BALANCES, OPENED, POSITIONS, TRANSACTIONS, Money, text
from engine.stores.messages import Execution, Transaction

OF_ORDERS = frozenset({"New", "Trade", "Canceled", "Replaced", "Rejected", "Triggered", "Restated"})
OF_TRADES = frozenset({"Trade", "Liquidation", "Deleverage", "Settlement"})

Cell = int | float | str | None
Row = tuple[Cell, ...]

ORDERS = (
    ("orderId", "TEXT PRIMARY KEY"), ("clOrdID", "TEXT NOT NULL"), ("account", "BIGINT NOT NULL"), ("symbol", "TEXT NOT NULL"),
    ("side", "TEXT NOT NULL"), ("orderType", "TEXT NOT NULL"), ("timeInForce", "TEXT NOT NULL"), ("price", "DOUBLE PRECISION"),
    ("stopPrice", "DOUBLE PRECISION"), ("quantity", "BIGINT NOT NULL"), ("openQuantity", "BIGINT NOT NULL"),
    ("orderState", "TEXT NOT NULL"), ("filledQuantity", "BIGINT NOT NULL"), ("filledCost", "BIGINT NOT NULL"),
    ("averagePrice", "DOUBLE PRECISION NOT NULL"), ("lastUpdateTime", "TEXT NOT NULL"), ("rejectionType", "TEXT"),
    ("cancelReason", "TEXT"), ("messageIndex", "BIGINT NOT NULL"),
)  # fmt: skip
TRADES = (
    ("executionId", "TEXT PRIMARY KEY"), ("executionType", "TEXT NOT NULL"), ("orderId", "TEXT NOT NULL"),
    ("aggressingOrderId", "TEXT"), ("matchId", "TEXT"), ("account", "BIGINT NOT NULL"), ("symbol", "TEXT NOT NULL"),
    ("side", "TEXT NOT NULL"), ("quantity", "BIGINT NOT NULL"), ("cost", "BIGINT NOT NULL"),
    ("price", "DOUBLE PRECISION NOT NULL"), ("commission", "DOUBLE PRECISION NOT NULL"), ("execCommission", "BIGINT NOT NULL"),
    ("transactionTime", "TEXT NOT NULL"), ("messageIndex", "BIGINT NOT NULL"),
)  # fmt: skip
MESSAGE_INDEX = (("storeId", "TEXT PRIMARY KEY"), ("firstIndex", "BIGINT NOT NULL"), ("lastIndex", "BIGINT NOT NULL"))
TABLES = {
    "Orders": ORDERS, "Trades": TRADES, "MessageIndex": MESSAGE_INDEX, "Transactions": TRANSACTIONS, "Balances": BALANCES,
    "Positions": POSITIONS, "Opened": OPENED,
}  # fmt: skip
INDEXES = (
    "CREATE INDEX IF NOT EXISTS TradesByOrder ON Trades (orderId)",
    "CREATE INDEX IF NOT EXISTS TransactionsByAccount ON Transactions (account, messageIndex)",
    "CREATE UNIQUE INDEX IF NOT EXISTS PositionsByHolder ON Positions (account, symbol)",
)
ACCOUNTS_MAX = 500  # asked for in one query


class StoredMessage(msgspec.Struct, rename="camel"):
    """What the tables need of a message."""

    message_index: int
    prev_message_index: int
    timestamp: str
    executions: list[list[Execution]]
    account_transactions: list[Transaction] = []


class Gap(Exception):
    """Messages are missing that nobody keeps any more, or the engine's history is not the one in this database."""


class NotAMessage(Exception):
    """A frame that is no message at all: engine and consumer are of different versions."""


class Progress(NamedTuple):
    """Where a database stands: the first index it covers, and the last one; `last_index` is one less while it is empty."""

    first_index: int
    last_index: int


_FRAME = msgspec.json.Decoder(StoredMessage)


def decode(frame: bytes | str) -> StoredMessage:
    """Return a frame of the feed.  Raises: Gap for a JSON string, which is the engine's explanation of one; NotAMessage."""
    try:
        return _FRAME.decode(frame)
    except msgspec.DecodeError as error:
        raise _fault(frame, error) from None


def _fault(frame: bytes | str, error: Exception) -> Exception:
    try:
        found = msgspec.json.decode(frame)
    except msgspec.DecodeError:
        found = None
    return Gap(found) if isinstance(found, str) else NotAMessage(str(error))


class Changes:
    """The rows of one transaction: several messages in a row, each order once."""

    def __init__(self, progress: Progress) -> None:
        self.first_index = progress.first_index
        self.after_index = self.last_index = progress.last_index
        self.messages = 0
        self.timestamp = ""
        self.orders: dict[str, Row] = {}
        self.trades: list[Row] = []
        self.money = Money()

    def add(self, frame: StoredMessage) -> bool:
        """Add a message; return False for a duplicate, which changes nothing.

        Raises: Gap when something is missing before it. A message's predecessor is the last one here; before the first one
        here there may have been anything.
        """
        if frame.message_index <= self.last_index:
            return False
        previous, begun = frame.prev_message_index, self.last_index >= self.first_index
        if previous > self.last_index:
            raise Gap(f"message {frame.message_index} follows message {previous}, and the last one here is {self.last_index}")
        if begun and previous < self.last_index:
            raise Gap(f"message {frame.message_index} follows message {previous}, but message {self.last_index} is here")
        self.last_index, self.timestamp = frame.message_index, frame.timestamp
        self.messages += 1
        for group in frame.executions:
            self._add_group(group, frame.message_index)
        for one in frame.account_transactions:
            self.money.transact(one, frame.message_index)
        return True

    def time_ms(self) -> int:
        """Return when the last message happened, in ms since the epoch."""
        return int(datetime.fromisoformat(self.timestamp).timestamp() * 1_000)

    def _add_group(self, group: list[Execution], index: int) -> None:
        taker = next((execution.order_id for execution in group if execution.last_liquidity_ind == "RemovedLiquidity"), None)
        for execution in group:
            if execution.exec_type in OF_ORDERS:
                self.orders[execution.order_id] = _order_row(execution, index)
            if execution.exec_type in OF_TRADES:
                self.trades.append(_trade_row(execution, taker, index))
                self.money.fill(execution, index)


def _order_row(ex: Execution, index: int) -> Row:
    return (
        ex.order_id, text(ex.cl_ord_id), ex.account, text(ex.symbol), ex.side, ex.ord_type, ex.time_in_force, ex.price,
        ex.stop_px, ex.order_qty, ex.leaves_qty, ex.ord_status, ex.cum_qty, ex.cum_cost, ex.avg_px, ex.timestamp,
        ex.ord_rej_reason or None, ex.text or None, index,
    )  # fmt: skip


def _trade_row(ex: Execution, taker: str | None, index: int) -> Row:
    return (
        ex.exec_id, ex.exec_type, ex.order_id, taker, ex.trd_match_id or None, ex.account, text(ex.symbol), ex.side,
        ex.last_qty, ex.exec_cost, ex.last_px, ex.commission, ex.exec_comm, ex.transact_time, index,
    )  # fmt: skip


# SQL. `sign` is the database's sign for a parameter: ? or %s.


def schema() -> list[str]:
    """Return the statements that make the tables where they are missing."""
    made = [f"CREATE TABLE IF NOT EXISTS {name} ({', '.join(map(' '.join, columns))})" for name, columns in TABLES.items()]
    return [*made, *INDEXES]


def insert_progress(sign: str) -> str:
    """Return the SQL that begins a database: storeId, firstIndex, lastIndex."""
    return _insert("MessageIndex", MESSAGE_INDEX, sign)


def select_progress() -> str:
    """Return the SQL of the one row (storeId, firstIndex, lastIndex)."""
    return "SELECT storeId, firstIndex, lastIndex FROM MessageIndex"


def move_progress(sign: str) -> str:
    """Return the SQL that moves lastIndex (new, storeId, old); it changes no row when somebody else has moved it."""
    return f"UPDATE MessageIndex SET lastIndex = {sign} WHERE storeId = {sign} AND lastIndex = {sign}"  # noqa: S608  # no input


def upsert_order(sign: str) -> str:
    """Return the SQL that stores an order's last state."""
    return _upsert("Orders", ORDERS, 1, sign)


def insert_trade(sign: str) -> str:
    """Return the SQL that adds a fill; one that is there already is an error, because positions keep duplicates out."""
    return _insert("Trades", TRADES, sign)


def insert_transaction(sign: str) -> str:
    """Return the SQL that adds a transaction."""
    return _insert("Transactions", TRANSACTIONS, sign)


def upsert_balance(sign: str) -> str:
    """Return the SQL that stores an account's balance."""
    return _upsert("Balances", BALANCES, 1, sign)


def upsert_position(sign: str) -> str:
    """Return the SQL that stores a position; one that is closed stays, with quantity 0."""
    return _upsert("Positions", POSITIONS, 2, sign)


def insert_opened(sign: str) -> str:
    """Return the SQL that says that the openings are in."""
    return _insert("Opened", OPENED, sign)


def select_opened(sign: str) -> str:
    """Return the SQL of whether they are."""
    return f"SELECT storeId FROM Opened WHERE storeId = {sign}"  # noqa: S608  # no input


def select_money(table: str, count: int, sign: str) -> str:
    """Return the SQL of the rows of some accounts, in Balances or Positions."""
    names = ", ".join(name for name, _ in TABLES[table])
    return f"SELECT {names} FROM {table} WHERE account IN ({', '.join([sign] * count)})"  # noqa: S608  # no input


def select_book(what: str) -> str:
    """Return the SQL of everything that is compared with the exchange: Balances, Positions, or Orders that are open."""
    if what == "Orders":
        return "SELECT orderId, account, openQuantity, messageIndex FROM Orders WHERE openQuantity > 0"
    return f"SELECT {', '.join(name for name, _ in TABLES[what])} FROM {what}"  # noqa: S608  # no input


def _upsert(table: str, columns: Sequence[tuple[str, str]], keys: int, sign: str) -> str:
    news = ", ".join(f"{name} = excluded.{name}" for name, _ in columns[keys:])
    key = ", ".join(name for name, _ in columns[:keys])
    return f"{_insert(table, columns, sign)} ON CONFLICT ({key}) DO UPDATE SET {news}"


def _insert(table: str, columns: Iterable[tuple[str, str]], sign: str) -> str:
    names = [name for name, _ in columns]
    return f"INSERT INTO {table} ({', '.join(names)}) VALUES ({', '.join([sign] * len(names))})"  # noqa: S608  # no input
