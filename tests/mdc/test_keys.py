"""Checks that no two things in the cache share a key."""

from __future__ import annotations

from mdc import keys


def test_keys_of_different_things_never_meet() -> None:
    """No two things share a key, whatever they are called."""
    names = ["quote:A", "bars:1m:A", "0", "board:volume"]
    made = [keys.EPOCH, keys.PARTITIONS, keys.DEAD_LETTERS, keys.checkpoint(0)]
    made += [make(name) for name in names for make in (keys.document, keys.history, keys.index, keys.parts)]
    assert len(set(made)) == len(made)
    assert keys.document("quote:A") == "ch:quote:A"
