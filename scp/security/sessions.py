"""Sessions of signed-in people: a random secret in the cookie, its hash here, an idle and an absolute end, listed and revocable.

Invariant: whoever is signed in gets a new secret at every step that gives more rights, so that a secret that somebody else
planted or saw before is worth nothing after. A session that ends is told to the data service (`revocation`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from scp.security.audit import Asked
from scp.security.forms import Draw, kept, new_id
from scp.security.roles import scopes_of
from scp.store.database import ask

HALF_OPEN_S = 300  # between the password and the second factor
SEEN_EVERY_S = 60  # how exactly "last seen" is kept
PER_PERSON_MAX = 50  # the oldest ends
SECRET_BYTES = 32


@dataclass(frozen=True, slots=True)
class Lives:
    """How long a session lives, in seconds: without a request, and at all."""

    idle_s: int
    whole_s: int


@dataclass(frozen=True, slots=True)
class Session:
    """A session that is good now until `ends_ms`, and whose it is; `half_open` = the second factor is still missing."""

    id: int
    public_id: str
    user_id: int
    half_open: bool
    username: str
    role: str
    ends_ms: int


FIND = (
    "SELECT s.id, s.public_id, s.user_id, s.half_open, u.username, u.role, s.ends_ms, s.seen_ms FROM user_session s "
    "JOIN auth_user u ON u.id = s.user_id WHERE s.secret_hash = ? AND s.revoked_ms = 0 AND s.ends_ms > ? AND s.seen_ms > ? "
    "AND u.disabled_ms = 0"
)


BY_NAME = (
    "SELECT s.public_id, u.role FROM user_session s JOIN auth_user u ON u.id = s.user_id WHERE s.public_id = ? "
    "AND s.revoked_ms = 0 AND s.half_open = 0 AND s.ends_ms > ? AND s.seen_ms > ? AND u.disabled_ms = 0"
)


def begin(db: Any, user_id: int, asked: Asked, lives: Lives, draw: Draw, half_open: bool = False) -> str:
    """Open a session and return its secret, which goes into the cookie and nowhere else."""
    secret, table = draw(SECRET_BYTES), db.user_session
    life_s = HALF_OPEN_S if half_open else lives.whole_s
    table.insert(
        public_id=new_id(draw), secret_hash=kept(secret), user_id=user_id, half_open=int(half_open), created_ms=asked.now_ms,
        seen_ms=asked.now_ms, ends_ms=asked.now_ms + life_s * 1000, address=asked.address[:64], agent=asked.agent[:200],
    )  # fmt: skip
    mine = db((table.user_id == user_id) & (table.revoked_ms == 0)).select(orderby=~table.id, limitby=(PER_PERSON_MAX, 1000))
    end(db, [row.public_id for row in mine], asked.now_ms)
    return secret


def find(db: Any, secret: str, now_ms: int, lives: Lives) -> Session | None:
    """Return the session of this secret, None when there is none, it has ended, or its owner may not come in."""
    rows = ask(db, FIND, kept(secret), now_ms, now_ms - lives.idle_s * 1000)
    if not rows:
        return None
    number, public_id, user_id, half_open, username, role, ends_ms, seen_ms = rows[0]
    if now_ms >= seen_ms + SEEN_EVERY_S * 1000:
        db(db.user_session.id == number).update(seen_ms=now_ms)
    return Session(number, public_id, user_id, bool(half_open), username, role, int(ends_ms))


def with_scope(db: Any, public_ids: set[str], scope: str, now_ms: int, lives: Lives) -> set[str]:
    """Return which of these sessions are good now, and of somebody whose role has a scope."""
    rows = [row for one in public_ids for row in ask(db, BY_NAME, one, now_ms, now_ms - lives.idle_s * 1000)]
    return {str(public_id) for public_id, role in rows if scope in scopes_of(role)}


def end(db: Any, public_ids: list[str], now_ms: int) -> list[str]:
    """End these sessions; return which of them had not ended yet."""
    ended = []
    for public_id in public_ids:
        found = (db.user_session.public_id == public_id) & (db.user_session.revoked_ms == 0)
        if db(found).update(revoked_ms=now_ms):
            db.revocation.insert(session_id=public_id, at_ms=now_ms)
            ended.append(public_id)
    return ended


def end_all(db: Any, user_id: int, now_ms: int, but: str = "") -> list[str]:
    """End all sessions of somebody, but for the one with the public id `but`."""
    mine = db((db.user_session.user_id == user_id) & (db.user_session.revoked_ms == 0)).select(db.user_session.public_id)
    return end(db, [row.public_id for row in mine if row.public_id != but], now_ms)


def living(db: Any, user_id: int, now_ms: int, lives: Lives) -> list[dict[str, Any]]:
    """Return somebody's sessions for people to look at, the newest first."""
    table = db.user_session
    own = (table.user_id == user_id) & (table.revoked_ms == 0) & (table.ends_ms > now_ms) & (table.half_open == 0)
    rows = db(own & (table.seen_ms > now_ms - lives.idle_s * 1000)).select(orderby=~table.id)
    names = ("public_id", "created_ms", "seen_ms", "ends_ms", "address", "agent")
    return [{"id" if name == "public_id" else name: row[name] for name in names} for row in rows]


def sweep(db: Any, now_ms: int, keep_ms: int) -> None:
    """Delete what ended more than `keep_ms` ago."""
    old = now_ms - keep_ms
    table = db.user_session
    db((table.ends_ms < old) | ((table.revoked_ms > 0) & (table.revoked_ms < old))).delete()
    db(db.revocation.at_ms < old).delete()
    db(db.one_time_link.ends_ms < old).delete()
