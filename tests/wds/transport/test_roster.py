"""Who is connected, in slots that are looked after in turn."""

from __future__ import annotations

from typing import Any, cast

from wds.transport.connection import Connection
from wds.transport.roster import SLOTS, Roster


def test_every_connection_is_looked_after_once_a_turn() -> None:
    """In one slot from its coming to its going; forgetting twice is no fault."""
    roster = Roster()
    people = [cast(Connection, Person()) for _ in range(2 * SLOTS + 3)]
    for one in people:
        roster.enter(one)
    assert sorted(map(id, roster)) == sorted(map(id, people))
    assert sorted(id(one) for slot in range(SLOTS) for one in roster.slot(slot)) == sorted(map(id, people))
    assert max(len(roster.slot(slot)) for slot in range(SLOTS)) == 3
    for one in roster:
        roster.note_patterns(one)
        roster.forget(one)
        roster.forget(one)
    assert (len(roster), list(roster), roster.patterned) == (0, [], set())


class Person:
    """What the roster looks at."""

    session: Any = None
