"""Members of exactly the same groups share one blob a round; the others get theirs."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from tests.wds.upstream import Cache, Wire
from wds.fanout import phases, pieces
from wds.fanout.cohort import Cohort
from wds.fanout.freshness import Freshness
from wds.fanout.hub import Hub
from wds.fanout.member import Member, Want
from wds.fanout.outbox import Ladder
from wds.protocol import PHASES

NAMES = [f"quote:S{n}" for n in range(8)]


class World:
    """A hub with members whose writes are kept."""

    def __init__(self, members: int) -> None:
        self.cache = Cache()
        self.hub = Hub(lambda payload: payload, Freshness(1e9, 0))
        self.wire = Wire(self.cache, self.hub)
        self.written: list[list[bytes]] = [[] for _ in range(members)]
        self.members = [Member(kept.append, Ladder()) for kept in self.written]
        for name in NAMES:
            self.wire.publish(name, {"last": 0})
        for member in self.members:
            self.hub.add(member)

    def follow(self, at: int, names: list[str]) -> None:
        self.hub.join(self.members[at], [Want(name, "raw") for name in names], lambda _: lambda: None, 0)
        self.wire.settle()

    def change(self, last: int) -> list[Any]:
        """Change every quote in one message; return what each member was written because of it."""
        for kept in self.written:
            kept.clear()
        for name in NAMES:
            self.wire.publish(name, {"last": last})
        self.wire.deliver(100)
        return [list(kept) for kept in self.written]

    @property
    def cohorts(self) -> set[Cohort | None]:
        self.hub._cohorts.settle(("raw", 0))
        return {member.cohorts.get(("raw", 0)) for member in self.members}


def test_equal_sets_share_the_very_same_bytes() -> None:
    """Asked for in whatever order: one object for all of the cohort; another set has its own."""
    world = World(3)
    world.follow(0, NAMES[:4])
    world.follow(1, NAMES[3::-1])
    world.follow(2, NAMES[:5])
    assert len(world.cohorts) == 2
    first, second, third = world.change(1)
    assert first[0] is second[0]
    assert [item["ch"] for item in json.loads(third[0])] == NAMES[:5]
    assert [item["ch"] for item in json.loads(first[0])] == NAMES[:4]


def test_joined_phases_are_one_write_that_is_shared(monkeypatch: pytest.MonkeyPatch) -> None:
    """With many clients a tick brings all phases: one write each, the same bytes for equal sets, in pieces when it is much."""
    monkeypatch.setattr(phases, "WRITES_S_MAX", 1)
    world = World(3)
    for at, names in enumerate((NAMES, NAMES, NAMES[:5])):
        world.hub.join(world.members[at], [Want(name, 4) for name in names], lambda _: lambda: None, 0)
        world.wire.settle()
    world.change(1)
    for phase in range(PHASES[4]):
        world.hub.tick(4, phase, 0)  # who reads which phase is known from the first flush on
    world.change(2)
    for phase in range(PHASES[4]):
        assert phase == PHASES[4] - 1 or not any(world.written)
        world.hub.tick(4, phase, 0)
    (first,), (second,), (third,) = world.written
    assert first is second
    assert [channels(first), channels(third)] == [sorted(NAMES), sorted(NAMES[:5])]
    monkeypatch.setattr(pieces, "PIECE_BYTES", 300)
    world.change(3)
    world.hub.tick(4, PHASES[4] - 1, 0)
    assert len(world.written[0]) > 1
    assert all(mine is other for mine, other in zip(world.written[0], world.written[1], strict=True))
    assert channels(b"".join(world.written[0])) == sorted(NAMES)


def channels(blob: bytes) -> list[str]:
    return sorted(re.findall(r'"ch":"([^"]+)"', blob.decode()))


def test_members_change_cohorts_with_their_subscriptions() -> None:
    """After joining, leaving, pausing and ending each hears of exactly what it follows; empty cohorts are forgotten."""
    world = World(3)
    for at in range(3):
        world.follow(at, NAMES[:4])
    assert len(world.cohorts) == 1
    world.hub.leave(world.members[0], NAMES[0], 0)
    world.hub.pause(world.members[1], True, 0)
    heard = world.change(1)
    assert [item["ch"] for item in json.loads(heard[0][0])] == NAMES[1:4]
    assert heard[1] == []
    assert [item["ch"] for item in json.loads(heard[2][0])] == NAMES[:4]
    world.hub.drop(world.members[2], 0)
    world.hub.pause(world.members[1], False, 0)
    world.follow(0, NAMES[:1])
    first, second, third = world.change(2)
    assert first[0] is second[0]
    assert third == []
    assert len(world.hub._cohorts) == 1
    for member in world.members[:2]:
        world.hub.drop(member, 0)
    assert len(world.hub._cohorts) == 0
