"""Keeps people's layouts of the desk: each belongs to one person, and has a revision that every change raises.

Invariant: a change that does not name the present revision changes nothing; at most one layout of a person is the default.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

PER_PERSON_MAX = 50


class TooManyLayouts(Exception):
    """Somebody has as many layouts as one may have."""


class OtherRevision(Exception):
    """The layout was changed meanwhile; `revision` is the present one."""

    def __init__(self, revision: int) -> None:
        super().__init__(f"revision {revision}")
        self.revision = revision


def listed(db: Any, user_id: int) -> list[Any]:
    """Return somebody's layouts as rows, oldest first."""
    return list(db(db.layout.user_id == user_id).select(orderby=db.layout.id))


def find(db: Any, user_id: int, public_id: str) -> Any:
    """Return somebody's layout as a row.  Raises: KeyError: they have none of this id."""
    row = db((db.layout.user_id == user_id) & (db.layout.public_id == public_id)).select().first()
    if row is None:
        raise KeyError(public_id)
    return row


def make(db: Any, user_id: int, public_id: str, given: Mapping[str, Any], now_ms: int) -> Any:
    """Keep a new layout and return its row; `given` are its columns.  Raises: TooManyLayouts."""
    if db(db.layout.user_id == user_id).count() >= PER_PERSON_MAX:
        raise TooManyLayouts
    _one_default(db, user_id, given)
    db.layout.insert(user_id=user_id, public_id=public_id, revision=1, changed_ms=now_ms, **given)
    return find(db, user_id, public_id)


def change(db: Any, user_id: int, public_id: str, revision: int, given: Mapping[str, Any], now_ms: int) -> Any:
    """Replace a layout of this revision and return its row.  Raises: KeyError, OtherRevision."""
    row = find(db, user_id, public_id)
    table = db.layout
    same = (table.id == row.id) & (table.revision == revision)  # asked by the database: two who save at once cannot both pass
    if not db(same).update(revision=revision + 1, changed_ms=now_ms, **given):
        raise OtherRevision(int(find(db, user_id, public_id).revision))
    _one_default(db, user_id, given, row.id)
    return find(db, user_id, public_id)


def remove(db: Any, user_id: int, public_id: str) -> None:
    """Forget a layout.  Raises: KeyError."""
    db(db.layout.id == find(db, user_id, public_id).id).delete()


def _one_default(db: Any, user_id: int, given: Mapping[str, Any], but: int = 0) -> None:
    if given.get("is_default"):
        others = (db.layout.user_id == user_id) & (db.layout.is_default == 1) & (db.layout.id != but)
        db(others).update(is_default=0)
