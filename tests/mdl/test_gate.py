"""Checks when the processors' progress reports let a lossless replay go on."""

from __future__ import annotations

from mdl.gate import BACKLOG_EVENTS_MIN, FRESH_NS, OLDEST_NS, ReplayGate
from mdq.gaps import Position
from mdq.progress import Progress

A, B = ("trades", 0), ("quotes", 3)
S = 1_000_000_000


def report(*positions: tuple[str, int, int], partitions: tuple[int, ...] = (0, 3), epoch: str = "e") -> list[Progress]:
    return [Progress("w", list(partitions), [("s", stream, p, Position(epoch, seq)) for stream, p, seq in positions])]


def test_nothing_passes_to_a_partition_nobody_reads() -> None:
    """Each partition is heard of by itself, and forgotten when its reader falls silent."""
    gate = ReplayGate("s", "e")
    assert gate.unread({A, B}, 0) == {0, 3}
    gate.report(report(partitions=(0,)), 0)
    assert gate.passes({A}, 1)
    assert not gate.passes({A, B}, 1)
    assert gate.passes({A}, FRESH_NS)
    assert not gate.passes({A}, FRESH_NS + 1)


def test_it_shuts_while_too_much_is_under_way() -> None:
    """What is safe counts, not what was delivered."""
    gate = ReplayGate("s", "e")
    gate.report(report(), 0)
    gate.handed(A, BACKLOG_EVENTS_MIN - 1, 0)
    assert gate.passes({A, B}, 0)
    gate.handed(B, 1, 0)
    assert not gate.passes({A, B}, 0)
    gate.report(report(("trades", 0, 500)), 1)
    assert gate.under_way == BACKLOG_EVENTS_MIN - 500
    assert gate.passes({A, B}, 1)


def test_fast_processors_are_given_more() -> None:
    """Half a second of what they make safe may be under way."""
    gate = ReplayGate("s", "e")
    gate.report(report(), 0)
    gate.handed(A, 200_000, 0)
    gate.report(report(("trades", 0, 100_000)), S)
    assert gate.safe_s == 100_000
    assert not gate.passes({A}, S)
    gate.report(report(("trades", 0, 150_001)), S + 1)
    assert gate.passes({A}, S + 1)


def test_positions_of_another_epoch_or_of_the_past_do_not_count() -> None:
    """A worker that takes over begins at its checkpoint, which may lie behind what was reported before."""
    gate = ReplayGate("s", "e")
    gate.handed(A, 1000, 0)
    gate.report(report(("trades", 0, 900)), 0)
    gate.report(report(("trades", 0, 100)), 1)
    gate.report(report(("trades", 0, 5000), epoch="older"), 2)
    assert gate.under_way == 100


def test_a_new_source_hears_its_readers_first() -> None:
    """What the previous one heard may be long ago."""
    gate = ReplayGate("s", "e")
    gate.report(report(), 0)
    gate.forget()
    assert not gate.passes({A}, 0)


def test_one_starved_queue_shuts_the_gate() -> None:
    """However little it is, what has been under way for too long in one queue stops the source until it is safe."""
    gate = ReplayGate("s", "e")
    gate.report(report(), 0)
    gate.handed(A, 10, 0)
    gate.handed(B, 10, 0)
    gate.report(report(("trades", 0, 10)), OLDEST_NS)
    assert not gate.passes({A}, OLDEST_NS)
    gate.report(report(("quotes", 3, 10)), OLDEST_NS + 1)
    assert gate.passes({A}, OLDEST_NS + 1)
