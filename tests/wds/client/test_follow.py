"""Checks that copies follow the frames, and that a broken chain is reported."""

from __future__ import annotations

from wds.client.follow import Follower

SNAP = {"t": "snap", "ch": "quote:A", "epoch": "e", "seq": 1, "ts": 1, "data": {"last": 1, "bid": 1}}


def test_copies_follow_the_frames() -> None:
    """Fields, rows and events are merged into whole states."""
    follower = Follower(events_max=3)
    follower.take(SNAP)
    push = follower.take({"t": "upd", "ch": "quote:A", "prev": 1, "seq": 4, "ts": 2, "data": {"last": 2}})
    assert push is not None
    assert push.copy is not None
    assert push.copy.data == {"last": 2, "bid": 1}
    follower.take(
        {"t": "snap", "ch": "board:x", "epoch": "e", "seq": 1, "ts": 1, "data": {"order": ["A", "B"], "rows": {"A": 1, "B": 2}}}
    )
    follower.take(
        {"t": "rows", "ch": "board:x", "prev": 1, "seq": 2, "ts": 1, "set": {"C": 3}, "del": ["B"], "order": ["C", "A"]}
    )
    assert follower.copies["board:x"].data == {"order": ["C", "A"], "rows": {"C": 3, "A": 1}}
    follower.take({"t": "snap", "ch": "trades:A", "epoch": "e", "seq": 3, "ts": 1, "data": [1, 2, 3]})
    follower.take({"t": "lost", "ch": "trades:A", "n": 2})
    follower.take({"t": "event", "ch": "trades:A", "prev": 5, "seq": 6, "ts": 1, "data": 6})
    assert follower.copies["trades:A"].data == [2, 3, 6]
    assert follower.since(["quote:A", "trades:A", "no"]) == {
        "quote:A": {"epoch": "e", "seq": 4}, "trades:A": {"epoch": "e", "seq": 6},
    }  # fmt: skip


def test_a_broken_chain_shows_nothing_until_mended() -> None:
    """After a frame that does not continue the copy, only a snapshot is believed."""
    follower = Follower()
    follower.take(SNAP)
    assert follower.take({"t": "upd", "ch": "quote:A", "prev": 3, "seq": 4, "ts": 1, "data": {"last": 9}}) is None
    assert follower.broken == {"quote:A"}
    assert follower.since(["quote:A"]) == {}
    follower.mend({**SNAP, "seq": 4})
    assert follower.take({"t": "upd", "ch": "quote:A", "prev": 4, "seq": 5, "ts": 1, "data": {}}) is not None


def test_staleness_outlives_a_snap() -> None:
    """A status that came before the first snap marks it."""
    follower = Follower()
    follower.take({"t": "status", "ch": "quote:A", "state": "stale", "reason": "feed refused"})
    follower.take(SNAP)
    assert (follower.copies["quote:A"].state, follower.copies["quote:A"].reason) == ("stale", "feed refused")
    assert follower.take({"t": "hello"}) is None
