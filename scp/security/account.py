"""What somebody changes of their own account: password and second factor. Each asks for the present password again."""

from __future__ import annotations

from typing import Any

import msgspec

from scp.security import passwords, people, second_factor, sessions, throttle
from scp.security.audit import Asked, note
from scp.security.forms import Draw, kept
from scp.security.people import Refused
from scp.security.second_factor import Box
from scp.security.sessions import Lives
from scp.security.sign_in import CODE_WRONG, Wrong
from scp.security.throttle import Throttle
from scp.store.database import Store


class NewFactor(msgspec.Struct):
    """A second factor about to be set: its secret, the address that apps read, and that as a picture (SVG)."""

    secret: str
    address: str
    picture: str


class Account:
    """The changes. A half-open session never comes here: the door lets it do nothing but complete itself."""

    def __init__(self, store: Store, guard: Throttle, lives: Lives, box: Box, draw: Draw) -> None:
        self._store = store
        self._guard = guard
        self._lives = lives
        self._box = box
        self._draw = draw

    def change_password(self, user_id: int, old: str, new: str, asked: Asked) -> str:
        """Set a new password, end all sessions, and return the secret of a new one.  Raises: Wrong, Refused, TooMany."""
        row = self._confirmed(user_id, old, asked)
        if (fault := passwords.fault_of(new, row.username)) is not None:
            raise Refused("bad_password", fault)
        made = passwords.hashed(new)
        with self._store.transaction() as db:
            db(db.auth_user.id == user_id).update(password_hash=made, password_ms=asked.now_ms)
            sessions.end_all(db, user_id, asked.now_ms)
            note(db, asked, row.username, "password.change")
            return sessions.begin(db, user_id, asked, self._lives, self._draw)

    def offer_factor(self, user_id: int, password: str, asked: Asked) -> NewFactor:
        """Make a secret for an app; it counts once a code of it was given.  Raises: Wrong, TooMany."""
        row = self._confirmed(user_id, password, asked)
        secret = second_factor.new_secret()
        with self._store.transaction() as db:
            db(db.auth_user.id == user_id).update(totp_pending=self._box.close(secret))
        address = second_factor.address_of(secret, row.username)
        return NewFactor(secret, address, second_factor.picture_of(address))

    def set_factor(self, user_id: int, code: str, asked: Asked) -> list[str]:
        """Set the offered second factor by its first code; return recovery codes, shown once.  Raises: Wrong, TooMany."""
        self._guard.count((throttle.CODES, (str(user_id),)))
        with self._store.transaction() as db:
            row = people.by_id(db, user_id)
            secret = self._box.open(row.totp_pending) if row is not None and row.totp_pending else None
            step = second_factor.step_of(secret, code, asked.now_s, 0) if secret else None
            if row is None or step is None:
                raise Wrong(CODE_WRONG)
            db(db.auth_user.id == user_id).update(totp_secret=row.totp_pending, totp_pending="", totp_step=step)
            codes = second_factor.new_codes(self._draw)
            db(db.recovery_code.user_id == user_id).delete()
            for one in codes:
                db.recovery_code.insert(user_id=user_id, code_hash=kept(second_factor.plain(one)))
            note(db, asked, row.username, "second_factor.set")
        self._guard.forgive(throttle.CODES, str(user_id))
        return codes

    def drop_factor(self, user_id: int, password: str, asked: Asked) -> None:
        """Take the second factor off.  Raises: Wrong, TooMany."""
        row = self._confirmed(user_id, password, asked)
        with self._store.transaction() as db:
            take_factor(db, user_id)
            note(db, asked, row.username, "second_factor.drop")

    def confirm(self, user_id: int, password: str, asked: Asked) -> None:
        """Check the present password.  Raises: Wrong, TooMany."""
        self._confirmed(user_id, password, asked)

    def _confirmed(self, user_id: int, password: str, asked: Asked) -> Any:
        self._guard.count((throttle.CODES, (f"password-{user_id}",)))
        with self._store.transaction() as db:
            row = people.by_id(db, user_id)
        if row is None or not passwords.matches(password[: passwords.CHARS_MAX + 1], row.password_hash or None):
            raise Wrong("The present password is wrong")
        self._guard.forgive(throttle.CODES, f"password-{user_id}")
        return row


def take_factor(db: Any, user_id: int) -> None:
    """Forget somebody's second factor and recovery codes (they lost both, and an administrator helps)."""
    db(db.auth_user.id == user_id).update(totp_secret="", totp_pending="", totp_step=0)
    db(db.recovery_code.user_id == user_id).delete()
