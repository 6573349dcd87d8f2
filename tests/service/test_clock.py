"""Checks that a manual clock moves only by hand, and that the system's clock reads nanoseconds."""

from __future__ import annotations

from service.clock import ManualClock, SystemClock


def test_a_manual_clock_moves_only_by_hand() -> None:
    """Both readings advance by the same nanoseconds."""
    clock = ManualClock(wall_ns=1_000)
    clock.advance(250)
    assert (clock.wall_ns(), clock.mono_ns()) == (1_250, 250)


def test_the_system_clock_reads_nanoseconds() -> None:
    """The wall clock is later than 2023 and the monotonic one does not go back."""
    clock = SystemClock()
    first = clock.mono_ns()
    assert clock.wall_ns() > 1_700_000_000_000_000_000
    assert clock.mono_ns() >= first
