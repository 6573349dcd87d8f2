"""Writes down who did what: entries are only added, each with the hash of the one before it, so that a changed one shows.

The chain proves that nothing was changed or taken out of the middle. Who can write to the database can still make a whole new
chain; so export it, and keep the last hash elsewhere.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

FIRST = "0" * 64
FIELDS = ("id", "at_ms", "who", "action", "target", "detail", "address", "request_id")
PAGE_MAX = 500


@dataclass(frozen=True, slots=True)
class Asked:
    """A request, as the audit log names it: from where, when (seconds since the epoch), by which client, under which id."""

    address: str
    now_s: float
    request_id: str
    agent: str = ""

    @property
    def now_ms(self) -> int:
        return int(self.now_s * 1000)


def note(db: Any, asked: Asked, who: str, action: str, target: str = "", **detail: Any) -> None:
    """Add an entry within the caller's transaction; what it says and what was done are kept together or not at all."""
    # The update comes first: it makes everybody else who writes an entry wait for the end of this transaction.
    db(db.audit_head.id == 1).update(entries=db.audit_head.entries + 1)
    head = db.audit_head(1)
    entry = {
        "id": head.entries, "at_ms": asked.now_ms, "who": who[:100], "action": action, "target": target[:200],
        "detail": json.dumps(detail, sort_keys=True, separators=(",", ":")), "address": asked.address[:64],
        "request_id": asked.request_id,
    }  # fmt: skip
    link = hash_of(head.hash, entry)
    db.audit_entry.insert(previous=head.hash, hash=link, **entry)
    db(db.audit_head.id == 1).update(hash=link)


def wait_turn(db: Any) -> None:
    """Let nobody else write an entry before the end of this transaction: what is read now stays true until then."""
    db(db.audit_head.id == 1).update(entries=db.audit_head.entries)


def latest(db: Any, actions: tuple[str, ...]) -> dict[str, Any] | None:
    """Return the newest entry of some actions, None when there is none."""
    row = db(db.audit_entry.action.belongs(actions)).select(orderby=~db.audit_entry.id, limitby=(0, 1)).first()
    return shown(row) if row else None


def hash_of(previous: str, entry: dict[str, Any]) -> str:
    """Return the SHA-256 of the hash before and of everything that the entry says."""
    said = json.dumps([previous, *(entry[name] for name in FIELDS)], separators=(",", ":"))
    return hashlib.sha256(said.encode()).hexdigest()


def page(db: Any, before: int | None, size: int) -> list[dict[str, Any]]:
    """Return entries, the newest first, older than entry `before`; `detail` as an object."""
    table = db.audit_entry
    found = db(table.id < before) if before is not None else db(table)
    rows = found.select(orderby=~table.id, limitby=(0, min(size, PAGE_MAX)))
    return [shown(row) for row in rows]


def shown(row: Any) -> dict[str, Any]:
    """Return an entry as the API shows it."""
    entry = {name: row[name] for name in (*FIELDS, "previous", "hash")}
    return {**entry, "detail": json.loads(entry["detail"])}


def everything(db: Any) -> Iterator[dict[str, Any]]:
    """Yield all entries, the oldest first, as they are in the database."""
    after = 0
    while True:
        rows = db(db.audit_entry.id > after).select(orderby=db.audit_entry.id, limitby=(0, PAGE_MAX))
        if not rows:
            return
        yield from (row.as_dict() for row in rows)
        after = rows[-1].id


def fault_of(db: Any) -> str | None:
    """Return where the chain is broken, in words; None when every entry is there and as it was written."""
    previous, number = FIRST, 0
    for entry in everything(db):
        number += 1
        if entry["id"] != number:
            return f"entry {number} is missing: the next one there is {entry['id']}"
        if entry["previous"] != previous or entry["hash"] != hash_of(previous, entry):
            return f"entry {number} ({entry['action']} by {entry['who']}) is not what was written"
        previous = entry["hash"]
    head = db.audit_head(1)
    if (head.entries, head.hash) != (number, previous):
        return f"{head.entries} entries were written, and the last ones are missing: {number} are there"
    return None
