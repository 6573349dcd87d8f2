"""`python -m scp backup` and `restore`: taken while people sign in, put back elsewhere: they sign in, the audit log is whole."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from itertools import count
from pathlib import Path

import psycopg
import pytest
from cryptography.fernet import Fernet

from scp import backup
from scp.command_line import restore_backup
from scp.control import Control, internal, open_store
from scp.security import audit
from scp.settings import ScpSettings
from service.errors import OperatorError
from service.settings import load
from tests.scp.conftest import ROOT, Person, ScpProcess
from tests.signing import PASSWORD
from tests.waiting import until_sync


def run(run_dir: Path, *arguments: str) -> subprocess.CompletedProcess[bytes]:
    """Run a command line of the control plane."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("SCP_", "WDS_", "ADMIN_"))}
    command = [sys.executable, "-m", "scp", *arguments]
    variables = clean | {"RUN_DIR": str(run_dir)}
    return subprocess.run(command, cwd=ROOT, env=variables, capture_output=True, timeout=120, check=False)


def sign_in(scp: ScpProcess, name: str, password: str = PASSWORD) -> int:
    return scp.api("POST", "/api/v1/sign-in", {"username": name, "password": password}).status


def test_who_could_sign_in_can_do_so_after_a_restore(
    start_scp: Callable[..., ScpProcess], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Taken through a pipe while people are invited. Sessions of then are over; people, passwords and the audit log are there."""
    scp = start_scp()
    trader = scp.person("trader", "eve")
    boss, enough, changes = Person(scp, scp.admin["value"]), threading.Event(), count()

    def work() -> None:
        while not enough.is_set():
            boss.change("POST", "/api/v1/users", {"username": f"somebody-{next(changes)}", "role": "viewer"})

    at_work = threading.Thread(target=work, daemon=True)
    at_work.start()
    until_sync(lambda: next(changes) > 5, 20, "people are invited")
    done = run(scp.run_dir, "backup", "-")
    enough.set()
    at_work.join(20)
    assert done.returncode == 0, done.stderr.decode()
    scp.end()
    elsewhere = tmp_path / "elsewhere"
    before = json.loads(done.stderr.decode().splitlines()[-1])
    after = backup.put_back(settings(monkeypatch, elsewhere), io.BytesIO(done.stdout))
    assert (after["people"], after["auditEntries"]) == (before["people"], before["auditEntries"] + 1)
    assert after["sessionsEnded"] >= 2
    other = ScpProcess(elsewhere)
    try:
        assert sign_in(other, "eve") == 200
        assert sign_in(other, "eve", "something else entirely") == 401
        assert other.api("GET", "/api/v1/me", cookie=trader.secret).status == 401
    finally:
        other.end()


@pytest.mark.live
def test_postgresql_is_dumped_and_put_back(postgres_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By its own programs, into an empty database only; what was added after the dump began is not in it."""
    name = f"{postgres_url.rpartition('/')[2]}_restored"
    empty = f"{postgres_url.rpartition('/')[0]}/{name}"
    own, out = settings(monkeypatch, tmp_path / "own", SCP_DATABASE_URL=postgres_url), io.BytesIO()
    store = open_store(own)
    with store.transaction() as db:
        audit.note(db, internal("test"), "test", "test.done")
    about = backup.take(own, out)
    with store.transaction() as db:
        audit.note(db, internal("test"), "test", "test.later")
    with pytest.raises(OperatorError, match="has a control plane's tables"):
        backup.put_back(own, io.BytesIO(out.getvalue()))
    store.close()
    with psycopg.connect(postgres_url, autocommit=True) as admin:
        admin.execute(f"CREATE DATABASE {name}".encode())
        try:
            came = backup.put_back(settings(monkeypatch, tmp_path / "new", SCP_DATABASE_URL=empty), io.BytesIO(out.getvalue()))
            assert (about["auditEntries"], came["auditEntries"]) == (1, 2), "one, and that it was restored"
        finally:
            admin.execute(f"DROP DATABASE {name} WITH (FORCE)".encode())


def settings(monkeypatch: pytest.MonkeyPatch, run_dir: Path, **variables: str) -> ScpSettings:
    for name in ("SCP_SECRET_KEY", "SCP_DATABASE_URL"):
        monkeypatch.delenv(name, raising=False)
    for name, value in {"RUN_DIR": str(run_dir), **variables}.items():
        monkeypatch.setenv(name, value)
    return load(ScpSettings)


def test_what_cannot_be_put_back_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Half a backup, another key, another kind of database, a changed audit log, no pg_dump: one line each, no password in it."""
    own, new, out = settings(monkeypatch, tmp_path / "own"), tmp_path / "new", io.BytesIO()
    control = Control(own, open_store(own))
    with control.store.transaction() as db:
        audit.note(db, internal("test"), "test", "test.done")
    backup.take(own, out)
    content = out.getvalue()
    key, nowhere = Fernet.generate_key().decode(), "postgresql://tapeline:secret-word@127.0.0.1:1/none"
    for given, variables, says in (
        (content[: len(content) // 2], {}, "a part of one"),
        (content, {"SCP_SECRET_KEY": key}, "closed with another key"),
        (content, {"SCP_DATABASE_URL": nowhere}, "cannot be used"),
    ):
        with pytest.raises(OperatorError, match=says) as refused:
            backup.put_back(settings(monkeypatch, new, **variables), io.BytesIO(given))
        assert "secret-word" not in str(refused.value)
        assert [path.name for path in new.rglob("*") if path.is_file()] == []
    (tmp_path / "b.tar").write_bytes(content)
    with pytest.raises(OperatorError, match="There is a database"):
        restore_backup(settings(monkeypatch, tmp_path / "own"), str(tmp_path / "b.tar"))
    assert restore_backup(settings(monkeypatch, tmp_path / "other"), str(tmp_path / "b.tar")) == 0
    with control.store.transaction() as db:
        db.executesql("UPDATE audit_entry SET who = 'nobody' WHERE id = 1")
    with pytest.raises(OperatorError, match="audit log is broken"):
        backup.take(own, io.BytesIO())
    with pytest.raises(OperatorError, match="There is no database"):
        backup.take(settings(monkeypatch, tmp_path / "empty"), io.BytesIO())
    with pytest.raises(OperatorError, match="pg_dump is not installed here"):
        backup.take(settings(monkeypatch, new, SCP_DATABASE_URL=nowhere, PATH=str(tmp_path)), io.BytesIO())
