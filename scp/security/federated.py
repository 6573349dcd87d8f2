"""Signs people in who come back from a provider: one try at a time of one browser, and whose account an identity opens.

Invariant: a try is good once, for ten minutes, in the browser that began it. An identity opens the account that it was linked to,
by its subject, never by a name or an address that somebody may choose at the provider. A second factor set here is asked as well.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from scp.security import people, sessions
from scp.security.audit import Asked, note
from scp.security.forms import Draw, kept
from scp.security.people import Refused
from scp.security.provider import Identity
from scp.security.sessions import Lives
from scp.security.sign_in import Way
from scp.store.database import Store

TRY_S = 600
SECRET_BYTES = 32


@dataclass(frozen=True, slots=True)
class Try:
    """Somebody on the way to the provider. `browser` goes into a cookie; `user_id` 0 = signing in, else linking that account."""

    state: str
    nonce: str
    verifier: str
    browser: str
    user_id: int


class Federated:
    """Tries and identities. `new_role` = what somebody becomes who was never here; "" = nobody comes in uninvited."""

    def __init__(self, store: Store, lives: Lives, draw: Draw, new_role: str) -> None:
        self._store = store
        self._lives = lives
        self._draw = draw
        self._new_role = new_role

    def begin(self, user_id: int, asked: Asked) -> Try:
        """Begin a try."""
        state, nonce, verifier, browser = (self._draw(SECRET_BYTES) for _ in range(4))
        made = Try(state, nonce, verifier, browser, user_id)
        with self._store.transaction() as db:
            db(db.oidc_try.ends_ms < asked.now_ms).delete()
            db.oidc_try.insert(
                state_hash=kept(made.state), browser_hash=kept(made.browser), nonce=made.nonce, verifier=made.verifier,
                user_id=user_id, ends_ms=asked.now_ms + TRY_S * 1000,
            )  # fmt: skip
        return made

    def take(self, state: str, browser: str, asked: Asked) -> Try | None:
        """Use a try up; None when there is none, it has ended, or another browser began it."""
        with self._store.transaction() as db:
            found = db.oidc_try.state_hash == kept(state)
            row = db(found).select().first()
            if row is None or not db(found).delete() or row.ends_ms <= asked.now_ms or row.browser_hash != kept(browser):
                return None
            return Try(state, row.nonce, row.verifier, browser, row.user_id)

    def sign_in(self, identity: Identity, asked: Asked) -> Way:
        """Open a session for whom the identity belongs to.  Raises: Refused."""
        try:
            with self._store.transaction() as db:
                people.lock(db)
                return self._open(db, identity, asked)
        except Refused as refused:
            with self._store.transaction() as db:
                said = {"why": refused.code, "issuer": identity.issuer, "subject": identity.subject}
                note(db, asked, "nobody", "sign_in.refused", people.normal_name(identity.username), **said)
            raise

    def link(self, user_id: int, identity: Identity, asked: Asked) -> None:
        """Let an identity open this account from now on.  Raises: Refused when it opens another one."""
        with self._store.transaction() as db:
            people.lock(db)
            row, owner = people.by_id(db, user_id), self._owner(db, identity)
            if row is None or row.disabled_ms or owner not in (None, user_id):
                raise Refused("linked", "That identity opens another account here")
            if owner is None:
                self._keep(db, user_id, identity, asked)
                note(db, asked, row.username, "identity.link", row.username, issuer=identity.issuer, subject=identity.subject)

    def unlink(self, user_id: int, asked: Asked) -> int:
        """Take away every identity of an account; return how many there were."""
        with self._store.transaction() as db:
            gone = db(db.oidc_identity.user_id == user_id).delete()
            if gone:
                row = people.by_id(db, user_id)
                note(db, asked, row.username if row else "nobody", "identity.unlink", row.username if row else "")
            return int(gone)

    def linked(self, user_id: int) -> bool:
        """Whether an identity opens this account."""
        with self._store.transaction() as db:
            return not db(db.oidc_identity.user_id == user_id).isempty()

    # Parts

    def _open(self, db: Any, identity: Identity, asked: Asked) -> Way:
        user_id = self._owner(db, identity) or self._newcomer(db, identity, asked)
        row = people.by_id(db, user_id)
        if row is None or row.disabled_ms:
            raise Refused("disabled", "This account is disabled")
        half_open = bool(row.totp_secret)
        secret = sessions.begin(db, row.id, asked, self._lives, self._draw, half_open)
        if not half_open:
            note(db, asked, row.username, "sign_in", by="provider")
        return Way(secret, half_open)

    def _owner(self, db: Any, identity: Identity) -> int | None:
        table = db.oidc_identity
        row = db((table.issuer == identity.issuer) & (table.subject == identity.subject)).select().first()
        return int(row.user_id) if row else None

    def _newcomer(self, db: Any, identity: Identity, asked: Asked) -> int:
        if not self._new_role:
            raise Refused("unknown", "No account here belongs to this identity")
        if people.by_name(db, identity.username) is not None:
            raise Refused("name_taken", "There is an account of that name; its owner signs in and links the identity first")
        user_id = people.create(db, identity.username, self._new_role, "", asked.now_ms)
        self._keep(db, user_id, identity, asked)
        note(
            db, asked, "provider", "user.create", people.normal_name(identity.username),
            role=self._new_role, issuer=identity.issuer, subject=identity.subject,
        )  # fmt: skip
        return user_id

    def _keep(self, db: Any, user_id: int, identity: Identity, asked: Asked) -> None:
        db.oidc_identity.insert(
            issuer=identity.issuer, subject=identity.subject, user_id=user_id, created_ms=asked.now_ms, email=identity.email
        )
