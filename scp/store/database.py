"""Opens the control plane's database, brings its shape up to date, and runs transactions on it.

pydal speaks to SQLite and, over psycopg2, to PostgreSQL. A transaction has a connection of its own, taken from a pool: opening a
SQLite file for each took two thirds of a request.
"""

from __future__ import annotations

import contextlib
import select
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from py4web import DAL, Field

from scp.store.migrations import AUTOMATIC_KEY, NEWEST, STEPS
from scp.store.tables import define
from service.errors import OperatorError
from service.settings import hide_password

FILE = "scp.sqlite"
POOL_MAX = 16  # connections that are kept; further ones are closed after use
BUSY_S = 10.0  # how long an answer, or another writer, is waited for


class StoreUnavailable(Exception):
    """The database does not answer; nothing was changed."""


class Store:
    """The database. `folder` holds the SQLite file when `url` is empty."""

    def __init__(self, url: str, folder: Path) -> None:
        self._shown = hide_password(url) or str(folder / FILE)
        self.dialect = "postgres" if url else "sqlite"
        self.mark = "%s" if url else "?"  # a value's place in a statement
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        try:
            if url:
                _end_waits()
            self._db = DAL(
                pydal_uri(url, folder),
                folder=str(folder),
                pool_size=POOL_MAX,
                attempts=1,
                check_reserved=None,
                migrate=False,
                driver_args={"connect_timeout": 5} if url else {"isolation_level": "IMMEDIATE", "timeout": BUSY_S},
                after_connection=None if url else _prepare_sqlite,
            )
            if not url:
                self._db._adapter.pool_size = POOL_MAX  # pydal sets it to 0, because by default a connection is one thread's
                self._db._adapter.check_active_connection = False  # a file does not hang up
            define(self._db, Field)
        except Exception as error:  # pydal raises RuntimeError or what the driver raised, as it likes
            raise self._unusable(error) from None

    @contextlib.contextmanager
    def transaction(self) -> Iterator[Any]:
        """Give pydal's `db`: committed at the end, rolled back when anything is raised.

        Raises: StoreUnavailable when there is no connection, or it is lost before the end.
        """
        try:
            self._db.on_request({})
        except Exception as error:
            raise StoreUnavailable(_reason(error)) from error
        try:
            yield self._db
            self._db.on_success({})
        except BaseException as error:
            with contextlib.suppress(Exception):
                self._db.on_error({})
            if _is_lost(error):
                with contextlib.suppress(Exception):
                    self._db._adapter.close("rollback", really=True)
                raise StoreUnavailable(_reason(error)) from error
            raise

    def migrate(self) -> int:
        """Bring the shape up to date, also when several start together; return the step it stands at.

        Raises: OperatorError when the database was made by a newer Tapeline, or does not answer.
        """
        try:
            with self.transaction() as db:
                # One at a time: the others wait here, and then find that everything is done.
                db.executesql("SELECT pg_advisory_xact_lock(7201834)" if self.dialect == "postgres" else "BEGIN IMMEDIATE")
                db.executesql("CREATE TABLE IF NOT EXISTS schema_step (number BIGINT PRIMARY KEY, at_s BIGINT NOT NULL)")
                done = db.executesql("SELECT COALESCE(MAX(number), 0) FROM schema_step")[0][0]
                if done > NEWEST:
                    raise OperatorError(
                        f"the database {self._shown} was made by a newer Tapeline (step {done}, this one knows {NEWEST})",
                        "Start the newer version, or give another SCP_DATABASE_URL",
                    )
                for step in STEPS[done:]:
                    for statement in step.statements:
                        db.executesql(statement.format(id=AUTOMATIC_KEY[self.dialect]))
                    db.executesql(f"INSERT INTO schema_step (number, at_s) VALUES ({step.number}, {int(time.time())})")  # noqa: S608  # numbers
        except OperatorError:
            raise
        except Exception as error:
            raise self._unusable(error) from None
        return NEWEST

    def close(self) -> None:
        """Close the connections that nobody uses just now: whoever forks leaves none to the child."""
        pool = self._db._adapter.POOLS.get(self._db._adapter.uri, [])
        while pool:
            pool.pop().close()

    def fault(self) -> str | None:
        """Return what is wrong with the database, None when it answers."""
        try:
            with self.transaction() as db:
                db.executesql("SELECT 1")
        except StoreUnavailable as error:
            return f"the database {self._shown} does not answer: {error}"
        return None

    def _unusable(self, error: BaseException) -> OperatorError:
        return OperatorError(
            f"the control plane's database {self._shown} cannot be used: {_reason(error)}",
            "Make it answer, or set SCP_DATABASE_URL (empty = SQLite in RUN_DIR; postgresql://user:password@host:5432/name)",
            3,
        )


def pydal_uri(url: str, folder: Path) -> str:
    """Return pydal's address of a database, by which it pools connections; an empty `url` is the file in the folder."""
    return "postgres:psycopg2://" + url.split("://", 1)[1] if url else f"sqlite://{folder.absolute() / FILE}"


def ask(db: Any, text: str, *values: Any) -> list[tuple[Any, ...]]:
    """Run one statement, `?` for each value, and return its rows.

    For what every request asks: the query layer takes 0.4 ms to write and read a statement that the database answers in 0.02.
    """
    rows = db.executesql(text if db._adapter.dbengine == "sqlite" else text.replace("?", "%s"), values)
    return rows or []


def _end_waits() -> None:
    """Give every wait for PostgreSQL an end: a frozen server keeps its connections open and would hold each thread for ever."""
    import psycopg2  # of the postgres extra
    from psycopg2 import extensions

    def wait(connection: Any) -> None:
        deadline_s = time.monotonic() + BUSY_S
        while (state := connection.poll()) != extensions.POLL_OK:
            reads = [connection] if state == extensions.POLL_READ else []
            writes = [connection] if state == extensions.POLL_WRITE else []
            left_s = deadline_s - time.monotonic()
            if left_s <= 0 or not any(select.select(reads, writes, [], left_s)):
                raise psycopg2.OperationalError(f"no answer within {BUSY_S:g} s")

    extensions.set_wait_callback(wait)


def _prepare_sqlite(adapter: Any) -> None:
    adapter.execute("PRAGMA foreign_keys = ON")
    adapter.execute("PRAGMA journal_mode = WAL")
    adapter.execute("PRAGMA synchronous = FULL")


def _is_lost(error: BaseException) -> bool:
    # The drivers' own classes, and what psycopg2 derives of them; psycopg2 is not there without PostgreSQL.
    return any(kind.__name__ in ("OperationalError", "InterfaceError") for kind in type(error).__mro__)


def _reason(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).strip().splitlines() if line.strip()] or [type(error).__name__]
    # pydal hides why it could not connect at the end of a traceback.
    return hide_password(lines[-1] if lines[0].startswith("Failure to connect") else lines[0])[:200]
