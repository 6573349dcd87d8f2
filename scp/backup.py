"""Takes a backup of the control plane's database, also while people work, and puts one back where there is none.

SQLite is copied by its own online backup, PostgreSQL by `pg_dump`. The key that closes second factors and signing keys comes
along when it was made here; one that is given (SCP_SECRET_KEY) only has to be the same when the backup is put back. What was
ended or forbidden after the backup would live again with it: all sessions end, and the audit log says that this was done.
"""

from __future__ import annotations

import hashlib
import os
import sqlite3
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any
from urllib.parse import unquote, urlsplit

from scp.control import KEY_FILE, internal, open_store
from scp.security import audit, sessions
from scp.settings import ScpSettings
from scp.store.database import FILE, Store, StoreUnavailable
from scp.store.migrations import NEWEST
from service import backup
from service.backup import BackupInvalid, Table
from service.errors import OperatorError
from service.settings import hide_password

KIND = "a control plane"
DUMP = "scp.dump"
PG_S_MAX = 3_600
CLIENT = "Install PostgreSQL's client (apt-get install postgresql-client), or run it where the database is: deploy/README.md"


def take(settings: ScpSettings, out: IO[bytes]) -> dict[str, Any]:
    """Write a backup of the database; return what it says of itself.  Raises: OperatorError; OSError for `out`."""
    url, key = _url(settings), _key(settings)
    with _staging(settings, "backup") as folder:
        if url:
            _run("pg_dump", url, "--format=custom", "--no-owner", "--no-privileges", f"--file={folder / DUMP}")
            files, about = {DUMP: folder / DUMP}, _about(Store(url, folder))
        else:
            _copy_sqlite(settings.run_dir.resolve() / "scp" / FILE, folder / FILE)
            files, about = {FILE: folder / FILE}, _about(Store("", folder))
        if key is not None and settings.secret_key is None:
            files[KEY_FILE] = settings.run_dir / KEY_FILE
        about |= {"dialect": "postgres" if url else "sqlite", "key": _fingerprint(key)}
        backup.pack(out, KIND, datetime.now(UTC).isoformat(timespec="seconds"), files, about)
        return about


def put_back(settings: ScpSettings, source: IO[bytes]) -> dict[str, Any]:
    """Make a backup the database of a control plane that has none; return what is in it.

    Raises: OperatorError, BackupInvalid, with nothing changed: a database that is there, another kind of database, another key, a
    newer shape, an audit log that is not whole.
    """
    url = _url(settings)
    with _staging(settings, "restore") as folder:
        _ensure_none(settings, url, folder)
        table = backup.unpack(source, KIND, folder)
        _ensure_fits(settings, table, folder, bool(url))
        if url:
            options = ("--single-transaction", "--exit-on-error", "--no-owner", "--no-privileges")
            _run("pg_restore", url, *options, str(folder / DUMP))
        else:
            _about(Store("", folder))  # whether it can be read, and its audit log is whole
        if (folder / KEY_FILE).exists() and not (settings.run_dir / KEY_FILE).exists():
            os.replace(folder / KEY_FILE, settings.run_dir / KEY_FILE)
        if not url:
            os.replace(folder / FILE, settings.run_dir.resolve() / "scp" / FILE)
    return _reopened(settings, table)


@contextmanager
def _staging(settings: ScpSettings, what: str) -> Iterator[Path]:
    """Give a new folder beside the database, closed to others: /tmp is small in a container."""
    place = settings.run_dir.resolve() / "scp"
    try:
        place.mkdir(parents=True, exist_ok=True, mode=0o700)
        made = tempfile.TemporaryDirectory(prefix=f"{what}.", dir=place)
    except OSError as error:
        what = f"{place} cannot be written: {(error.strerror or str(error)).lower()}"
        raise OperatorError(what, "Run it as the control plane's user, with room for a second database", 3) from None
    with made as folder:
        yield Path(folder)


def _reopened(settings: ScpSettings, table: Table) -> dict[str, Any]:
    """Bring the shape up to date, end all sessions, and note what was done."""
    store = open_store(settings)
    asked = internal("command line")
    with store.transaction() as db:
        living = db(db.user_session.revoked_ms == 0).select(db.user_session.public_id)
        ended = len(sessions.end(db, [row.public_id for row in living], asked.now_ms))
        audit.note(db, asked, "command line", "database.restore", made_at=table.made_at, sessions_ended=ended)
    return {**_about(store), "madeAt": table.made_at, "sessionsEnded": ended}


def _about(store: Store) -> dict[str, Any]:
    """Return how much is in a database.  Raises: OperatorError when it does not answer or its audit log is not whole."""
    try:
        with store.transaction() as db:
            step = db.executesql("SELECT COALESCE(MAX(number), 0) FROM schema_step")[0][0]
            if (fault := audit.fault_of(db)) is not None:
                raise OperatorError(f"The audit log is broken: {fault}", "Find out who changed it; use an older backup", 3)
            return {"step": step, "people": db(db.auth_user).count(), "auditEntries": db.audit_head(1).entries}
    except StoreUnavailable as error:
        raise OperatorError(f"The database does not answer: {error}", "Make it answer, and try again", 3) from None
    finally:
        store.close()


def _ensure_none(settings: ScpSettings, url: str, folder: Path) -> None:
    path = settings.run_dir.resolve() / "scp" / FILE
    if not url and path.exists():
        fix = "Stop the control plane, and move that file and those named like it away"
        raise OperatorError(f"There is a database: {path}", fix, 3)
    if url and _has_tables(Store(url, folder)):
        what = f"The database {hide_password(url)} has a control plane's tables"
        raise OperatorError(what, "Make an empty database, and name it in SCP_DATABASE_URL", 3)


def _has_tables(store: Store) -> bool:
    try:
        with store.transaction() as db:
            return bool(db.executesql("SELECT 1 FROM pg_tables WHERE tablename = 'schema_step'"))
    except StoreUnavailable as error:
        raise OperatorError(f"The database does not answer: {error}", "Make it answer, and try again", 3) from None
    finally:
        store.close()


def _ensure_fits(settings: ScpSettings, table: Table, folder: Path, postgres: bool) -> None:
    about = table.about
    if (about.get("dialect") == "postgres") != postgres:
        fix = "Unset SCP_DATABASE_URL" if postgres else "Set SCP_DATABASE_URL to an empty PostgreSQL database"
        raise BackupInvalid(f"The backup is of {about.get('dialect')}", fix)
    if not (folder / (DUMP if postgres else FILE)).exists():
        raise BackupInvalid("The backup has no database")
    if int(about.get("step", 0)) > NEWEST:
        raise BackupInvalid(f"The backup is of a newer Tapeline ({table.version})", "Use that version")
    given = _key(settings)
    packed = (folder / KEY_FILE).read_bytes() if (folder / KEY_FILE).exists() else None
    if about.get("key") and _fingerprint(given or packed) != about["key"]:
        has = settings.secret_key is None and given is not None and packed is not None
        fix = f"Move {settings.run_dir / KEY_FILE} away" if has else "Set SCP_SECRET_KEY to what it was then"
        raise BackupInvalid("Second factors and signing keys of the backup are closed with another key", fix)


def _url(settings: ScpSettings) -> str:
    return settings.database_url.get_secret_value() if settings.database_url else ""


def _key(settings: ScpSettings) -> bytes | None:
    """Return the key that closes secrets here, None when none was given or made yet."""
    if settings.secret_key is not None:
        return settings.secret_key.get_secret_value().encode()
    path = settings.run_dir / KEY_FILE
    return path.read_bytes() if path.exists() else None


def _fingerprint(key: bytes | None) -> str:
    """Return what tells keys apart and gives nothing away of one that was drawn at random."""
    return hashlib.sha256(key.strip()).hexdigest()[:16] if key else ""


def _copy_sqlite(source: Path, target: Path) -> None:
    if not source.exists():
        raise OperatorError(f"There is no database {source}", "Set RUN_DIR (or SCP_DATABASE_URL) as the control plane has it", 3)
    try:
        with closing(sqlite3.connect(f"{source.as_uri()}?mode=ro", uri=True)) as own, closing(sqlite3.connect(target)) as copy:
            own.backup(copy)
            (sound,) = copy.execute("PRAGMA quick_check(1)").fetchone()
    except sqlite3.Error as error:
        raise OperatorError(f"The database {source} cannot be copied: {error}", "Run it as the control plane's user", 3) from None
    if sound != "ok":
        raise OperatorError(f"The database {source} is damaged: {sound}", "Use the newest backup that is not", 3)


def _run(program: str, url: str, *arguments: str) -> None:
    """Run one of PostgreSQL's programs; the password goes into its environment, which other users do not see."""
    parts = urlsplit(url)
    bare = parts._replace(netloc=parts.netloc.replace(f":{parts.password}@", "@", 1)).geturl() if parts.password else url
    environment = {**os.environ, "PGPASSWORD": unquote(parts.password or ""), "PGCONNECT_TIMEOUT": "10"}
    command = [program, *arguments, f"--dbname={bare}"]
    try:
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=PG_S_MAX, check=False)  # noqa: S603  # ours
    except FileNotFoundError:
        raise OperatorError(f"{program} is not installed here", CLIENT) from None
    except subprocess.TimeoutExpired:
        raise OperatorError(f"{program} did not end within an hour", "See what the database waits for", 3) from None
    if done.returncode:
        lines = done.stderr.strip().splitlines() or ["it says nothing"]
        raise OperatorError(
            f"{program} failed: {hide_password(lines[0])}", "Mend that; its version is that of the server or newer", 3
        )
