"""Signs people in by password, second factor and one-time link, and out again. Each step is throttled before it begins.

Invariant: whether a name exists cannot be told from an answer, nor from how long it takes; a second factor is asked on every way.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from scp.security import links, passwords, people, second_factor, sessions, throttle
from scp.security.audit import Asked, note
from scp.security.forms import Draw, kept
from scp.security.people import Refused
from scp.security.second_factor import Box
from scp.security.sessions import Lives
from scp.security.throttle import Throttle
from scp.store.database import Store

WRONG = "Name or password is wrong"
CODE_WRONG = "This code is wrong, was used before, or has ended; take the next one"
LINK_ENDED = "This link was used already or has ended; ask for a new one"


class Wrong(Exception):
    """Not signed in; the text says no more than it may."""


@dataclass(frozen=True, slots=True)
class Way:
    """What signing in gave: the cookie's secret, and whether the second factor is still missing."""

    secret: str
    half_open: bool


class SignIn:
    """Signs people in and out. `draw` makes random text, `box` opens second-factor secrets."""

    def __init__(self, store: Store, guard: Throttle, lives: Lives, box: Box, draw: Draw) -> None:
        self._store = store
        self._guard = guard
        self._lives = lives
        self._box = box
        self._draw = draw

    def by_password(self, username: str, password: str, asked: Asked) -> Way:
        """Open a session, half open where a second factor is set.  Raises: Wrong, TooMany."""
        name = people.normal_name(username)[:64]
        pair = (name, asked.address)
        self._guard.count(
            (throttle.SIGN_IN_PAIR, pair), (throttle.SIGN_IN_NAME, (name,)), (throttle.SIGN_IN_ADDRESS, (asked.address,))
        )
        with self._store.transaction() as db:
            row = people.by_name(db, name)
            stored = row.password_hash if row is not None and not row.disabled_ms and row.password_hash else None
        right = passwords.matches(password[: passwords.CHARS_MAX + 1], stored)  # outside of a transaction: it takes 30 ms
        with self._store.transaction() as db:
            row = people.by_name(db, name)
            if not right or row is None or row.disabled_ms or row.password_hash != stored:  # changed meanwhile
                right = False
                note(db, asked, "nobody", "sign_in.refused", name)
            else:
                way = self._open(db, row, asked, half_open=bool(row.totp_secret))
                if passwords.is_old(row.password_hash):
                    db(db.auth_user.id == row.id).update(password_hash=passwords.hashed(password))
        if not right:
            raise Wrong(WRONG)
        self._guard.forgive(throttle.SIGN_IN_PAIR, *pair)
        return way

    def by_code(self, session: sessions.Session, code: str, asked: Asked) -> Way:
        """Complete a half-open session by a time-based or a recovery code; the secret changes.  Raises: Wrong, TooMany."""
        self._guard.count((throttle.CODES, (str(session.user_id),)))
        with self._store.transaction() as db:
            row = people.by_id(db, session.user_id)
            used = self._use_code(db, row, code, asked) if row is not None and not row.disabled_ms else None
            if used is None:
                note(db, asked, row.username if row else "nobody", "sign_in.code_refused")
            else:
                assert row is not None
                sessions.end(db, [session.public_id], asked.now_ms)
                way = self._open(db, row, asked, half_open=False, by=used)
        if used is None:
            raise Wrong(CODE_WRONG)
        self._guard.forgive(throttle.CODES, str(session.user_id))
        return way

    def out(self, session: sessions.Session, who: str, asked: Asked) -> None:
        """End a session."""
        with self._store.transaction() as db:
            if sessions.end(db, [session.public_id], asked.now_ms):
                note(db, asked, who, "sign_out")

    # One-time links

    def first_link(self, asked: Asked) -> str | None:
        """Return the secret of a link that makes the first administrator; None when there is one."""
        with self._store.transaction() as db:
            return None if people.anybody(db) else links.make(db, "welcome", 0, asked.now_ms, self._draw)

    def about(self, secret: str, asked: Asked) -> dict[str, Any]:
        """Return what a link is for, and whose.  Raises: Wrong, TooMany."""
        self._guard.count((throttle.LINKS, (asked.address,)))
        with self._store.transaction() as db:
            found = links.read(db, secret, asked.now_ms)
            row = people.by_id(db, found[1]) if found and found[1] else None
        if found is None:
            raise Wrong(LINK_ENDED)
        return {"purpose": found[0], "username": row.username if row else None}

    def by_link(self, secret: str, username: str | None, password: str, asked: Asked) -> Way:
        """Set the password that a link is for, and sign in: the first administrator, an invited one, who forgot theirs.

        The second factor, where one is set, is asked next. All other sessions end.  Raises: Wrong, Refused, TooMany.
        """
        self._guard.count((throttle.LINKS, (asked.address,)))
        with self._store.transaction() as db:
            found = links.read(db, secret, asked.now_ms)
            row = people.by_id(db, found[1]) if found and found[1] else None
        if found is None or (found[1] and (row is None or row.disabled_ms)):
            raise Wrong(LINK_ENDED)
        name = row.username if row is not None else people.normal_name(username or "")
        if (fault := passwords.fault_of(password, name)) is not None:
            raise Refused("bad_password", fault)
        made = passwords.hashed(password)
        with self._store.transaction() as db:
            if links.use(db, secret, asked.now_ms) is None:
                raise Wrong(LINK_ENDED)
            if row is None:
                people.lock(db)
                if people.anybody(db):
                    raise Wrong("There is an administrator already; sign in, or ask them for an invitation")
                row = people.by_id(db, people.create(db, name, "admin", "", asked.now_ms, made))
                assert row is not None
                note(db, asked, name, "user.first_admin", name)
            else:
                db(db.auth_user.id == row.id).update(password_hash=made, password_ms=asked.now_ms)
                sessions.end_all(db, row.id, asked.now_ms)
                note(db, asked, name, f"password.{found[0]}", name)
            return self._open(db, row, asked, half_open=bool(row.totp_secret))

    def reset_link(self, username: str, asked: Asked) -> tuple[str, str] | None:
        """Return (e-mail address, secret) of a new reset link, None when nobody can get one.  Raises: TooMany.

        The caller answers the same in both cases.
        """
        name = people.normal_name(username)[:64]
        self._guard.count((throttle.RESETS_NAME, (name,)), (throttle.RESETS_ADDRESS, (asked.address,)))
        with self._store.transaction() as db:
            row = people.by_name(db, name)
            note(db, asked, "nobody", "password.forgotten", name)
            if row is None or row.disabled_ms or not row.password_hash or not row.email:
                return None
            return row.email, links.make(db, "reset", row.id, asked.now_ms, self._draw)

    # Parts

    def _open(self, db: Any, row: Any, asked: Asked, half_open: bool, by: str = "password") -> Way:
        secret = sessions.begin(db, row.id, asked, self._lives, self._draw, half_open)
        if not half_open:
            note(db, asked, row.username, "sign_in", by=by)
        return Way(secret, half_open)

    def _use_code(self, db: Any, row: Any, code: str, asked: Asked) -> str | None:
        secret = self._box.open(row.totp_secret) if row.totp_secret else None
        step = second_factor.step_of(secret, code, asked.now_s, row.totp_step) if secret else None
        if step is not None:
            later = (db.auth_user.id == row.id) & (db.auth_user.totp_step < step)
            return "code" if db(later).update(totp_step=step) else None
        table = db.recovery_code
        found = (table.user_id == row.id) & (table.code_hash == kept(second_factor.plain(code))) & (table.used_ms == 0)
        return "recovery code" if second_factor.plain(code) and db(found).update(used_ms=asked.now_ms) else None
