"""Keeps what each listener is to do: versions, the difference between two, and keys that can be written and never read.

Invariant: a key goes only with the server that it was given for. Whoever changes the address gives a key of its own, or none.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from scp.security.second_factor import Box

SECRETS = {"api_key": "massive_url", "engine_token": "engine_url"}  # secret → the address that it is for
VERSIONS_SHOWN_MAX = 500


@dataclass(frozen=True, slots=True)
class Wanted:
    """A version: `fields` are those of the listener's `POST /feed` without secrets. Version 0, not managed: there is none."""

    listener: str
    version: int = 0
    managed: bool = False
    fields: Mapping[str, Any] = field(default_factory=dict)
    note: str = ""
    who: str = ""
    at_ms: int = 0


def newest(db: Any, listener: str) -> Wanted:
    """Return what the listener is to do now."""
    table = db.listener_configuration
    row = db(table.listener == listener).select(orderby=~table.version, limitby=(0, 1)).first()
    return _wanted(row) if row else Wanted(listener)


def version(db: Any, listener: str, number: int) -> Wanted | None:
    """Return one version, None when there is none of that number."""
    table = db.listener_configuration
    row = db((table.listener == listener) & (table.version == number)).select().first()
    return _wanted(row) if row else None


def versions(db: Any, listener: str, before: int | None, size: int) -> list[Wanted]:
    """Return versions, the newest first, older than `before`."""
    table = db.listener_configuration
    found = table.listener == listener
    rows = db(found if before is None else found & (table.version < before)).select(orderby=~table.version, limitby=(0, size))
    return [_wanted(row) for row in rows]


def names(db: Any) -> list[str]:
    """Return the listeners for which something was ever wanted."""
    table = db.listener_configuration
    return sorted({row.listener for row in db(table).select(table.listener, distinct=True)})


def add(db: Any, wanted: Wanted) -> None:
    """Write a version down; its number must be the next one."""
    db.listener_configuration.insert(
        listener=wanted.listener, version=wanted.version, managed=int(wanted.managed), note=wanted.note, who=wanted.who,
        wanted=json.dumps(dict(wanted.fields), sort_keys=True), at_ms=wanted.at_ms,
    )  # fmt: skip


def difference(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return what changes from one version to another: `field`, `before`, `after`; null = the listener's own setting."""
    changed = sorted(name for name in {*before, *after} if before.get(name) != after.get(name))
    return [{"field": name, "before": before.get(name), "after": after.get(name)} for name in changed]


# Secrets


def keep_secret(db: Any, box: Box, listener: str, name: str, value: str, place: str, now_ms: int) -> None:
    """Keep a secret for the server at `place`; an empty one is forgotten."""
    table = db.listener_secret
    db((table.listener == listener) & (table.name == name)).delete()
    if value:
        table.insert(listener=listener, name=name, closed=box.close(value), place=place, at_ms=now_ms)


def secrets_of(db: Any, box: Box, listener: str, fields: Mapping[str, Any]) -> dict[str, str]:
    """Return the secrets that go with a configuration: those that were given for its own addresses."""
    found = {}
    for row in db(db.listener_secret.listener == listener).select():
        opened = box.open(row.closed) if row.place == place_of(row.name, fields) else None
        if opened is not None:
            found[row.name] = opened
    return found


def secrets_kept(db: Any, listener: str) -> list[str]:
    """Return which secrets there are."""
    return sorted(row.name for row in db(db.listener_secret.listener == listener).select(db.listener_secret.name))


def place_of(secret: str, fields: Mapping[str, Any]) -> str:
    """Return the address that a secret is for; empty = the listener's own."""
    return str(fields.get(SECRETS[secret]) or "")


def _wanted(row: Any) -> Wanted:
    return Wanted(row.listener, row.version, bool(row.managed), json.loads(row.wanted), row.note, row.who, row.at_ms)
