"""One suite for both databases: all of a transaction or nothing of it, faults that pass, faults that do not."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
import time
from collections.abc import AsyncIterator
from pathlib import Path

import psycopg
import pytest

from engine.oms import database as oms_database
from engine.oms.database import Database, DatabaseUnavailable, connect
from engine.oms.tables import Changes, Progress, decode
from service.errors import OperatorError
from tests.engine.oms.ground import FIRST, expected, frames, last_index, sqlite_url, stored
from tests.servers import Postgres

MESSAGES = frames(3, 600)


@pytest.fixture(params=["sqlite", "postgres"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A new database of each kind."""
    return sqlite_url(tmp_path) if request.param == "sqlite" else str(request.getfixturevalue("postgres_url"))


@pytest.fixture
async def database(url: str) -> AsyncIterator[Database]:
    """Begun at the first message."""
    made = connect(url)
    assert await made.progress("oms") is None
    await made.begin("oms", FIRST)
    yield made
    await made.close()


def changes(progress: Progress, messages: list[bytes]) -> Changes:
    made = Changes(progress)
    for message in messages:
        made.add(decode(message))
    return made


async def test_rows_and_index_are_stored(database: Database, url: str) -> None:
    """In steps of any size the tables end as the frames say, and the progress is the last message's."""
    progress = await database.progress("oms")
    assert progress == (FIRST, FIRST - 1)
    for first in range(0, len(MESSAGES), 97):
        step = changes(progress, MESSAGES[first : first + 97])
        assert await database.write("oms", step)
        progress = Progress(FIRST, step.last_index)
        assert await database.progress("oms") == progress
    assert stored(url) == expected(MESSAGES)


async def test_a_writer_that_is_late_writes_nothing(database: Database, url: str) -> None:
    """The progress has moved: neither rows nor index change, and the writer is told."""
    progress = Progress(FIRST, FIRST - 1)
    assert await database.write("oms", changes(progress, MESSAGES[:10]))
    before = stored(url)
    assert not await database.write("oms", changes(progress, MESSAGES[:20]))
    assert stored(url) == before


async def test_two_writers_at_a_time_write_once(database: Database, url: str) -> None:
    """As after a crash whose transaction is still being committed by the server."""
    other = connect(url)
    await other.progress("oms")
    step = changes(Progress(FIRST, FIRST - 1), MESSAGES[:50])
    try:
        outcomes = await asyncio.gather(database.write("oms", step), other.write("oms", step))
    finally:
        await other.close()
    assert sorted(outcomes) == [False, True]
    assert stored(url) == expected(MESSAGES[:50])


async def test_a_trade_that_is_there_stops_everything(database: Database, url: str) -> None:
    """It contradicts the progress: nothing of the transaction is written, and waiting would not mend it."""
    start = Progress(FIRST, FIRST - 1)
    step = changes(start, MESSAGES)
    assert len(step.trades) > 1
    step.trades.append(step.trades[0])
    with pytest.raises(OperatorError):
        await database.write("oms", step)
    assert stored(url) == ({}, {})
    assert await database.progress("oms") == start


async def test_a_database_belongs_to_one_store(database: Database) -> None:
    """Two histories in one table would be none."""
    with pytest.raises(OperatorError, match="'oms', not 'other'"):
        await database.progress("other")


async def test_a_client_id_with_nul_is_stored(database: Database, url: str) -> None:
    """PostgreSQL has no NUL; a client must not be able to stop us."""
    step = changes(Progress(FIRST, FIRST - 1), MESSAGES)
    odd = [m.replace(b'"clOrdID":"', b'"clOrdID":"\\u0000') for m in MESSAGES]
    assert await database.write("oms", changes(Progress(FIRST, FIRST - 1), odd))
    assert {row["clordid"][:1] for row in stored(url)[0].values()} == {"\N{REPLACEMENT CHARACTER}"}
    assert stored(url)[0].keys() == step.orders.keys()


# SQLite


async def test_sqlite_waits_for_a_lock_and_then_says_so(tmp_path: Path) -> None:
    """Another process holds the database: unavailable, and fine again afterwards."""
    database = connect(sqlite_url(tmp_path))
    await database.progress("oms")
    await database.begin("oms", FIRST)
    step = changes(Progress(FIRST, FIRST - 1), MESSAGES)
    with contextlib.closing(sqlite3.connect(tmp_path / "oms.sqlite", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(DatabaseUnavailable, match="locked"):
            await database.write("oms", step)
        other.execute("ROLLBACK")
    assert await database.write("oms", step)
    await database.close()
    assert stored(sqlite_url(tmp_path)) == expected(MESSAGES)


async def test_sqlite_reads_go_on_while_we_write(tmp_path: Path) -> None:
    """WAL, and every commit on the disk."""
    database = connect(sqlite_url(tmp_path))
    await database.progress("oms")
    assert isinstance(database, oms_database.Sqlite)
    settings = await database._call(lambda db: [db.execute(f"PRAGMA {p}").fetchone()[0] for p in ("journal_mode", "synchronous")])
    assert settings == ["wal", 2]
    await database.close()


async def test_a_file_that_is_no_database_stops_us(tmp_path: Path) -> None:
    """Retrying will not make one of it, and it is not ours to overwrite."""
    path = tmp_path / "oms.sqlite"
    path.write_bytes(b"letters\n" * 1_000)
    database = connect(sqlite_url(tmp_path))
    with pytest.raises(OperatorError, match="not a database"):
        await database.progress("oms")
    await database.close()
    assert path.read_bytes() == b"letters\n" * 1_000


async def test_sqlite_makes_its_folder(tmp_path: Path) -> None:
    """A first start needs no preparation."""
    database = connect(f"sqlite:///{tmp_path / 'a' / 'b' / 'oms.sqlite'}")
    assert await database.progress("oms") is None
    await database.close()


async def test_a_folder_in_the_place_of_the_file_is_a_fault_that_may_pass(tmp_path: Path) -> None:
    """The operator can move it away while we wait."""
    (tmp_path / "oms.sqlite").mkdir()
    database = connect(sqlite_url(tmp_path))
    with pytest.raises(DatabaseUnavailable):
        await database.progress("oms")
    (tmp_path / "oms.sqlite").rmdir()
    assert await database.progress("oms") is None
    await database.close()


@pytest.mark.parametrize("url", ["mysql://x/y", "oms.sqlite", "sqlite:oms", "http://x"])
def test_other_urls_are_refused(url: str) -> None:
    """With what to write instead."""
    with pytest.raises(OperatorError, match="is no database"):
        connect(url)


# PostgreSQL


async def test_postgres_comes_back(postgres_server: Postgres) -> None:
    """Killed and started again: unavailable in between, then everything is there that was committed."""
    with psycopg.connect(postgres_server.url, autocommit=True) as admin:
        admin.execute("DROP DATABASE IF EXISTS comeback")
        admin.execute("CREATE DATABASE comeback")
    url = postgres_server.url_of("comeback")
    database = connect(url)
    await database.progress("oms")
    await database.begin("oms", FIRST)
    first = changes(Progress(FIRST, FIRST - 1), MESSAGES[:100])
    assert await database.write("oms", first)
    await asyncio.to_thread(postgres_server.kill)
    second = changes(Progress(FIRST, first.last_index), MESSAGES[100:])
    for _ in range(2):
        with pytest.raises(DatabaseUnavailable):
            await database.write("oms", second)
    await asyncio.to_thread(postgres_server.start)
    assert await database.progress("oms") == (FIRST, first.last_index)
    assert await database.write("oms", second)
    await database.close()
    assert stored(url) == expected(MESSAGES)


async def test_postgres_that_hangs_is_given_up(postgres_server: Postgres, monkeypatch: pytest.MonkeyPatch) -> None:
    """A frozen backend answers nothing: the call ends by its deadline, and works again when the server does."""
    monkeypatch.setattr(oms_database, "ANSWER_S_MAX", 0.5)
    database = connect(postgres_server.url)
    assert isinstance(database, oms_database.Postgres)
    await database.progress("hang")
    connection = database._connection
    assert connection is not None
    with psycopg.connect(
        postgres_server.url
    ) as other:  # a lock is the same to us as a frozen server, and leaves no process behind
        other.execute("LOCK TABLE MessageIndex")
        began = time.monotonic()
        with pytest.raises(DatabaseUnavailable):
            await database.progress("hang")
        assert time.monotonic() - began < 3
    assert await database.progress("hang") is None
    await database.close()
    assert last_index(postgres_server.url) == 0
