"""scp/store/: the same on SQLite and PostgreSQL; what cannot be used is one clear line."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psycopg
import pytest

from scp.settings import check_database_url
from scp.store.database import FILE, Store, StoreUnavailable
from scp.store.migrations import NEWEST, STEPS
from scp.store.tables import NUMBERS, TEXTS
from service.errors import OperatorError
from tests.waiting import until_sync


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.live)])
def url(request: pytest.FixtureRequest) -> Iterator[str]:
    """Nothing for SQLite, else a new PostgreSQL database."""
    return "" if request.param == "sqlite" else request.getfixturevalue("postgres_url")


def test_migrating_twice_and_together_is_migrating_once(url: str, tmp_path: Path) -> None:
    """Several control planes may start at the same time on one database."""
    Store(url, tmp_path).migrate()
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(lambda _: Store(url, tmp_path).migrate(), range(4))) == [NEWEST] * 4
    store = Store(url, tmp_path)
    with store.transaction() as db:
        assert db.executesql("SELECT COUNT(*) FROM schema_step")[0][0] == len(STEPS)
        for name in TEXTS:
            rows = db(db[name]).select(limitby=(0, 1))
            assert set(rows.colnames or []) or len(rows) == 0
            assert set(db[name].fields) == {"id", *TEXTS[name], *NUMBERS[name]}


def test_a_new_database_may_be_made_by_several_at_once(url: str, tmp_path: Path) -> None:
    """Nobody finds half a shape."""
    stores = [Store(url, tmp_path) for _ in range(4)]
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(lambda store: store.migrate(), stores)) == [NEWEST] * 4


def test_a_database_of_a_newer_version_is_left_alone(url: str, tmp_path: Path) -> None:
    """The line says so, and what to do."""
    store = Store(url, tmp_path)
    store.migrate()
    with store.transaction() as db:
        db.executesql(f"INSERT INTO schema_step (number, at_s) VALUES ({NEWEST + 1}, 0)")
    with pytest.raises(OperatorError, match=r"newer Tapeline.*Start the newer version"):
        store.migrate()


def test_what_is_raised_rolls_back(url: str, tmp_path: Path) -> None:
    """Half of a change is never there."""
    store = Store(url, tmp_path)
    store.migrate()

    def half() -> None:
        with store.transaction() as db:
            db.auth_user.insert(username="half")
            raise KeyError

    with pytest.raises(KeyError):
        half()
    with store.transaction() as db:
        assert db(db.auth_user).isempty()


def test_a_spoilt_file_is_one_clear_line(tmp_path: Path) -> None:
    """Not a traceback."""
    (tmp_path / FILE).write_bytes(b"this is no database" * 1000)
    with pytest.raises(OperatorError, match=r"cannot be used: .*SCP_DATABASE_URL"):
        Store("", tmp_path).migrate()


def test_a_database_that_does_not_answer_is_one_clear_line(tmp_path: Path) -> None:
    """With the password hidden."""
    with pytest.raises(OperatorError) as refused:
        Store("postgresql://me:hunter2@127.0.0.1:1/none", tmp_path).migrate()
    assert "hunter2" not in str(refused.value)
    assert refused.value.exit_code == 3


def test_a_writer_that_holds_the_file_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And who waits in vain is told that nothing was changed."""
    monkeypatch.setattr("scp.store.database.BUSY_S", 0.2)
    store = Store("", tmp_path)
    store.migrate()
    other = sqlite3.connect(tmp_path / FILE, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(StoreUnavailable, match="locked"), store.transaction() as db:
        db.auth_user.insert(username="late")
    other.execute("ROLLBACK")
    with store.transaction() as db:
        db.auth_user.insert(username="in time")


@pytest.mark.live
def test_a_database_that_comes_back_is_used_again(postgres_server: object, postgres_url: str, tmp_path: Path) -> None:
    """Connections that were cut are not kept."""
    store = Store(postgres_url, tmp_path)
    store.migrate()
    with store.transaction() as db:
        db.auth_user.insert(username="before")
    server = postgres_server
    server.stop()  # type: ignore[attr-defined]
    try:
        for _ in range(2):
            with pytest.raises(StoreUnavailable), store.transaction() as db:
                db(db.auth_user).count()
        assert "does not answer" in str(store.fault())
    finally:
        server.start()  # type: ignore[attr-defined]
    assert store.fault() is None
    with store.transaction() as db:
        assert db(db.auth_user).count() == 1


@pytest.mark.live
def test_a_database_that_hangs_holds_nobody_for_ever(
    postgres_server: Any, postgres_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its connections stay open and say nothing: whoever asks is told so after a while, and goes on when it answers again."""
    store = Store(postgres_url, tmp_path)
    store.migrate()
    monkeypatch.setattr("scp.store.database.BUSY_S", 0.5)
    with psycopg.connect(postgres_url) as other:
        other.execute("LOCK TABLE auth_user")
        with pytest.raises(StoreUnavailable, match="no answer within"), store.transaction() as db:
            db(db.auth_user).count()
    postgres_server.freeze()
    try:
        with pytest.raises(OperatorError, match="no answer within"):
            Store(postgres_url, tmp_path)
    finally:
        postgres_server.thaw()
    monkeypatch.setattr("scp.store.database.BUSY_S", 10.0)
    until_sync(lambda: store.fault() is None, 20, "the database again")


@pytest.mark.parametrize(
    "url", ["mysql://a/b", "postgresql://", "postgresql://host", "sqlite:///x", "postgresql://h:0/x", "postgresql://h:x/y"]
)
def test_odd_addresses_are_refused(url: str) -> None:
    """With the form that is right."""
    with pytest.raises(ValueError, match="postgresql://user:password@host:5432/name"):
        check_database_url(url)
