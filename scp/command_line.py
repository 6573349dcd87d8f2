"""What an operator does at the database's side: one-time links, tokens, backups, and checking the audit log."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from scp import backup as scp_backup
from scp.control import Control, internal, open_store
from scp.security import api_tokens, audit, links, people
from scp.security.roles import TOKEN_SCOPES, scopes_of
from scp.settings import ScpSettings
from service import backup
from service.errors import OperatorError


def make_link(settings: ScpSettings, username: str) -> int:
    """Print a one-time link: without a name for the first administrator, with one for their new password."""
    control = Control(settings, open_store(settings))
    control.use_url(f"http://127.0.0.1:{settings.port}")
    asked = internal("command line")
    if not username:
        secret = control.sign_in.first_link(asked)
        if secret is None:
            raise OperatorError("there is an administrator already", "Name somebody: python -m scp link USERNAME", 2)
        print(control.link(secret))
        return 0
    with control.store.transaction() as db:
        row = people.by_name(db, username)
        if row is None:
            raise OperatorError(f"there is nobody called {username!r}", "See who there is: GET /api/v1/users", 2)
        if row.disabled_ms:
            raise OperatorError(f"{row.username} is disabled", "Let an administrator enable them first", 2)
        purpose = "reset" if row.password_hash else "invitation"
        audit.note(db, asked, "command line", f"user.{purpose}_link", row.username)
        secret = links.make(db, purpose, row.id, asked.now_ms, control.draw)
    print(control.link(secret))
    return 0


def make_token(settings: ScpSettings, username: str, scopes: str, days: int) -> int:
    """Print a new API token of somebody: for scripts of a machine on which nobody opens a page."""
    control = Control(settings, open_store(settings))
    asked, wanted = internal("command line"), frozenset(scopes.replace(",", " ").split())
    with control.store.transaction() as db:
        row = people.by_name(db, username)
        if row is None or row.disabled_ms:
            raise OperatorError(f"there is nobody called {username!r} who may sign in", "See who there is: scpctl users list", 2)
        allowed = scopes_of(row.role) & TOKEN_SCOPES
        if not wanted or wanted - allowed or not 1 <= days <= api_tokens.DAYS_MAX:
            what = f"a token of {row.username} has some of the scopes {', '.join(sorted(allowed))}"
            raise OperatorError(f"{what}, and 1 to {api_tokens.DAYS_MAX} days", "Name them: --scopes view --days 90", 2)
        ends_ms = asked.now_ms + days * 86_400_000
        try:
            made = api_tokens.make(db, row.id, "command line", wanted, ends_ms, asked.now_ms, control.draw)
        except api_tokens.TooManyTokens:
            raise OperatorError(f"{row.username} has too many tokens", "Revoke one first", 2) from None
        audit.note(db, asked, "command line", "token.make", made[0], name="command line", scopes=sorted(wanted), days=days)
    print(made[1])
    return 0


def make_backup(settings: ScpSettings, file: str) -> int:
    """Write a backup of the database; say on stderr what is in it."""
    about: dict[str, Any] = {}
    backup.write(file, lambda out: about.update(scp_backup.take(settings, out)))
    print(json.dumps(about), file=sys.stderr)
    return 0


def restore_backup(settings: ScpSettings, file: str) -> int:
    """Put a backup where there is no database; say on stderr what is in it."""
    with backup.reading(file) as source:
        print(json.dumps(scp_backup.put_back(settings, source)), file=sys.stderr)
    return 0


def verify_audit(settings: ScpSettings, file: str | None) -> int:
    """Print whether the audit log is whole; exit code 0 or 1."""
    if file is None:
        with open_store(settings).transaction() as db:
            fault, last = audit.fault_of(db), db.audit_head(1)
            entries, hash_ = last.entries, last.hash
    else:
        fault, entries, hash_ = _fault_of_file(Path(file))
    print(f"broken: {fault}" if fault else f"whole: {entries} entries, the last hash is {hash_}")
    return 1 if fault else 0


def _fault_of_file(path: Path) -> tuple[str | None, int, str]:
    """Return what is wrong with an export, how many entries it has, and its last hash."""
    previous, number = "", 0
    try:
        with path.open(encoding="utf-8") as lines:
            for number, line in enumerate(lines, 1):
                entry: dict[str, Any] = json.loads(line)
                if previous and entry["previous"] != previous:
                    return f"line {number}: an entry before it is missing or was changed", number, ""
                if entry["hash"] != audit.hash_of(entry["previous"], entry):
                    return f"line {number} is not what was written", number, ""
                previous = entry["hash"]
    except OSError as error:
        raise OperatorError(f"{path} cannot be read: {error.strerror}", "Name a file made by GET /api/v1/audit/export") from None
    except (ValueError, KeyError, TypeError):
        return f"line {number} is no entry of an audit log", number, ""
    return None, number, previous
