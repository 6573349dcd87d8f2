"""One-time links: the first administrator, an invitation, a forgotten password. Each is used once, or ends."""

from __future__ import annotations

from typing import Any

from scp.security.forms import Draw, kept

LIVES_S = {"welcome": 24 * 3600, "invitation": 3 * 24 * 3600, "reset": 15 * 60}
SECRET_BYTES = 32


def make(db: Any, purpose: str, user_id: int, now_ms: int, draw: Draw) -> str:
    """Return the secret of a new link; earlier ones for the same purpose and person end."""
    table = db.one_time_link
    db((table.purpose == purpose) & (table.user_id == user_id) & (table.used_ms == 0)).update(used_ms=now_ms)
    secret = draw(SECRET_BYTES)
    table.insert(
        secret_hash=kept(secret), purpose=purpose, user_id=user_id, created_ms=now_ms, ends_ms=now_ms + LIVES_S[purpose] * 1000
    )
    return secret


def read(db: Any, secret: str, now_ms: int) -> tuple[str, int] | None:
    """Return purpose and person of a link that can still be used."""
    table = db.one_time_link
    row = db((table.secret_hash == kept(secret)) & (table.used_ms == 0) & (table.ends_ms > now_ms)).select().first()
    return (row.purpose, row.user_id) if row else None


def use(db: Any, secret: str, now_ms: int) -> tuple[str, int] | None:
    """Use a link up and return its purpose and person; None when somebody was faster, or it has ended."""
    table, found = db.one_time_link, read(db, secret, now_ms)
    # The condition stands in the update as well: of two who come together one changes a row, the other none.
    taken = db((table.secret_hash == kept(secret)) & (table.used_ms == 0)).update(used_ms=now_ms) if found else 0
    return found if taken else None
