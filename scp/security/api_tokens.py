"""Tokens of scripts: `tapeline_ID_SECRET`, shown once, with scopes, an end, and when they were last used.

Invariant: a token never may more than its owner may now, and never opens a session.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from scp.security.forms import TOKEN, TOKEN_PREFIX, Draw, kept, new_id, same
from scp.store.database import ask

DAYS_MAX = 366
PER_PERSON_MAX = 50
USED_EVERY_MS = 60_000


@dataclass(frozen=True, slots=True)
class ApiToken:
    """A token that is good now, and whose it is."""

    public_id: str
    user_id: int
    scopes: frozenset[str]
    username: str
    role: str


FIND = (
    "SELECT t.id, t.public_id, t.user_id, t.scopes, u.username, u.role, t.used_ms, t.secret_hash FROM api_token t "
    "JOIN auth_user u ON u.id = t.user_id WHERE t.public_id = ? AND t.revoked_ms = 0 AND t.ends_ms > ? AND u.disabled_ms = 0"
)


class TooManyTokens(Exception):
    """Somebody has as many tokens as one may have."""


def make(db: Any, user_id: int, name: str, scopes: frozenset[str], ends_ms: int, now_ms: int, draw: Draw) -> tuple[str, str]:
    """Return public id and whole text of a new token; the text cannot be had again.  Raises: TooManyTokens."""
    table = db.api_token
    if db((table.user_id == user_id) & (table.revoked_ms == 0) & (table.ends_ms > now_ms)).count() >= PER_PERSON_MAX:
        raise TooManyTokens
    public_id, secret = new_id(draw), draw(32)
    table.insert(
        public_id=public_id, secret_hash=kept(secret), name=name, user_id=user_id, scopes=" ".join(sorted(scopes)),
        created_ms=now_ms, ends_ms=ends_ms,
    )  # fmt: skip
    return public_id, f"{TOKEN_PREFIX}{public_id}_{secret}"


def find(db: Any, text: str, now_ms: int) -> ApiToken | None:
    """Return the token that `text` is, None when it is none, has ended, was revoked, or its owner may not come in."""
    form = TOKEN.fullmatch(text)
    rows = ask(db, FIND, form[1], now_ms) if form else []
    if form is None or not rows or not same(rows[0][7], kept(form[2])):
        return None
    number, public_id, user_id, scopes, username, role, used_ms = rows[0][:7]
    if now_ms >= used_ms + USED_EVERY_MS:
        db(db.api_token.id == number).update(used_ms=now_ms)
    return ApiToken(public_id, user_id, frozenset(scopes.split()), username, role)


def revoke(db: Any, public_id: str, user_id: int | None, now_ms: int) -> str | None:
    """End a token, of this person or of anybody (None); return its name, None when there is no such token."""
    table = db.api_token
    own = (table.public_id == public_id) & (table.revoked_ms == 0)
    row = db(own if user_id is None else own & (table.user_id == user_id)).select().first()
    if row is None:
        return None
    db(table.id == row.id).update(revoked_ms=now_ms)
    return str(row.name)


def listed(db: Any, user_id: int, now_ms: int) -> list[dict[str, Any]]:
    """Return somebody's tokens, without their secrets, the newest first."""
    table = db.api_token
    rows = db((table.user_id == user_id) & (table.revoked_ms == 0) & (table.ends_ms > now_ms)).select(orderby=~table.id)
    return [
        {
            "id": row.public_id, "name": row.name, "scopes": row.scopes.split(), "created_ms": row.created_ms,
            "ends_ms": row.ends_ms, "used_ms": row.used_ms or None,
        }
        for row in rows
    ]  # fmt: skip
