"""Checks what is kept of answers, and for how long."""

from __future__ import annotations

from scp.reference.shelf import Shelf


def test_the_least_used_goes_when_there_is_no_room() -> None:
    """By weight; what is old stays while there is room; what is heavier than everything is not kept."""
    shelf = Shelf(10)
    for name in "abc":
        shelf.put(name, name, 0, 100, 3)
    assert shelf.get("a") is not None
    shelf.put("d", "d", 0, 100, 3)
    assert [shelf.get(name) is not None for name in "abcd"] == [True, False, True, True]
    shelf.put("a", "A", 5, 50, 10)
    assert len(shelf) == 1
    found = shelf.get("a")
    assert found is not None
    assert (found.value, found.fresh(49), found.fresh(50)) == ("A", True, False)
    shelf.put("a", "too much", 5, 50, 11)
    assert len(shelf) == 0
