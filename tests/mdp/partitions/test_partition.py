"""Tests that each event counts once, whatever is delivered again, lost, broken, misdated or handed over."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from mdp import roster
from mdp.analyzer import Analyzer
from mdp.partitions.counts import Counts
from mdp.partitions.partition import Partition
from mdp.partitions.reading import NewerCheckpoint
from mdq.batch import Batch
from tests.mdp.feed import START_MS, Desk, Dice, Event, bar, batch, book, quote, trade


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


def by_channel(log: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return sorted(log, key=lambda doc: (doc["ch"], doc["seq"]))


@pytest.mark.parametrize("seed", range(8))
def test_a_hand_over_changes_nothing(seed: int) -> None:
    """A new owner that knows only the checkpoint writes the same documents with the same numbers as one that stayed."""
    batches = random_batches(seed)
    stayed, moved = Desk(), Desk()
    dice = Dice(seed + 100).random
    for desk in (stayed, moved):
        desk.prompt = True
        desk.partition._time_handlers.clear()  # a new owner hears the feed's time a little later
    for n, made in enumerate(batches):
        for desk in (stayed, moved):
            desk.deliver(made)
        if dice.random() < 0.4:
            stayed.flush()
            moved.flush()
        if dice.random() < 0.15:
            stayed.flush()
            moved.hand_over()
            moved.partition._time_handlers.clear()
            for again in batches[max(0, n - 3) : n + 1]:
                moved.deliver(again, redelivered=True)
    first, second = stayed.flush(2_000), moved.flush(2_000)
    assert second.versions() == first.versions(), f"seed {seed}"
    assert by_channel(second.log) == by_channel(first.log)
    assert second.history == first.history
    assert second.shared == first.shared
    assert (counts(moved).events, counts(moved).dropped) == (counts(stayed).events, {})


@pytest.mark.parametrize("seed", range(4))
def test_a_new_cache_gets_everything(seed: int) -> None:
    """After `rewrite` every channel is there under the new epoch, with the data it had and its numbers going on."""
    desk = Desk()
    desk.prompt = True
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
    desk.deliver(Batch("s", 0, "trades", 3, "p1", 0, 4, 1, 1, START_MS * 1_000_000, body))
    cache = desk.flush()
    assert (cache.data("quote:A")["trades"], counts(desk).bad, counts(desk).events) == (2, 2, {"s/trades": 4})
    assert [(letter["stream"], letter["partition"]) for letter in cache.letters] == [("trades", 3)] * 2
    assert all(letter["reason"] and "T" in letter["event"] for letter in cache.letters)


@pytest.mark.parametrize(
    "event", [trade('A"'), quote('A"'), book('A"'), bar("AM", START_MS, 5, 'A"')], ids=lambda event: event["ev"]
)
def test_a_name_that_no_symbol_has_is_a_dead_letter(event: Event) -> None:
    """It gets no channel and no cell, whatever kind of event it comes in; its neighbours are taken."""
    desk = Desk()
    desk.deliver(batch([trade("B"), event, trade("C")], "trades", 0))
    cache = desk.flush()
    assert (counts(desk).bad, counts(desk).discarded) == (1, {"bad": 1})
    assert set(desk.partition.listing.marks) == {"B", "C"}
    assert not [key for key in cache.versions() if '"' in str(key)]


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
    assert (counts(desk).bad, counts(desk).discarded) == (1, {"failed": 1})
    assert "thirteen" in cache.letters[0]["reason"]


DAY_MS = 86_400_000
TOO_FAR = [
    (trade(p=987, t=START_MS + DAY_MS), "time_ahead", "86400 s ahead of the feed's clock"),
    (trade(p=987, t=START_MS + 60_001), "time_ahead", "60 s ahead"),
    (trade(p=987, t=4_102_444_800_000), "time_ahead", "ahead"),  # 2100
    (trade(p=987, t=0), "time_behind", "19676 days behind the feed's clock"),  # 1970
    (trade(p=987, t=START_MS - 8 * DAY_MS - 1), "time_behind", "8 days behind"),
    (quote(bp=987, t=START_MS + DAY_MS), "time_ahead", "ahead"),
    (bar("AM", START_MS + DAY_MS, 987), "time_ahead", "ahead"),
    (book(b=((987, 1),), t=START_MS + DAY_MS), "time_ahead", "ahead"),
    ({"ev": "V", "T": "A", "val": 987, "t": 0}, "time_behind", "behind"),
    ({"ev": "LULD", "T": "A", "h": 987, "l": 987, "t": START_MS + DAY_MS}, "time_ahead", "ahead"),
]


@pytest.mark.parametrize(("event", "why", "says"), TOO_FAR, ids=[f"{e['ev']} {says}" for e, _, says in TOO_FAR])
def test_a_time_that_cannot_be_is_a_dead_letter(event: Event, why: str, says: str) -> None:
    """It is judged by the feed's clock, counted by its reason, and moves no day: the other symbols keep their totals."""
    desk = Desk()
    desk.feed(trade("A", 10), trade("B", 20))
    desk.feed(event, feed_ms=START_MS)
    desk.feed(trade("A", 11), trade("B", 21), feed_ms=START_MS)
    cache = desk.flush()
    assert [cache.data(f"quote:{sym}")["trades"] for sym in "AB"] == [2, 2]
    assert b"987" not in b"".join(body for cell, body in cache.cells.items() if not cell.startswith(b"position"))
    assert (counts(desk).bad, counts(desk).discarded) == (1, {why: 1})
    [letter] = cache.letters
    assert says in letter["reason"]


def test_times_within_the_bounds_are_believed() -> None:
    """A venue's clock may be a minute ahead, a report eight days old; how far ahead is a setting."""
    desk = Desk()
    desk.feed(quote(bp=5, t=START_MS + 60_000), feed_ms=START_MS)
    desk.feed(quote("B", bp=6, t=START_MS - 8 * DAY_MS), feed_ms=START_MS)
    assert (desk.flush().data("quote:A")["bid"], desk.cache.data("quote:B")["bid"]) == (5, 6)
    strict = Partition(3, 1, "e1", roster.build(roster.ANALYZERS, {}, 5), time_ahead_ms=1_000)
    strict.on_batch(batch([quote(t=START_MS + 1_001), quote(t=START_MS + 1_000)], "quotes", 0, feed_ms=START_MS), False, 1)
    assert strict.counts.discarded == {"time_ahead": 1}


def test_an_aggregate_that_ends_next_year_is_a_bad_event() -> None:
    """Its end would be the newest time of its symbol, and freeze last."""
    desk = Desk()
    desk.feed({**bar("AM", START_MS, 10), "e": START_MS + 365 * DAY_MS}, bar("AM", START_MS, 11))
    assert (desk.flush().data("quote:A")["last"], counts(desk).discarded) == (11, {"bad": 1})


def test_every_trade_that_is_passed_over_is_counted() -> None:
    """By its reason: of a day that is over, or too late for its bar (of either width)."""
    desk = Desk()
    desk.feed(*[trade(p=10, t=START_MS + DAY_MS + 60_000 * n) for n in range(12)])
    desk.feed(trade(p=11, t=START_MS), feed_ms=START_MS + DAY_MS + 720_000)
    desk.flush()
    assert counts(desk).discarded == {"earlier_day": 1, "late_bar": 2}
    desk.hand_over()
    assert counts(desk).discarded == {"earlier_day": 1, "late_bar": 2}
    assert counts(desk).bad == 0


def everything(run_ms: int, price: float) -> list[Event]:
    """Return one event of each kind."""
    return [
        trade(p=price, t=run_ms), trade("X:BTC-USD", price, 1, run_ms, ev="XT"), quote(bp=price, t=run_ms),
        book(b=((price, 1),), t=run_ms), {"ev": "LULD", "T": "A", "h": price + 1, "l": price - 1, "t": run_ms},
    ]  # fmt: skip


def play(desk: Desk, run: int, source: str = "tape") -> None:
    """Play a tape of two days."""
    for n, price in ((0, 10), (DAY_MS, 12), (DAY_MS + 60_000, 11)):
        for event in everything(START_MS + n, price):
            desk.feed(event, run=run, source=source)
        desk.flush()


@pytest.mark.parametrize("handed_over", [False, True])
def test_the_second_round_of_a_tape_is_a_new_run(handed_over: bool) -> None:
    """Totals, bars, prints, books and halts of its symbols begin anew, the numbers go on; other sources are untouched."""
    desk, once = Desk(), Desk()
    play(once, 0)
    live = trade("LIVE", 7, t=START_MS + 5 * DAY_MS)
    desk.feed(live, source="live")
    play(desk, 0)
    before = desk.flush().versions()
    for event in everything(START_MS, 10):  # the tape is at its beginning: before what was shown
        desk.feed(event, run=1, source="tape")
        if handed_over:
            desk.hand_over()
    cache = desk.flush()
    assert [cache.data(f"quote:{sym}")["volume"] for sym in ("A", "X:BTC-USD")] == [100, 1]
    assert [e["price"] for e in cache.events("trades:A")] == [10]
    assert (cache.data("book:A")["bid"], cache.data("halts:A")["high_band"], cache.data("quote:A")["last"]) == (10, 11, 10)
    play(desk, 1)
    found = desk.flush()
    once_more = {ch: data for ch, (_, data) in once.flush().versions().items() if not ch.startswith("bars")}
    assert {ch: found.data(ch) for ch in once_more if "prev_close" not in once_more[ch]} == {
        ch: data for ch, data in once_more.items() if "prev_close" not in data
    }
    for sym in ("A", "X:BTC-USD"):
        quotes = found.data(f"quote:{sym}"), once.cache.data(f"quote:{sym}")
        assert [quotes[0][name] for name in ("last", "volume", "trades", "high", "low")] == [
            quotes[1][name] for name in ("last", "volume", "trades", "high", "low")
        ]
        assert [row[0] for row in found.history[f"bars:1m:{sym}"]] == [row[0] for row in once.cache.history[f"bars:1m:{sym}"]]
    assert all(found.documents[ch]["seq"] > seq for ch, (seq, _) in before.items() if "LIVE" not in ch)
    assert found.versions()["quote:LIVE"] == before["quote:LIVE"]
    assert counts(desk).discarded == {}


def test_the_end_of_a_run_in_a_slower_queue_is_past() -> None:
    """Trades are in the new run while aggregates of the old one still come: they would be the totals of the whole tape."""
    desk = Desk()
    desk.feed(trade(t=START_MS + DAY_MS))
    desk.feed(bar("A", START_MS, 10, av=1_000), run=0)
    desk.feed(trade(t=START_MS), run=1)
    desk.feed(bar("A", START_MS + DAY_MS, 10, av=9_999), run=0)
    desk.hand_over()
    desk.feed(bar("A", START_MS + DAY_MS, 10, av=9_999), run=0)
    desk.feed(bar("A", START_MS, 10, av=300), run=1)
    assert (desk.flush().data("quote:A")["volume"], counts(desk).discarded) == (300, {"earlier_run": 2})


def test_a_tape_beside_a_live_feed_has_a_time_of_its_own() -> None:
    """Events of last year are judged by their source's clock and are of no earlier day; neither moves the other's days."""
    desk = Desk()
    desk.feed(trade("LIVE", 10), source="live")
    for n in range(3):
        desk.feed(trade("TAPE", 20, t=START_MS - (365 - n) * DAY_MS), source="tape")
        desk.feed(trade("LIVE", 10, t=START_MS + n), source="live")
    desk.hand_over()
    cache = desk.flush()
    assert [cache.data(f"quote:{sym}")["volume"] for sym in ("LIVE", "TAPE")] == [400, 100]
    assert counts(desk).discarded == {}


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


def test_a_status_event_in_another_stream_is_a_bad_event() -> None:
    """It belongs nowhere there; the events around it count."""
    desk = Desk()
    desk.feed(trade(p=10), {"ev": "status", "t": 1, "state": "live"}, trade(p=11))
    assert desk.flush().data("quote:A")["trades"] == 2
    assert counts(desk).discarded == {"bad": 1}


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


def test_what_is_not_traded_any_more_is_forgotten_everywhere() -> None:
    """After eight silent days nothing of a symbol is left: no document, history, index entry, checkpoint cell, row of a board."""
    desk = Desk()
    for event in everything(START_MS, 10):
        desk.feed(event)
    desk.feed(trade(p=11, t=START_MS + 1_000))  # a second bar: there is a history
    desk.flush(1_000)
    assert any("A" in row for row in json.loads(desk.cache.shares["board:volume"]))
    for day in range(1, 10):
        desk.feed(trade("STAYS", 5, t=START_MS + day * DAY_MS))
        cache = desk.flush(1_000)
    assert counts(desk).forgotten == 2
    assert {ch.rpartition(":")[2] for ch in cache.documents} == {"STAYS"}
    assert {entry.rpartition("/")[2] for entry in cache.index} == {"STAYS"}
    assert all(channel.endswith(":STAYS") for channel in cache.history)
    cells = {cell for cell in cache.cells if b":A" in cell or b"BTC" in cell}
    assert cells == set()
    assert [row[1] for row in json.loads(cache.shares["board:volume"])] == ["STAYS"]
    desk.hand_over()
    assert set(desk.partition.listing.marks) == {"STAYS"}


@pytest.mark.parametrize("handed_over", [False, True])
def test_a_symbol_that_comes_back_repeats_no_number(handed_over: bool) -> None:
    """The mirror refuses a number that was given before; totals and bars begin anew."""
    desk = Desk()
    for n in range(7):
        desk.feed(trade(p=10, t=START_MS + n))
        desk.flush()
    desk.feed(trade("OTHER", 5, t=START_MS + 9 * DAY_MS))
    desk.flush()
    assert "quote:A" not in desk.cache.documents
    if handed_over:
        desk.hand_over()
    desk.feed(trade(p=20, t=START_MS + 9 * DAY_MS))
    cache = desk.flush()
    assert [cache.documents[f"{kind}:A"]["seq"] for kind in ("quote", "trades")] == [8, 8]
    assert (cache.data("quote:A")["volume"], cache.data("quote:A")["prev_close"]) == (100, None)


def test_documents_of_what_is_heard_live_on() -> None:
    """Once a day, also those that did not change: a symbol that is only quoted keeps its prints, bars and bands."""
    desk = Desk()
    for event in everything(START_MS, 10):
        desk.feed(event)
    desk.flush()
    for day in range(1, 30):
        desk.cache.kept.clear()
        desk.feed(quote(t=START_MS + day * DAY_MS))
        desk.feed(quote(t=START_MS + day * DAY_MS + 1))
        kept = desk.flush().kept
        wanted = [*(f"ch:{kind}:A" for kind in ("quote", "bars:1s", "bars:1m", "trades", "halts", "book"))]
        assert set(wanted) <= set(kept)
        assert len(kept) == len(set(kept))


def test_a_new_cache_knows_who_was_heard() -> None:
    """After `rewrite` the rule goes on: silent days are counted from when a symbol was really heard."""
    desk = Desk()
    desk.feed(trade("GONE"))
    desk.feed(trade("STAYS", t=START_MS + 5 * DAY_MS))
    desk.flush()
    desk.partition.rewrite(1, "e2")
    desk.flush()
    desk.partition = Partition(3, 9, "e2", roster.build(roster.ANALYZERS, {}, 500))
    desk.partition.restore(dict(desk.cache.cells))
    desk.feed(trade("STAYS", t=START_MS + 9 * DAY_MS))
    desk.flush()
    assert set(desk.partition.listing.marks) == {"STAYS"}


@pytest.mark.parametrize(
    "field", ["quote:A", "bars:1m:A", "bars:1m:A|closed", "trades:A", "range:A", "book:A", "halts:A", "quote:@s|stocks"]
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
    assert not any(one.fault for one in again.restore(dict(cache.cells), START_MS))


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


def test_a_document_written_later_names_the_new_source_too() -> None:
    """A quote of another connection moves the symbol; its next print comes flushes later."""
    desk = Desk()
    desk.deliver(replace(batch([trade("A")], "trades", 0), source="stocks"))
    desk.flush()
    desk.deliver(replace(batch([quote("A")], "quotes", 0), source="stocks-2"))
    desk.flush()
    desk.deliver(replace(batch([trade("A")], "trades", 0), source="stocks-2"))
    assert desk.flush().documents["trades:A"]["src"] == "stocks-2"


def test_a_replaced_publishers_batches_are_counted() -> None:
    """Fenced events are lost to us, so they are told, by source."""
    desk = Desk()
    desk.deliver(batch([trade()], "trades", 0, epoch="p2"))
    desk.deliver(batch([trade(), trade()], "trades", 5, epoch="p1"))
    desk.flush()
    assert (counts(desk).events, counts(desk).fenced) == ({"s/trades": 1}, {"s/trades": 2})
