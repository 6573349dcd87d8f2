"""Batches in, flushes out: each event once, whatever is delivered again, lost, broken or handed over."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from mdp import roster
from mdp.analyzer import Analyzer
from mdp.partition import Counts, NewerCheckpoint, Partition
from mdq.batch import Batch
from tests.mdp.feed import START_MS, Desk, Dice, batch, book, quote, trade


def counts(desk: Desk) -> Counts:
    return desk.partition.counts


def random_batches(seed: int, many: int = 40) -> list[Batch]:
    """Return batches of all streams with their true sequence numbers."""
    dice, seqs, made = Dice(seed), {"trades": 0, "quotes": 0}, []
    events = [dice.event(pause_ms=(200, 30_000)[seed % 2]) for _ in range(many * 4)]
    for run in dice.batches(events):
        stream = "trades" if run[0]["ev"] in ("T", "XT") else "quotes"
        made.append(batch(run, stream, seqs[stream]))
        seqs[stream] += len(run)
    return made


@pytest.mark.parametrize("seed", range(8))
def test_a_hand_over_changes_nothing(seed: int) -> None:
    """A new owner that knows only the checkpoint writes the same documents with the same numbers as one that stayed."""
    batches = random_batches(seed)
    stayed, moved = Desk(), Desk()
    dice = Dice(seed + 100).random
    for n, made in enumerate(batches):
        for desk in (stayed, moved):
            desk.deliver(made)
        if dice.random() < 0.4:
            stayed.flush()
            moved.flush()
        if dice.random() < 0.15:
            stayed.flush()
            moved.hand_over()
            for again in batches[max(0, n - 3) : n + 1]:
                moved.deliver(again, redelivered=True)
    first, second = stayed.flush(2_000), moved.flush(2_000)
    assert second.versions() == first.versions(), f"seed {seed}"
    assert second.log == first.log
    assert second.history == first.history
    assert second.shared == first.shared
    assert (counts(moved).events, counts(moved).dropped) == (counts(stayed).events, {})


@pytest.mark.parametrize("seed", range(4))
def test_a_new_cache_gets_everything(seed: int) -> None:
    """After `rewrite` every channel is there under the new epoch, with the data it had and its numbers going on."""
    desk = Desk()
    for made in random_batches(seed):
        desk.deliver(made)
        desk.flush()
    old = desk.cache
    before, cells = old.versions(), dict(old.cells)
    desk.partition.rewrite(9, "e2")
    old.log.clear()
    new = desk.flush()
    assert {doc["epoch"] for doc in new.log} == {"e2"}
    assert {doc["ch"] for doc in new.log} == before.keys()
    for channel, (seq, data) in before.items():
        assert new.data(channel) == data, f"seed {seed} {channel}"
        assert new.documents[channel]["seq"] > seq
    assert new.index >= {
        f"idx:{channel.rpartition(':')[0]}/{channel.rpartition(':')[2]}" for channel in before if "X:" not in channel
    }
    rewritten = {field for field in cells if field not in (b"flush", b"life")}
    assert rewritten <= new.cells.keys()
    assert new.cells[b"life"] == b"e2"
    desk.partition = Partition(3, 9, "e2", roster.build(roster.ANALYZERS, {}, 500))
    desk.partition.restore(dict(new.cells))
    desk.feed(quote("A", t=START_MS))  # and from there it goes on
    desk.flush()


def test_delivered_again_is_skipped() -> None:
    """A batch at or below the position changes nothing and is counted."""
    desk = Desk()
    made = batch([trade(p=10), trade(p=11)], "trades", 0)
    desk.deliver(made)
    desk.deliver(made, redelivered=True)
    assert desk.flush().data("quote:A")["trades"] == 2
    assert (counts(desk).events, counts(desk).redelivered) == ({"s/trades": 2}, 2)


def test_of_a_batch_that_overlaps_only_the_rest_is_taken() -> None:
    """Batches cut elsewhere the second time are taken from the first new event on."""
    desk = Desk()
    events = [trade(p=p) for p in (10, 11, 12, 13)]
    desk.deliver(batch(events[:2], "trades", 0))
    desk.deliver(batch(events, "trades", 0), redelivered=True)
    cache = desk.flush()
    assert [e["price"] for e in cache.events("trades:A")] == [10, 11, 12, 13]
    assert (counts(desk).events, counts(desk).redelivered, counts(desk).dropped) == ({"s/trades": 4}, 2, {})


def test_gaps_are_counted_in_events() -> None:
    """What is missing between two batches, and before a mark, is counted per stream: expired when old, else dropped."""
    desk = Desk()
    now_ns = START_MS * 1_000_000
    for seq, sent_ns in ((0, now_ns - 9_000_000_000), (7, now_ns), (12, now_ns)):
        desk.deliver(replace(batch([trade()], "trades", seq), sent_ns=sent_ns))
    desk.deliver(replace(batch([], "trades", 20), sent_ns=now_ns))
    desk.flush()
    assert (counts(desk).events, counts(desk).expired, counts(desk).dropped) == (
        {"s/trades": 3},
        {"s/trades": 6},
        {"s/trades": 4 + 7},
    )
    assert json.loads(desk.cache.shares["counts"])["dropped"] == {"s/trades": 11}


def test_a_restarted_publisher_counts_from_zero() -> None:
    """Another epoch of the publisher is another count; nothing of it is taken for old."""
    desk = Desk()
    desk.deliver(batch([trade(p=10)] * 5, "trades", 0, "p1"))
    desk.deliver(batch([trade(p=11)] * 2, "trades", 0, "p2"))
    desk.deliver(batch([trade(p=12)], "trades", 5, "p1"))  # of the one that was replaced
    assert desk.flush().data("quote:A")["trades"] == 7


def test_bad_events_are_kept_and_their_batch_goes_on() -> None:
    """Counted, with reason and sample in the dead letters; the good ones around them count."""
    desk = Desk()
    body = json.dumps([trade(p=10), {**trade(), "p": -1}, {"ev": "T"}, trade(p=11)]).encode()
    desk.deliver(Batch("s", 0, "trades", 3, "p1", 0, 4, 1, 1, 1, body))
    cache = desk.flush()
    assert (cache.data("quote:A")["trades"], counts(desk).bad, counts(desk).events) == (2, 2, {"s/trades": 4})
    assert [(letter["stream"], letter["partition"]) for letter in cache.letters] == [("trades", 3)] * 2
    assert all(letter["reason"] and "T" in letter["event"] for letter in cache.letters)


def test_a_defect_of_an_analyzer_costs_one_event() -> None:
    """An exception that nobody foresaw is told as a bad event; the batch and the partition go on."""

    class Fragile(Analyzer):
        def on_trade(self, trade: Any, rule: int, volume: int, notional: int) -> None:
            if trade.price == 13:
                raise ZeroDivisionError("thirteen")

    desk = Desk([*roster.build(("quote",), {}, 5), Fragile()])
    desk.feed(*[trade(p=p) for p in (12, 13, 14)])
    cache = desk.flush()
    assert cache.data("quote:A")["last"] == 14
    assert counts(desk).bad == 1
    assert "thirteen" in cache.letters[0]["reason"]


def test_a_letter_is_a_sample_of_bounded_length() -> None:
    """A megabyte of garbage leaves 500 bytes in the list."""
    desk = Desk()
    desk.partition.on_malformed(b"\xff" * 1_000_000, "no headers")
    cache = desk.flush()
    assert len(cache.letters[0]["event"]) == 500
    assert json.loads(cache.shares["counts"])["malformed_batches"] == 1


def test_unknown_types_are_counted_by_name_and_shown_once() -> None:
    """The first of each type is a dead letter; more types than fit are counted together."""
    desk = Desk()
    events = [{"ev": f"Z{n % 70}"} for n in range(140)]
    desk.deliver(batch(events, "unknown", 0))
    cache = desk.flush()
    assert counts(desk).unknown["Z0"] == 2
    assert counts(desk).unknown["(other)"] == 40
    assert len(cache.letters) == 51
    assert counts(desk).events == {"s/unknown": 140}


@pytest.mark.parametrize(
    "body", [b'[{"ev":"status","state":"live"}', b"[5]", b'[{"ev":"status","a":"\xff"}]', b"[[]]", b"nonsense"]
)
def test_a_broken_status_changes_nothing(body: bytes) -> None:
    """The last good status stays; the next good one is taken."""
    desk = Desk()
    desk.deliver(batch([{"ev": "status", "state": "live", "t": 1}], "status", 0))
    desk.deliver(Batch("s", 0, "status", 3, "p1", 1, 1, 1, 1, 1, body))
    assert desk.partition.listeners["s"] == {"ev": "status", "state": "live", "t": 1}
    desk.deliver(batch([{"ev": "status", "state": "ended", "t": 2}], "status", 2))
    assert desk.partition.listeners["s"]["state"] == "ended"


def test_a_status_event_in_another_stream_is_passed_over() -> None:
    """It belongs nowhere there, and hurts nobody."""
    desk = Desk()
    desk.feed(trade(p=10), {"ev": "status", "t": 1, "state": "live"}, trade(p=11))
    assert desk.flush().data("quote:A")["trades"] == 2
    assert counts(desk).bad == 0


def test_nothing_new_makes_no_flush() -> None:
    """An idle partition costs the cache nothing; marks alone neither."""
    desk = Desk()
    desk.feed(trade())
    assert desk.partition.collect(START_MS) is not None
    desk.deliver(batch([], "trades", 1))
    assert desk.partition.collect(START_MS + 10_000) is None


def test_the_age_of_a_flush_is_that_of_its_oldest_event() -> None:
    """Lag is told of the event that waited longest."""
    desk = Desk()
    for seq, first_ns in ((0, 700), (1, 300), (2, 900)):
        desk.deliver(replace(batch([trade()], "trades", seq), first_ns=first_ns))
    assert desk.partition.oldest_ns == {"s": 300}


def test_counts_survive_a_hand_over() -> None:
    """Losses and bad events of earlier owners are not forgotten."""
    desk = Desk()
    desk.deliver(batch([trade(), {"ev": "T"}], "trades", 0))
    desk.deliver(batch([trade()], "trades", 5))
    before = counts(desk)
    desk.hand_over()
    assert counts(desk) == before
    assert counts(desk) is not before
    assert (counts(desk).bad, counts(desk).expired) == (1, {"s/trades": 3})


def test_cells_of_analyzers_that_are_not_run_are_passed_over() -> None:
    """A worker with fewer analyzers continues what it runs, from the same checkpoint."""
    desk = Desk()
    desk.feed(trade(), quote("bars:1m"))
    desk.flush()
    lean = Partition(3, 2, "e1", roster.build(("trades",), {}, 5))
    lean.restore(dict(desk.cache.cells))
    lean.on_batch(batch([trade()], "trades", 2), False, START_MS * 1_000_000)
    flush = lean.collect(START_MS)
    assert flush is not None
    [doc] = [json.loads(body) for body in flush.channel_writer("trades")[1::2]]
    assert doc["seq"] == 2


@pytest.mark.parametrize(
    "field", ["quote:A", "bars:1m:A", "bars:1m:A|closed", "trades:A", "range:A", "book:A", "halts:A", "quote:@stocks"]
)
@pytest.mark.parametrize("value", [b"garbage", b"[1,2", b"\xff", b"{}"])
def test_an_unreadable_cell_is_set_aside_and_only_its_symbol_begins_anew(field: str, value: bytes) -> None:
    """It is counted, kept with its time among the dead letters, and not met again by the next owner."""
    desk = Desk()
    bands = {"ev": "LULD", "T": "A", "h": 11, "l": 9, "i": [], "z": 1, "t": START_MS, "q": 1}
    for minute in range(2):
        at = START_MS + minute * 60_000
        desk.feed(trade("A", t=at), trade("B", t=at))
        desk.feed(book("A", t=at), book("B", t=at))
    desk.feed(bands)
    desk.flush()
    analyzer, symbol = field.rpartition(":")[0], field.rpartition(":")[2].partition("|")[0]
    desk.cache.cells[field.encode()] = value
    desk.partition = Partition(3, 2, "e1", roster.build(roster.ANALYZERS, {}, 500))
    bad = desk.partition.restore(dict(desk.cache.cells), START_MS)
    [one] = bad
    assert (one.analyzer, one.symbol, value in one.value) == (analyzer, symbol, True)
    known = desk.cache.documents.get(f"{analyzer}:{symbol}")
    desk.partition.resume(analyzer, symbol, known["seq"] if known else 0)
    later = START_MS + 120_000
    desk.feed(trade("A", t=later), trade("B", t=later))
    letters = len(desk.cache.letters)
    cache = desk.flush()
    assert cache.data("quote:B")["trades"] == 3
    assert counts(desk).unreadable_cells == 1
    [letter] = cache.letters[letters:]
    assert (letter["stream"], letter["ts"]) == ("checkpoint", START_MS)
    assert field.partition("|")[0] in letter["reason"]
    again = Partition(3, 3, "e1", roster.build(roster.ANALYZERS, {}, 500))
    assert again.restore(dict(cache.cells), START_MS) == []


def test_a_channel_whose_cell_was_unreadable_goes_on_behind_its_last_document() -> None:
    """No sequence number of it is given twice."""
    desk = Desk()
    desk.feed(trade("A"))
    desk.flush()
    desk.cache.cells[b"quote:A"] = b"garbage"
    desk.partition = Partition(3, 2, "e1", roster.build(roster.ANALYZERS, {}, 500))
    desk.partition.restore(dict(desk.cache.cells))
    desk.partition.resume("quote", "A", 1)
    desk.feed(trade("A"))
    assert desk.flush().documents["quote:A"]["seq"] == 2


def test_a_checkpoint_of_a_newer_version_is_refused_whole() -> None:
    """It says which versions; nothing of it is overwritten."""
    with pytest.raises(NewerCheckpoint, match="has version 99, this worker reads 2"):
        Partition(3, 2, "e1", []).restore({b"version": b"99", b"quote:A": b"?"})


def test_a_checkpoint_of_version_one_is_read_but_for_its_positions() -> None:
    """It knew no sources; its totals go on."""
    desk = Desk()
    desk.feed(trade("A"))
    desk.flush()
    cells = {key: value for key, value in desk.cache.cells.items() if key != b"version" and not key.startswith(b"position:")}
    cells[b"position:trades"] = b'{"epoch":"p0","seq":7,"sent_ns":0}'
    new = Partition(3, 2, "e1", roster.build(roster.ANALYZERS, {}, 500))
    assert new.restore(cells) == []
    assert new.positions() == []


def test_a_document_names_the_source_that_spoke_of_its_symbol_last() -> None:
    """Over a hand-over, and when another connection takes the symbol over."""
    desk = Desk()
    desk.deliver(replace(batch([trade("A"), trade("B")], "trades", 0), source="stocks"))
    assert desk.flush().documents["quote:A"]["src"] == "stocks"
    desk.hand_over()
    desk.partition.rewrite(3, "e2")
    assert desk.flush().documents["trades:B"]["src"] == "stocks"
    desk.deliver(replace(batch([trade("A")], "trades", 0), source="stocks-2"))
    documents = desk.flush().documents
    assert (documents["quote:A"]["src"], documents["quote:B"]["src"]) == ("stocks-2", "stocks")


def test_a_replaced_publishers_batches_are_counted() -> None:
    """Fenced events are lost to us, so they are told, by source."""
    desk = Desk()
    desk.deliver(batch([trade()], "trades", 0, epoch="p2"))
    desk.deliver(batch([trade(), trade()], "trades", 5, epoch="p1"))
    desk.flush()
    assert (counts(desk).events, counts(desk).fenced) == ({"s/trades": 1}, {"s/trades": 2})
