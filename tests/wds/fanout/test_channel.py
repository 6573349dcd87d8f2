"""Checks a channel's state over the orders in which its snapshots and documents can cross."""

from __future__ import annotations

import json
from typing import Any

from msgspec import Raw

from mdc.channels import kind_of
from mdc.documents import Doc, Snapshot
from wds.fanout.channel import EVENTS_MAX, Channel, Moved


def channel(name: str) -> Channel:
    return Channel(name, kind_of(name))


def doc(name: str, seq: int, data: Any, epoch: str = "e") -> Doc:
    return Doc(name, epoch, seq, seq, Raw(json.dumps(data).encode()))


def snapshot(name: str, seq: int, data: Any, epoch: str = "e") -> Snapshot:
    return Snapshot(name, epoch, seq, seq, json.dumps(data).encode())


def test_documents_the_snapshot_holds_are_dropped() -> None:
    """What came while the snapshot was read is applied only when it is newer."""
    quote = channel("quote:A")
    assert quote.apply(doc("quote:A", 4, {"last": 4})) is Moved.NO
    assert quote.install(snapshot("quote:A", 5, {"last": 5}))
    assert (quote.seq, quote.state) == (5, {"last": Raw(b"5")})
    assert quote.apply(doc("quote:A", 5, {"last": 0})) is Moved.NO
    assert quote.apply(doc("quote:A", 6, {"last": 6})) is Moved.YES


def test_another_epoch_between_asks_for_a_second_read() -> None:
    """A snapshot of an older life of the cache than the documents is not trusted; the second one is."""
    quote = channel("quote:A")
    quote.apply(doc("quote:A", 1, {"last": 1}, "new"))
    assert not quote.install(snapshot("quote:A", 90, {"last": 90}, "old"))
    assert quote.install(snapshot("quote:A", 1, {"last": 1}, "new"))
    assert (quote.epoch, quote.seq, quote.life) == ("new", 1, 1)


def test_events_before_a_gap_are_read_again() -> None:
    """A jump in an event channel holds documents back until the list was read; what it lacks stays missing."""
    trades = channel("trades:A")
    trades.install(snapshot("trades:A", 2, [1, 2]))
    assert trades.apply(doc("trades:A", 5, 5)) is Moved.GAP
    assert not trades.warm
    assert trades.apply(doc("trades:A", 6, 6)) is Moved.NO
    assert trades.install(snapshot("trades:A", 5, [4, 5]))
    assert [entry.seq for entry in trades.log] == [1, 2, 4, 5, 6]
    assert [entry.seq for entry in trades.since(2, 6)] == [4, 5, 6]


def test_a_client_recovers_only_over_a_whole_chain() -> None:
    """Resuming needs the same epoch, a seq that was given out, and for events every one after it."""
    trades = channel("trades:A")
    trades.install(snapshot("trades:A", 9, [7, 8, 9]))
    assert trades.recovers("e", 6)
    assert trades.recovers("e", 9)
    assert not trades.recovers("e", 5)
    assert not trades.recovers("e", 10)
    assert not trades.recovers("f", 9)
    assert not channel("trades:B").recovers("", 0)


def test_a_cache_that_went_back_in_time_begins_a_new_life() -> None:
    """A lower seq in the same epoch breaks the chain, and clients of before cannot resume by seq."""
    quote = channel("quote:A")
    quote.install(snapshot("quote:A", 9, {"last": 9}))
    quote.reopen()
    quote.install(snapshot("quote:A", 7, {"last": 7}))
    assert (quote.seq, quote.life, quote.shown_epoch) == (7, 2, "e~")
    assert not quote.recovers("e", 7)


def test_history_is_kept_apart_from_the_state() -> None:
    """Closed bars in a snapshot are not part of what documents update."""
    bars = channel("bars:1m:A")
    bars.install(snapshot("bars:1m:A", 1, {"close": 1, "history": [[1], [2]]}))
    assert bars.state == {"close": Raw(b"1")}
    assert bytes(bars.history or b"") == b"[[1], [2]]"


def test_events_are_bounded() -> None:
    """The log keeps the newest events only."""
    trades = channel("trades:A")
    trades.install(None)
    for seq in range(1, EVENTS_MAX + 50):
        trades.apply(doc("trades:A", seq, seq))
    assert len(trades.log) == EVENTS_MAX
    assert trades.log[-1].seq == EVENTS_MAX + 49


def test_the_same_seq_with_other_content_begins_a_new_life() -> None:
    """A cache restored from an older copy counts anew: what it says under a known seq is believed, as a new life."""
    quote, trades = channel("quote:A"), channel("trades:A")
    quote.install(snapshot("quote:A", 9, {"last": 9}))
    trades.install(snapshot("trades:A", 3, [1, 2, 3]))
    for one in (quote, trades):
        one.reopen()
    quote.install(snapshot("quote:A", 9, {"last": 1}))
    trades.install(snapshot("trades:A", 3, [1, 7, 8]))
    assert (quote.life, quote.state) == (2, {"last": Raw(b"1")})
    assert (trades.life, [bytes(entry.data) for entry in trades.log]) == (2, [b"1", b"7", b"8"])
