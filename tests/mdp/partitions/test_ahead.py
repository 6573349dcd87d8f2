"""Shows that watched symbols may leave alone between two whole flushes, and that nothing is doubled or lost over a crash."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from mdp import roster
from mdp.partitions.partition import Partition
from mdq.batch import Batch
from tests.mdp.feed import START_MS, WATCHABLE, Desk, Dice, batch, quote, trade, write_all
from tests.mdp.mirror import Mirror

DAY_MS = 86_400_000


def hurry(desk: Desk) -> Mirror:
    """Flush what is watched, everything if that may not leave alone."""
    desk.now_ms += 50
    partition = desk.partition
    if desk.prompt:
        write_all(partition)
    made = partition.collect_watched(desk.now_ms) if partition.hurries else partition.collect(desk.now_ms)
    desk.cache.apply(made, partition.flush_number)
    return desk.cache


def crash(desk: Desk) -> None:
    """Go on with a new owner that knows the checkpoint as it is."""
    desk.partition = Partition(3, 2, desk.partition.epoch, roster.build(roster.ANALYZERS, {}, 500))
    desk.partition.restore(dict(desk.cache.cells), desk.now_ms)


@pytest.mark.parametrize("seed", range(12))
def test_crashes_between_whole_flushes_change_no_number(seed: int) -> None:
    """Whoever is watched and whenever the owner dies: every total, bar and print is that of one that wrote everything at once."""
    dice, seqs, made = Dice(seed, [f"S{n}" for n in range(6)]), {"trades": 0, "quotes": 0}, []
    for run in dice.batches([dice.event(pause_ms=150) for _ in range(300)]):
        stream = "trades" if run[0]["ev"] == "T" else "quotes"
        made.append(batch(run, stream, seqs[stream]))
        seqs[stream] += len(run)
    plain, desk = Desk(prompt=True), Desk(prompt=True)
    for n, one in enumerate(made):
        plain.deliver(one)
        desk.deliver(one)
        chance = dice.random.random()
        if chance < 0.4:
            hurry(desk)
        elif chance < 0.5:
            desk.flush()
        elif chance < 0.6:
            crash(desk)
            for again in made[: n + 1]:
                desk.deliver(again, redelivered=True)
        kinds = dice.random.sample(WATCHABLE, dice.random.randint(1, len(WATCHABLE)))
        desk.watch(*dice.random.sample(dice.symbols, dice.random.randint(0, 4)), kinds=kinds)
    expected, found = plain.flush(2_000), desk.flush(2_000)
    assert found.documents.keys() == expected.documents.keys()
    for channel, doc in expected.documents.items():
        if not channel.startswith(("bars:", "status")):
            assert found.data(channel) == doc["data"], f"seed {seed} {channel}"
        if channel.startswith("trades:"):
            assert found.events(channel) == expected.events(channel), f"seed {seed} {channel}"
            assert found.documents[channel]["seq"] == doc["seq"]
    assert found.history == expected.history
    assert desk.partition.counts.events == plain.partition.counts.events


def test_only_what_is_watched_leaves_in_between() -> None:
    """With all its cells; the position stays."""
    desk = Desk()
    desk.feed(trade("A"), trade("B"))
    desk.flush()
    position = desk.cache.cells[b"position:s/trades"]
    desk.watch("A")
    desk.feed(trade("A"), trade("B"))
    cache = hurry(desk)
    assert (cache.data("quote:A")["trades"], cache.data("quote:B")["trades"]) == (2, 1)
    assert cache.cells[b"position:s/trades"] == position
    assert desk.flush().data("quote:B")["trades"] == 2
    assert cache.cells[b"ahead"] == b""


def test_documents_that_nobody_looks_at_wait() -> None:
    """They wait for the whole flush, or for somebody who looks; their cells do not, so that nothing is lost."""
    desk = Desk()
    desk.feed(trade("A"), trade("B"))
    desk.flush()
    desk.watch("A", kinds=["quote"])
    desk.feed(trade("A"))
    cache = hurry(desk)
    assert (cache.data("quote:A")["trades"], cache.data("bars:1s:A")["trades"], cache.data("bars:1d:A")["trades"]) == (2, 1, 1)
    desk.watch("A", kinds=["bars:1s", "bars:1d"])
    assert (hurry(desk).data("bars:1s:A")["trades"], cache.data("bars:1m:A")["trades"], cache.data("bars:1d:A")["trades"]) == (
        2,
        1,
        2,
    )
    desk.watch()
    assert (desk.flush().data("bars:1m:A")["trades"], cache.data("bars:5m:A")["trades"]) == (2, 2)


def test_a_document_that_waited_is_written_after_a_crash() -> None:
    """Also when nothing happens to its symbol any more: the new owner has the cell, and the events do not count again."""
    desk = Desk()
    desk.feed(trade("A"), trade("B"))
    desk.flush()
    desk.watch("A", kinds=["trades"])
    made = batch([trade("A")], "trades", 2)
    desk.deliver(made)
    cache = hurry(desk)
    assert (cache.data("quote:A")["trades"], len(cache.events("trades:A"))) == (1, 2)
    crash(desk)
    desk.deliver(made, redelivered=True)
    cache = desk.flush(11_000)  # so long may the wide bars of what nobody looks at take
    for channel in ("quote:A", "bars:1s:A", "bars:1m:A", "bars:5m:A", "bars:1d:A"):
        assert cache.data(channel)["trades"] == 2, channel


def test_an_alert_does_not_wait_for_a_watcher() -> None:
    """A new high leaves at once, with its symbol; after a crash it is not told again."""
    desk = Desk()
    desk.feed(trade("A"), trade("B"))
    desk.flush()
    assert not desk.partition.pressing
    made = batch([trade("A"), trade("B", p=11)], "trades", 2)
    desk.deliver(made)
    assert desk.partition.pressing
    cache = hurry(desk)
    assert (cache.data("quote:A")["trades"], cache.data("quote:B")["trades"]) == (1, 1)  # nobody looks at them
    assert [(alert["sym"], alert["quote"]["trades"]) for _, _, alert in cache.shared] == [("B", 2)]
    crash(desk)
    desk.deliver(made, redelivered=True)
    cache = desk.flush(2_000)
    assert (cache.data("quote:A")["trades"], cache.data("quote:B")["trades"]) == (2, 2)
    assert len(cache.shared) == 1


def test_nothing_watched_that_changed_makes_no_flush() -> None:
    """A change of others costs the cache nothing until their flush is due."""
    desk = Desk()
    desk.feed(trade("A"), trade("B"))
    desk.flush()
    desk.watch("A")
    desk.feed(trade("B"))
    assert desk.partition.collect_watched(START_MS) is None


def test_what_concerns_all_symbols_needs_a_whole_flush() -> None:
    """A new day, a bad event, a late bar and a new cache: the watched ones do not leave alone then."""
    desk = Desk()
    desk.feed(trade("A"))
    assert not desk.partition.hurries  # the first event moved the calendar
    desk.flush()
    assert desk.partition.hurries
    desk.deliver(Batch("s", 0, "quotes", 3, "p1", 0, 1, 1, 1, 1, json.dumps([{"ev": "Q"}]).encode()))
    assert not desk.partition.hurries
    desk.flush()
    desk.now_ms += DAY_MS
    desk.feed(trade("A", t=START_MS + DAY_MS))
    assert not desk.partition.hurries
    desk.flush()
    desk.feed(trade("A", t=START_MS))
    assert desk.partition.hurries  # nobody watches it
    desk.watch("A")
    assert not desk.partition.hurries
    desk.flush()
    desk.partition.rewrite(2, "e2")
    assert not desk.partition.hurries


def test_who_is_ahead_is_known_over_a_new_cache_too() -> None:
    """A predecessor's symbols stay ahead until the positions have caught up, whatever is rewritten meanwhile."""
    desk = Desk()
    desk.feed(trade("A"))
    desk.flush()
    desk.watch("A")
    made = batch([trade("A", p=11), trade("B", p=12)], "trades", 1)
    desk.deliver(made)
    hurry(desk)
    crash(desk)
    desk.partition.rewrite(3, "e2")
    desk.flush()
    crash(desk)
    desk.deliver(made, redelivered=True)
    cache = desk.flush()
    assert (cache.data("quote:A")["trades"], cache.data("quote:B")["trades"]) == (2, 1)
    assert cache.cells[b"ahead"] == b""


def test_a_predecessors_lead_is_forgotten_when_nothing_can_come_again() -> None:
    """Its batches have expired: half a minute later the watched ones leave alone again."""
    desk = Desk()
    desk.feed(trade("A"))
    desk.flush()
    desk.watch("A")
    desk.feed(trade("A"))
    hurry(desk)
    crash(desk)
    desk.feed(quote("A"))
    desk.flush()
    assert not desk.partition.hurries
    desk.feed(quote("A"))
    desk.flush(31_000)
    assert desk.partition.hurries


def test_another_tenure_of_the_source_counts_anew() -> None:
    """Places of one epoch say nothing of a newer one's events; of an older one's, that they were had if they come again."""
    desk = Desk()
    desk.feed(trade("A"))
    desk.flush()
    desk.watch("A")
    old = batch([trade("A")], "trades", 1)
    new = replace(batch([trade("A")], "trades", 0), epoch="p2")
    desk.deliver(old)
    desk.deliver(new)
    hurry(desk)
    crash(desk)
    for again in (old, new):
        desk.deliver(again, redelivered=True)
    desk.deliver(replace(batch([trade("A")], "trades", 0), epoch="p3"))
    assert desk.flush().data("quote:A")["trades"] == 4
