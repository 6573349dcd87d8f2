"""A tape's clock, also of tapes whose lines have impossible times."""

from __future__ import annotations

import pytest

from mdl.tapes.clock import LINES_AHEAD, TapeClock

S = 1_000_000_000
DAY = 86_400 * S
START = 1_700_000_000 * S


def lines(*seconds: int | None) -> list[int | None]:
    return [None if s is None else START + s * S for s in seconds]


def test_the_clock_follows_the_lines() -> None:
    """Lines without a time have their predecessor's; a line slightly out of order does not turn the clock back."""
    assert TapeClock().read(lines(None, 0, 5, None, 3, 6)) == lines(None, 0, 5, 5, 5, 6)


@pytest.mark.parametrize("place", [0, 1, 20])
def test_a_line_far_ahead_is_not_believed(place: int) -> None:
    """One trade stamped a day ahead does not move the clock, wherever it stands."""
    times = lines(*range(40))
    times.insert(place, START + DAY)
    clock = TapeClock().read(times)
    assert max(time for time in clock if time is not None) == START + 39 * S
    assert clock[place] is not None


def test_a_night_between_two_lines_is_believed() -> None:
    """A tape of several days, a pause of a weekend: what follows agrees."""
    times = lines(*range(10)) + [START + 3 * DAY + n * S for n in range(10)]
    assert TapeClock().read(times) == times


def test_a_tape_that_goes_back_is_followed() -> None:
    """The next file of a folder is of an earlier day."""
    times = lines(*range(100)) + [START - DAY + n * S for n in range(LINES_AHEAD)]
    assert TapeClock().read(times)[100:] == times[100:]


def test_a_wrong_time_at_the_end_of_a_chunk_heals() -> None:
    """With nothing behind it to judge by it is believed, and taken back by the next lines."""
    clock = TapeClock()
    clock.read([*lines(*range(5)), START + DAY])
    assert clock.read(lines(*range(6, 20))) == lines(*range(6, 20))
