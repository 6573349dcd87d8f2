"""Checks which frames each member of a group is sent, and when."""

from __future__ import annotations

import json
from typing import Any

from tests.wds.fanout.test_channel import channel, doc, snapshot
from wds.fanout.channel import Channel
from wds.fanout.compact import Form
from wds.fanout.group import NOWHERE, Cursor, Group


class Member:
    def __init__(self, ready: bool = True) -> None:
        self.ready = ready
        self.frames: list[Any] = []

    def loosen(self, round_: Any) -> None:
        pass

    def write(self, frame: bytes) -> None:
        self.frames += [json.loads(line) for line in frame.splitlines()]


def group_of(upstream: Channel, hz: Any = 4, wanted: frozenset[str] | None = None) -> Group:
    return Group(upstream, hz, wanted, Form(lambda payload: payload + b"\n"))


def quotes() -> tuple[Channel, Group, Member]:
    upstream = channel("quote:A")
    upstream.install(snapshot("quote:A", 1, {"last": 1, "bid": 1}))
    group, member = group_of(upstream), Member()
    for frame in group.join(member, NOWHERE):
        member.write(frame)
    return upstream, group, member


def test_members_get_the_same_changed_fields() -> None:
    """One update from the last sent state, however many documents came between."""
    upstream, group, member = quotes()
    for last in (2, 3):
        upstream.apply(doc("quote:A", last, {"last": last, "bid": 1}))
    group.flush()
    assert [frame["t"] for frame in member.frames] == ["snap", "upd"]
    assert member.frames[1] == {"t": "upd", "ch": "quote:A", "prev": 1, "seq": 3, "ts": 3, "data": {"last": 3}}


def test_a_newcomer_starts_at_the_groups_position() -> None:
    """Its snap is what the group last sent, not what the channel knows: the next update fits both."""
    upstream, group, _ = quotes()
    upstream.apply(doc("quote:A", 2, {"last": 2, "bid": 1}))
    late = Member()
    (snap,) = group.join(late, NOWHERE)
    assert (json.loads(snap)["seq"], json.loads(snap)["data"]["last"]) == (1, 1)
    group.flush()
    assert late.frames[0]["prev"] == 1


def test_nothing_is_sent_when_nothing_changed() -> None:
    """Equal states, or changes outside the wanted fields, send no frame and keep the position."""
    upstream = channel("quote:A")
    upstream.install(snapshot("quote:A", 1, {"last": 1, "bid": 1}))
    group, member = group_of(upstream, wanted=frozenset({"last"})), Member()
    group.join(member, NOWHERE)
    upstream.apply(doc("quote:A", 2, {"last": 1, "bid": 2}))
    assert group.flush().frames == 0
    upstream.apply(doc("quote:A", 3, {"last": 3, "bid": 2}))
    group.flush()
    assert (member.frames[0]["prev"], member.frames[0]["data"]) == (1, {"last": 3})


def test_a_member_ahead_waits_until_the_group_passed_it() -> None:
    """Coming from a quicker tier with a newer seq, it gets nothing old, and hears of a value that changed back."""
    upstream, group, fast = quotes()
    upstream.apply(doc("quote:A", 2, {"last": 9, "bid": 1}))
    ahead = Member()
    assert group.join(ahead, Cursor(1, 2)) == []
    upstream.apply(doc("quote:A", 3, {"last": 1, "bid": 1}))
    group.flush()
    assert ahead.frames[0]["prev"] == 2
    assert ahead.frames[0]["data"]["last"] == 1
    assert fast.frames[-1]["prev"] == 1


def test_a_held_member_catches_up_with_one_bridge() -> None:
    """A slow member leaves the fast list, keeps its place, and is bridged by the whole state."""
    upstream, group, member = quotes()
    member.ready = False
    group.demote(member)
    for last in range(2, 9):
        upstream.apply(doc("quote:A", last, {"last": last}))
        assert group.flush().conflated == (1 if last < 99 else 0)
    member.ready = True
    (bridge,) = group.catch_up(member)
    assert json.loads(bridge)["prev"] == 1
    assert json.loads(bridge)["data"]["last"] == 8
    assert json.loads(bridge)["data"]["bid"] is None, "a field that vanished comes as null"


def test_a_new_life_is_told_by_a_snap() -> None:
    """Another epoch sends everybody a snap."""
    upstream, group, member = quotes()
    upstream.apply(doc("quote:A", 1, {"last": 5}, epoch="f"))
    group.flush()
    assert (member.frames[-1]["t"], member.frames[-1]["epoch"], member.frames[-1]["seq"]) == ("snap", "f", 1)


def test_missing_events_are_declared_lost() -> None:
    """A hole in the log is told as `lost` before the event after it."""
    upstream = channel("trades:A")
    upstream.install(snapshot("trades:A", 1, [1]))
    group, member = group_of(upstream), Member()
    group.join(member, NOWHERE)
    upstream.apply(doc("trades:A", 4, 4))
    upstream.install(snapshot("trades:A", 4, [4]))
    sent = group.flush()
    (frames,) = member.frames
    assert frames == [
        {"t": "lost", "ch": "trades:A", "n": 2},
        {"t": "event", "ch": "trades:A", "prev": 3, "seq": 4, "ts": 4, "data": 4},
    ]
    assert sent.lost == 2


def test_snapshots_can_be_limited() -> None:
    """`limit` truncates rows, events and history."""
    board = channel("board:volume")
    board.install(snapshot("board:volume", 1, {"order": ["A", "B"], "rows": {"A": {"last": 1, "sym": "A"}, "B": {}}}))
    assert json.loads(group_of(board).full(1, None)) == {"order": ["A"], "rows": {"A": {"last": 1, "sym": "A"}}}
    assert json.loads(group_of(board, wanted=frozenset({"last"})).full(None, None))["rows"]["A"] == {"last": 1}
    trades = channel("trades:A")
    trades.install(snapshot("trades:A", 3, [1, 2, 3]))
    assert json.loads(group_of(trades).full(2, None)) == [2, 3]
