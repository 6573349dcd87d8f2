"""Tests where the round of a looping tape ends."""

from __future__ import annotations

from mdp.partitions.runs import SOURCES_MAX, Runs, Turn


def test_a_higher_run_is_new_and_a_lower_one_past() -> None:
    """Each change is told once; what comes of the earlier run afterwards is past."""
    runs = Runs()
    assert [runs.turn("s", "e1", run) for run in (0, 0, 1, 1, 0, 2)] == [
        Turn.SAME, Turn.SAME, Turn.NEW, Turn.SAME, Turn.PAST, Turn.NEW,
    ]  # fmt: skip


def test_a_standby_that_takes_over_begins_no_run() -> None:
    """The epoch changes and the run does not: also what the old one sent last is of this run."""
    runs = Runs()
    assert [runs.turn("s", epoch, 0) for epoch in ("e1", "e2", "e1", "e2")] == [Turn.SAME] * 4


def test_a_restarted_listener_begins_its_tape_anew() -> None:
    """Its runs count from 0 again, in a newer epoch."""
    runs = Runs()
    assert [runs.turn("s", *at) for at in (("e1", 3), ("e2", 0), ("e1", 3), ("e2", 0), ("e2", 1))] == [
        Turn.SAME, Turn.NEW, Turn.PAST, Turn.SAME, Turn.NEW,
    ]  # fmt: skip


def test_runs_survive_a_hand_over() -> None:
    """A new owner knows in which run each source is."""
    runs, restored = Runs(), Runs()
    runs.turn("s", "e1", 4)
    runs.turn("other", "e9", 0)
    restored.restore(runs.cell())
    assert [restored.turn("s", "e1", run) for run in (3, 4, 5)] == [Turn.PAST, Turn.SAME, Turn.NEW]
    assert restored.turn("other", "e9", 1) is Turn.NEW


def test_sources_are_bounded() -> None:
    """The one that came first is forgotten."""
    runs = Runs()
    for n in range(SOURCES_MAX + 1):
        runs.turn(f"s{n}", "e", 5)
    assert (runs.turn("s0", "e", 6), runs.turn("s5", "e", 6)) == (Turn.SAME, Turn.NEW)
