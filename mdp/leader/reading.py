"""Reads what other workers have written for the leader: what nobody can read is told once and left out, and ends nothing."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import msgspec
import structlog

TOLD_MAX = 1_000  # names that are remembered as told
T = TypeVar("T")
log = structlog.get_logger()


class Reading:
    """Decodes, and remembers what it complained of: a damaged entry stays until whoever owns it writes it anew."""

    def __init__(self) -> None:
        self._told: dict[str, bytes] = {}

    def read(self, name: str, body: bytes, decode: Callable[[bytes], T]) -> T | None:
        """Return what `decode` makes of `body`, None when it cannot be read. `name` says where in the cache it stands."""
        try:
            return decode(body)
        except (msgspec.DecodeError, ValueError) as error:
            if self._told.get(name) != body and len(self._told) < TOLD_MAX:
                self._told[name] = body
                fix = "it counts again when its worker writes it anew; see that no other program writes into our cache"
                log.error("entry_unreadable", entry=name, error=str(error)[:200], fix=fix)
            return None
