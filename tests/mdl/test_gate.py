"""Depth samples in, whether a lossless replay goes on out."""

from __future__ import annotations

from mdl.gate import BACKLOG_EVENTS_MIN, ReplayGate

A, B = ("trades", 0), ("quotes", 3)
S = 1_000_000_000


def test_nothing_passes_to_a_queue_nobody_was_seen_reading() -> None:
    """Each queue is proven by itself."""
    gate = ReplayGate()
    assert not gate.passes({A})
    gate.prove({A: 0, B: 1})
    assert gate.passes({A})
    assert not gate.passes({A, B})


def test_it_shuts_when_more_waits_than_is_taken_and_opens_when_all_is_empty() -> None:
    """A backlog of a tenth of a second is nothing, four tenths are the limit."""
    gate = ReplayGate()
    gate.prove({A: 0})
    gate.sample(0, 0, 0, 0)
    gate.sample(0, 50_000, 100, S)  # 50,000 events/s are taken
    gate.sample(39, 100_000, 200, S + 1)
    assert gate.open  # 19,500 events wait, less than 0.4 s
    gate.sample(41, 100_000, 200, S + 2)
    assert not gate.passes({A})
    gate.sample(1, 100_000, 200, S + 3)
    assert not gate.open
    gate.sample(0, 100_000, 200, S + 4)
    assert gate.passes({A})


def test_a_dead_reader_shuts_it_for_good() -> None:
    """Marks keep the queue from being empty while nobody reads."""
    gate = ReplayGate()
    gate.prove({A: 0})
    for second in range(5):
        gate.sample(second * 20, 10_000, 20, second * S)
    assert not gate.open
    assert gate.drained_s == 0
    gate.sample(5, 10_000, 20, 9 * S)  # the events have expired, the marks of the last 5 s have not
    assert not gate.open


def test_a_few_events_never_shut_it() -> None:
    """A quiet tape has small batches."""
    gate = ReplayGate()
    gate.prove({A: 0})
    gate.sample(BACKLOG_EVENTS_MIN, 100, 100, 0)
    assert gate.open


def test_when_the_queues_cannot_be_seen_readers_are_proven_again() -> None:
    """A restarted broker has empty queues whether or not somebody reads them."""
    gate = ReplayGate()
    gate.prove({A: 0})
    gate.shut()
    assert not gate.passes({A})
