"""People: who there is, with which role, and what changes that. The last administrator who can sign in cannot be taken away.

Names are compared in one form (NFKC, small letters), so that two people never have names that look alike by case or width.
"""

from __future__ import annotations

import re
import unicodedata
from typing import Any

from scp.security import sessions
from scp.security.audit import Asked, note
from scp.security.roles import ROLES

USERNAME = re.compile(r"[a-z0-9](?:[a-z0-9._@+-]{0,62}[a-z0-9])?")
EMAIL = re.compile(r"[^\s@<>\"'`\\,;:()\[\]\x00-\x1f]{1,64}@[A-Za-z0-9-]{1,63}(?:\.[A-Za-z0-9-]{1,63})+")


class Refused(Exception):
    """What was asked cannot be done; `code` for programs, the text for people."""

    def __init__(self, code: str, why: str) -> None:
        super().__init__(why)
        self.code = code


def normal_name(username: str) -> str:
    """Return the form of a name that is kept and compared: what cannot be printed is in no name."""
    return "".join(letter for letter in unicodedata.normalize("NFKC", username) if letter.isprintable()).strip().lower()


def create(db: Any, username: str, role: str, email: str, now_ms: int, password_hash: str = "") -> int:
    """Add somebody; without a password hash they set one by an invitation.  Raises: Refused."""
    name = normal_name(username)
    if not USERNAME.fullmatch(name) or not username.isprintable():
        raise Refused(
            "bad_username", "A name has 1 to 64 letters a-z, digits and . _ @ + -, and begins and ends with a letter or digit"
        )
    if email and not EMAIL.fullmatch(email):
        raise Refused("bad_email", "This is not an e-mail address")
    if role not in ROLES:
        raise Refused("bad_role", f"A role is one of {', '.join(ROLES)}")
    if by_name(db, name) is not None:
        raise Refused("name_taken", f"There is somebody called {name} already")
    return int(
        db.auth_user.insert(
            username=name, email=email, role=role, password_hash=password_hash, created_ms=now_ms,
            password_ms=now_ms if password_hash else 0,
        )
    )  # fmt: skip


def by_name(db: Any, username: str) -> Any | None:
    """Return somebody's row by name, None when there is nobody."""
    return db(db.auth_user.username == normal_name(username)[:64]).select().first()


def by_id(db: Any, user_id: int) -> Any | None:
    """Return somebody's row."""
    return db.auth_user(user_id)


def anybody(db: Any) -> bool:
    """Whether there is an administrator who has a password: before that, the first link makes one."""
    return not db((db.auth_user.role == "admin") & (db.auth_user.password_hash != "")).isempty()


def shown(row: Any) -> dict[str, Any]:
    """Return somebody as the API shows them: no hash, no secret."""
    return {
        "id": row.id, "username": row.username, "email": row.email, "role": row.role, "created_ms": row.created_ms,
        "disabled": bool(row.disabled_ms), "invited": not row.password_hash, "second_factor": bool(row.totp_secret),
    }  # fmt: skip


def listed(db: Any, after: int, size: int) -> list[dict[str, Any]]:
    """Return people in the order of their ids, those after id `after`."""
    rows = db(db.auth_user.id > after).select(orderby=db.auth_user.id, limitby=(0, size))
    return [shown(row) for row in rows]


def change(
    db: Any, user_id: int, who: str, asked: Asked, role: str | None, disabled: bool | None, email: str | None
) -> dict[str, Any]:
    """Change role, access or address; whose rights change is signed out everywhere.  Raises: Refused, KeyError (nobody)."""
    lock(db)
    row = by_id(db, user_id)
    if row is None:
        raise KeyError(user_id)
    before = shown(row)
    if role is not None and role not in ROLES:
        raise Refused("bad_role", f"A role is one of {', '.join(ROLES)}")
    if email and not EMAIL.fullmatch(email):
        raise Refused("bad_email", "This is not an e-mail address")
    wanted: dict[str, Any] = {}
    if role is not None and role != row.role:
        wanted["role"] = role
    if disabled is not None and disabled != bool(row.disabled_ms):
        wanted["disabled_ms"] = asked.now_ms if disabled else 0
    if email is not None and email != row.email:
        wanted["email"] = email
    if not wanted:
        return before
    if wanted.get("role", "admin") != "admin" or wanted.get("disabled_ms"):
        _keep_an_admin(db, row)
    db(db.auth_user.id == user_id).update(**wanted)
    if "role" in wanted or "disabled_ms" in wanted:
        sessions.end_all(db, user_id, asked.now_ms)
    after = shown(by_id(db, user_id))
    changed = [name for name in after if after[name] != before[name]]
    note(
        db, asked, who, "user.change", row.username, before={n: before[n] for n in changed}, after={n: after[n] for n in changed}
    )
    return after


def remove(db: Any, user_id: int, who: str, asked: Asked) -> None:
    """Take somebody out, with sessions, tokens and codes; the audit log keeps the name.  Raises: Refused, KeyError (nobody)."""
    lock(db)
    row = by_id(db, user_id)
    if row is None:
        raise KeyError(user_id)
    _keep_an_admin(db, row)
    sessions.end_all(db, user_id, asked.now_ms)
    db(db.one_time_link.user_id == user_id).delete()
    db(db.auth_user.id == user_id).delete()
    note(db, asked, who, "user.remove", row.username, before=shown(row))


def lock(db: Any) -> None:
    """Let nobody else change people until this transaction ends: of two administrators who remove each other one is kept."""
    db(db.audit_head.id == 1).update(entries=db.audit_head.entries)


def _keep_an_admin(db: Any, row: Any) -> None:
    table = db.auth_user
    others = (table.role == "admin") & (table.disabled_ms == 0) & (table.password_hash != "") & (table.id != row.id)
    if row.role == "admin" and not row.disabled_ms and db(others).isempty():
        raise Refused("last_admin", "This is the last administrator who can sign in; make another one first")
