"""Tests that an outlet numbers the documents of its channels."""

from __future__ import annotations

import gc
import json
import weakref
from typing import Any

from mdc.writer import Flush
from mdp.analyzer import Outlet
from tests.mdp.feed import START_MS, Desk, quote, trade


def documents(flush: Flush, kind: str = "quote") -> list[dict[str, Any]]:
    return [json.loads(body) for body in flush.channel_writer(kind)[1::2]]


def test_each_channel_counts_for_itself() -> None:
    """Sequence numbers grow by one a document and channel, and go on in the next flush."""
    outlet = Outlet("quote")
    for first in (1, 3):
        flush = Flush(0, "e1")
        write = outlet.begin(flush)
        for symbol in ("A", "B", "A", "B"):
            write(symbol, 7, b'{"x":1}')
        found = documents(flush)
        assert [(d["ch"], d["seq"]) for d in found] == [
            ("quote:A", first), ("quote:B", first), ("quote:A", first + 1), ("quote:B", first + 1),
        ]  # fmt: skip
        assert all(d["epoch"] == "e1" and d["ts"] == 7 and d["data"] == {"x": 1} for d in found)
        assert flush.channel_writer("quote")[::2] == ["ch:quote:A", "ch:quote:B"] * 2
    assert (outlet.seq("A"), outlet.seq("NONE")) == (4, 0)


def test_a_new_epoch_keeps_the_numbers() -> None:
    """After the cache was emptied, documents carry its new epoch and the sequence goes on."""
    outlet = Outlet("quote")
    outlet.begin(Flush(0, "e1"))("A", 1, b"1")
    outlet.restore("B", 41)
    flush = Flush(0, "e2")
    write = outlet.begin(flush)
    for symbol in "ABC":
        write(symbol, 1, b"1")
    assert [(d["epoch"], d["seq"]) for d in documents(flush)] == [("e2", 2), ("e2", 42), ("e2", 1)]


def test_a_channel_is_announced_once_and_again_when_asked() -> None:
    """New channels join the index; a new cache hears of all of them."""
    outlet = Outlet("quote")
    first, second, third = (Flush(0, "e1") for _ in range(3))
    outlet.begin(first)("A", 1, b"1")
    outlet.begin(second)("A", 1, b"1")
    outlet.announce = True
    outlet.begin(third)
    assert [flush._index for flush in (first, second, third)] == [["idx:quote", "A"], [], ["idx:quote", "A"]]


def test_a_forgotten_channel_never_repeats_a_number() -> None:
    """It is deleted with its history and left out of the index; above the floor its numbers are new ones."""
    outlet, flush = Outlet("bars:1m"), Flush(0, "e1")
    write = outlet.begin(flush)
    for _ in range(3):
        write("A", 1, b"{}")
    last = Flush(0, "e1")
    assert (outlet.forget("A", last), outlet.forget("A", last), outlet.forget("NONE", last)) == (3, 0, 0)
    assert (last._removed, last._removed_channels) == (["ch:bars:1m:A", "hist:bars:1m:A"], ["idx:bars:1m", "A"])
    assert outlet.stored("A") == []
    outlet.floor = 3
    again = Flush(0, "e1")
    outlet.begin(again)("A", 1, b"{}")
    assert [doc["seq"] for doc in documents(again, "bars:1m")] == [4]
    assert again._index == ["idx:bars:1m", "A"]


def test_nobody_holds_on_to_a_flush_that_was_made() -> None:
    """A flush of a market's opening is large: once it is applied, no outlet keeps it, however seldom it writes."""
    desk = Desk()
    desk.feed(trade("A"), quote("A"), {"ev": "LULD", "T": "A", "h": 11, "l": 9, "i": [17], "t": START_MS})
    flush = desk.partition.collect(desk.now_ms)
    assert flush is not None
    alive = weakref.ref(flush)
    del flush
    gc.collect()
    assert alive() is None
