"""Checks how often the simulator's feed gives a frame."""

from __future__ import annotations

import pytest

from mdl.feeds.simulator import tick_s


@pytest.mark.parametrize(("events_s", "seconds"), [(0, 0.02), (50, 0.02), (4_000, 0.01), (20_000, 0.004), (1_000_000, 0.004)])
def test_a_slow_market_comes_in_fewer_frames(events_s: float, seconds: float) -> None:
    """Forty events a frame, at least 50 and at most 250 frames a second."""
    assert tick_s(events_s) == pytest.approx(seconds)
