"""Keeps who is connected: everybody in slots that are looked after in turn, and those who follow patterns.

Invariant: a connection is in exactly one slot from `enter` to `forget`.
"""

from __future__ import annotations

from collections.abc import Iterator

from wds.transport.connection import Connection

SLOTS = 10  # connections are looked after once a second, a tenth of them every 100 ms


class Roster:
    """The connections of one worker."""

    def __init__(self) -> None:
        self.patterned: set[Connection] = set()
        self._slots: list[set[Connection]] = [set() for _ in range(SLOTS)]
        self._slot_of: dict[Connection, int] = {}

    def __len__(self) -> int:
        return len(self._slot_of)

    def __iter__(self) -> Iterator[Connection]:
        """Everybody, as it is now: connections may come and go meanwhile."""
        return iter(list(self._slot_of))

    def slot(self, number: int) -> list[Connection]:
        """Return who is looked after now."""
        return list(self._slots[number])

    def enter(self, connection: Connection) -> None:
        """Look after a new connection."""
        slot = len(self._slot_of) % SLOTS
        self._slot_of[connection] = slot
        self._slots[slot].add(connection)

    def forget(self, connection: Connection) -> None:
        """The socket is gone."""
        slot = self._slot_of.pop(connection, None)
        if slot is not None:
            self._slots[slot].discard(connection)
        self.patterned.discard(connection)

    def note_patterns(self, connection: Connection) -> None:
        """Remember who subscribed to patterns: they are told of new channels."""
        session = connection.session
        if session is not None and session.subscriptions.patterns and not session.closed:
            self.patterned.add(connection)
        else:
            self.patterned.discard(connection)
