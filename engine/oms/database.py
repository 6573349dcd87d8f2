"""Commits rows and the message index in one transaction, to SQLite in a thread of its own or to PostgreSQL.

Either everything of a transaction is there afterwards or nothing; after an error the progress must be read again, because a
commit whose answer was lost may have happened.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import sqlite3
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, TypeVar
from urllib.parse import unquote, urlsplit

from engine.oms import tables
from engine.oms.money import BalanceRow, Holder, Money, Opening, PositionRow, opening_rows
from engine.oms.tables import Changes, Progress
from service.errors import OperatorError
from service.settings import hide_password

if TYPE_CHECKING:
    import psycopg

BUSY_S = 2.0  # how long SQLite waits for another process's lock before we say so and try again
ANSWER_S_MAX = 5.0  # for PostgreSQL to answer one transaction
INSTALL = 'Install it with: pip install "tapeline[postgres]"'
T = TypeVar("T")


class DatabaseUnavailable(Exception):
    """A fault that may pass: locked, full, away. Nothing was written, or the answer was lost."""


class Database(Protocol):
    """Where rows go. Opens itself when it is not open, also after a fault.

    Every call but `close` raises DatabaseUnavailable, or OperatorError for what waiting does not mend.
    """

    async def progress(self, store_id: str) -> Progress | None:
        """Return where the database stands, None when it is new; makes the tables."""

    async def begin(self, store_id: str, first_index: int) -> None:
        """Say where a new database begins."""

    async def write(self, store_id: str, changes: Changes) -> bool:
        """Commit; return False when the database no longer stood where the changes begin, and nothing was written."""

    async def opened(self, store_id: str) -> bool:
        """Return whether the database has what it begins with of balances and positions."""

    async def open(self, store_id: str, openings: Sequence[Opening]) -> None:
        """Keep what balances and positions begin with, once."""

    async def book(self) -> Book:
        """Return what is compared with the exchange, as of one moment. Cost: O(accounts + open orders)."""

    async def close(self) -> None:
        """Close; a transaction that is not committed is gone."""


class Book(NamedTuple):
    """What a database says of the present, all of it after message `last_index`."""

    last_index: int
    balances: list[BalanceRow]
    positions: list[PositionRow]
    orders: list[tuple[str, int, int, int]]  # id, account, open quantity, message index


def connect(url: str) -> Database:
    """Return the database of a URL: sqlite:///path, or postgresql://user:pass@host/name.  Raises: OperatorError."""
    if url.startswith("sqlite:///"):
        return Sqlite(Path(unquote(url.removeprefix("sqlite:///"))))
    if urlsplit(url).scheme in ("postgresql", "postgres"):
        return Postgres(url)
    raise OperatorError(f"OMS_DATABASE_URL {hide_password(url)!r} is no database", "Write sqlite:///path or postgresql://…")


def _progress(row: Any, store_id: str) -> Progress | None:
    if row is None:
        return None
    if row[0] != store_id:
        raise OperatorError(f"The database follows the store {row[0]!r}, not {store_id!r}", "Set OMS_STORE or OMS_DATABASE_URL")
    return Progress(int(row[1]), int(row[2]))


class Sqlite:
    """A file. WAL lets others read meanwhile; FULL makes a commit survive a power failure."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._connection: sqlite3.Connection | None = None
        self._thread = ThreadPoolExecutor(1, "oms-sqlite")

    async def progress(self, store_id: str) -> Progress | None:
        return await self._call(lambda db: _progress(db.execute(tables.select_progress()).fetchone(), store_id))

    async def begin(self, store_id: str, first_index: int) -> None:
        await self._call(lambda db: self._begin(db, store_id, first_index))

    async def write(self, store_id: str, changes: Changes) -> bool:
        return await self._call(lambda db: self._write(db, store_id, changes))

    async def opened(self, store_id: str) -> bool:
        return await self._call(lambda db: db.execute(tables.select_opened("?"), (store_id,)).fetchone() is not None)

    async def open(self, store_id: str, openings: Sequence[Opening]) -> None:
        await self._call(lambda db: self._open_money(db, store_id, openings))

    async def book(self) -> Book:
        return await self._call(self._book)

    async def close(self) -> None:
        await asyncio.get_running_loop().run_in_executor(self._thread, self._drop)

    async def _call(self, work: Callable[[sqlite3.Connection], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._do, work)

    def _do(self, work: Callable[[sqlite3.Connection], T]) -> T:
        try:
            if self._connection is None:
                self._connection = self._open()
            return work(self._connection)
        except sqlite3.OperationalError as error:  # locked, full, read only, disk I/O error
            self._drop()
            raise DatabaseUnavailable(f"{self._path}: {error}") from None
        except sqlite3.DatabaseError as error:  # not a database, malformed, rows that contradict those there
            self._drop()
            raise OperatorError(f"{self._path}: {error}", "Repair the database, or restore it from a backup", 4) from None

    def _open(self) -> sqlite3.Connection:
        with contextlib.suppress(OSError):  # SQLite says what is wrong with the path
            self._path.parent.mkdir(parents=True, exist_ok=True)
        connection = sqlite3.connect(self._path, timeout=BUSY_S, isolation_level=None)
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = FULL")
            for statement in tables.schema():
                connection.execute(statement)
        except BaseException:
            connection.close()
            raise
        return connection

    def _begin(self, db: sqlite3.Connection, store_id: str, first_index: int) -> None:
        db.execute(tables.insert_progress("?"), (store_id, first_index, first_index - 1))

    def _write(self, db: sqlite3.Connection, store_id: str, changes: Changes) -> bool:
        db.execute("BEGIN IMMEDIATE")
        moved = db.execute(tables.move_progress("?"), (changes.last_index, store_id, changes.after_index))
        if not moved.rowcount:
            db.execute("ROLLBACK")
            return False
        db.executemany(tables.upsert_order("?"), changes.orders.values())
        db.executemany(tables.insert_trade("?"), changes.trades)
        db.executemany(tables.insert_transaction("?"), changes.money.transactions)
        balances, held = self._known(db, changes.money)
        db.executemany(tables.upsert_balance("?"), changes.money.balances(balances))
        db.executemany(tables.upsert_position("?"), changes.money.positions(held, balances))
        db.execute("COMMIT")
        return True

    def _known(self, db: sqlite3.Connection, money: Money) -> Known:
        rows = [
            db.execute(tables.select_money(table, len(some), "?"), some).fetchall()
            for table in MONEY
            for some in _portions(money)
        ]  # fmt: skip
        return _known(rows)

    def _open_money(self, db: sqlite3.Connection, store_id: str, openings: Sequence[Opening]) -> None:
        balances, positions = opening_rows(openings)
        db.execute("BEGIN IMMEDIATE")
        db.executemany(tables.upsert_balance("?"), balances)
        db.executemany(tables.upsert_position("?"), positions)
        db.execute(tables.insert_opened("?"), (store_id,))
        db.execute("COMMIT")

    def _book(self, db: sqlite3.Connection) -> Book:
        db.execute("BEGIN")
        try:
            row = db.execute(tables.select_progress()).fetchone()
            return Book(row[2] if row else 0, *(db.execute(tables.select_book(what)).fetchall() for what in BOOK))
        finally:
            db.execute("COMMIT")

    def _drop(self) -> None:
        if self._connection is not None:
            with contextlib.suppress(sqlite3.Error):
                self._connection.close()  # rolls back what is open
            self._connection = None


class Postgres:
    """A server. Its tables are made in the first schema of the user's search path."""

    def __init__(self, url: str) -> None:
        try:
            import psycopg
        except ImportError:
            raise OperatorError("PostgreSQL needs the package psycopg", INSTALL) from None
        self._driver = psycopg
        self._url = url
        self._connection: psycopg.AsyncConnection[Any] | None = None

    async def progress(self, store_id: str) -> Progress | None:
        return await self._call(lambda db: self._progress(db, store_id))

    async def begin(self, store_id: str, first_index: int) -> None:
        await self._call(lambda db: self._begin(db, store_id, first_index))

    async def write(self, store_id: str, changes: Changes) -> bool:
        return await self._call(lambda db: self._write(db, store_id, changes))

    async def opened(self, store_id: str) -> bool:
        return await self._call(lambda db: self._opened(db, store_id))

    async def open(self, store_id: str, openings: Sequence[Opening]) -> None:
        await self._call(lambda db: self._open_money(db, store_id, openings))

    async def book(self) -> Book:
        return await self._call(self._book)

    async def close(self) -> None:
        if self._connection is not None:
            connection, self._connection = self._connection, None
            with contextlib.suppress(self._driver.Error, OSError):
                await connection.close()

    async def _call(self, work: Callable[[psycopg.AsyncConnection[Any]], Awaitable[T]]) -> T:
        refused = (self._driver.DataError, self._driver.IntegrityError, self._driver.ProgrammingError)
        try:
            connection = self._connection = self._connection or await self._open()
            return await self._limited(connection, work)
        except refused as error:  # rows that contradict those there, no right to make tables
            await self.close()
            raise OperatorError(f"PostgreSQL: {_line(error)}", "Repair the database, or its user's rights", 4) from None
        except (self._driver.Error, OSError) as error:
            await self.close()
            raise DatabaseUnavailable(f"PostgreSQL: {_line(error)}") from None

    async def _limited(self, connection: psycopg.AsyncConnection[Any], work: Callable[[Any], Awaitable[T]]) -> T:
        """Cut the connection when the answer takes too long: cancelling would first ask a server that does not answer."""
        cut = asyncio.get_running_loop().call_later(ANSWER_S_MAX, _cut, connection)
        try:
            return await work(connection)
        finally:
            cut.cancel()

    async def _open(self) -> psycopg.AsyncConnection[Any]:
        connection = await self._driver.AsyncConnection.connect(self._url, connect_timeout=5, application_name="tapeline-oms")
        async with connection.transaction():
            for statement in tables.schema():
                await connection.execute(statement.encode())
        return connection

    async def _progress(self, db: psycopg.AsyncConnection[Any], store_id: str) -> Progress | None:
        async with db.transaction():
            cursor = await db.execute(tables.select_progress().encode())
            return _progress(await cursor.fetchone(), store_id)

    async def _begin(self, db: psycopg.AsyncConnection[Any], store_id: str, first_index: int) -> None:
        async with db.transaction():
            await db.execute(tables.insert_progress("%s").encode(), (store_id, first_index, first_index - 1))

    async def _write(self, db: psycopg.AsyncConnection[Any], store_id: str, changes: Changes) -> bool:
        """The index comes first: its row's lock makes two writers follow each other, and the second one sees that it is late."""
        async with db.transaction(), db.cursor() as cursor:
            await cursor.execute(tables.move_progress("%s").encode(), (changes.last_index, store_id, changes.after_index))
            if not cursor.rowcount:
                return False
            if changes.orders:
                await cursor.executemany(tables.upsert_order("%s").encode(), changes.orders.values())
            if changes.trades:
                await cursor.executemany(tables.insert_trade("%s").encode(), changes.trades)
            await self._write_money(cursor, changes.money)
        return True

    async def _write_money(self, cursor: psycopg.AsyncCursor[Any], money: Money) -> None:
        rows = []
        for table in MONEY:
            for some in _portions(money):
                await cursor.execute(tables.select_money(table, len(some), "%s").encode(), some)
                rows.append(await cursor.fetchall())
        balances, held = _known(rows)
        if money.transactions:
            await cursor.executemany(tables.insert_transaction("%s").encode(), money.transactions)
        if changed := money.balances(balances):
            await cursor.executemany(tables.upsert_balance("%s").encode(), changed)
        if moved := money.positions(held, balances):
            await cursor.executemany(tables.upsert_position("%s").encode(), moved)

    async def _opened(self, db: psycopg.AsyncConnection[Any], store_id: str) -> bool:
        async with db.transaction():
            cursor = await db.execute(tables.select_opened("%s").encode(), (store_id,))
            return await cursor.fetchone() is not None

    async def _open_money(self, db: psycopg.AsyncConnection[Any], store_id: str, openings: Sequence[Opening]) -> None:
        balances, positions = opening_rows(openings)
        async with db.transaction(), db.cursor() as cursor:
            if balances:
                await cursor.executemany(tables.upsert_balance("%s").encode(), balances)
            if positions:
                await cursor.executemany(tables.upsert_position("%s").encode(), positions)
            await cursor.execute(tables.insert_opened("%s").encode(), (store_id,))

    async def _book(self, db: psycopg.AsyncConnection[Any]) -> Book:
        async with db.transaction():
            await db.execute(b"SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")  # all of it of one moment
            row = await (await db.execute(tables.select_progress().encode())).fetchone()
            found = [await (await db.execute(tables.select_book(what).encode())).fetchall() for what in BOOK]
        return Book(row[2] if row else 0, *found)


Known = tuple[dict[int, BalanceRow], dict[Holder, PositionRow]]
MONEY, BOOK = ("Balances", "Positions"), ("Balances", "Positions", "Orders")


def _portions(money: Money) -> list[list[int]]:
    """Return the accounts whose rows are needed, some at a time."""
    accounts = sorted(money.postings.keys() | {account for account, _ in money.fills})
    return [accounts[at : at + tables.ACCOUNTS_MAX] for at in range(0, len(accounts), tables.ACCOUNTS_MAX)]


def _known(portions: list[list[Any]]) -> Known:
    """Return balances by account and positions by holder, of the answers for both tables, one after the other."""
    half = len(portions) // 2
    balances = {row[0]: row for rows in portions[:half] for row in rows}
    return balances, {(row[0], row[1]): row for rows in portions[half:] for row in rows}


def _cut(connection: psycopg.AsyncConnection[Any]) -> None:
    if connection.closed:
        return
    with contextlib.suppress(OSError), socket.socket(fileno=os.dup(connection.fileno())) as cut:
        cut.shutdown(socket.SHUT_RDWR)


def _line(error: Exception) -> str:
    return " ".join(str(error).split())
