"""Checks how long a batch stays open at the rates of quiet, usual and busy markets."""

from __future__ import annotations

import pytest

from mdq.linger import LEARN_NS, WORTH_EVENTS, Linger

LEAST_NS, MOST_NS = 5_000_000, 20_000_000


def settle(events_s: float, linger: Linger, now_ns: int = 0) -> float:
    """Run a lane of that rate for three seconds from `now_ns`; return how many events its batches hold in the end."""
    events, end_ns = 1.0, now_ns + 15 * LEARN_NS
    while now_ns < end_ns:
        events = 1 + events_s * linger.ns / 1e9
        now_ns += linger.ns + int(1e9 / events_s)
        linger.closed(round(events), now_ns)
    return events


def test_a_batch_stays_open_until_it_is_worth_its_message() -> None:
    """At 2,000 events/s a lane 12 ms bring together what 5 ms would send in two and a half messages."""
    linger = Linger(LEAST_NS, MOST_NS)
    assert settle(2_000, linger) == pytest.approx(WORTH_EVENTS, rel=0.1)
    assert LEAST_NS < linger.ns < MOST_NS


@pytest.mark.parametrize(("events_s", "linger_ns"), [(20, LEAST_NS), (500, MOST_NS), (50_000, LEAST_NS)])
def test_the_linger_has_its_bounds(events_s: float, linger_ns: int) -> None:
    """Who is alone does not wait for company, who is few waits no longer than the most, who is many leaves at once."""
    linger = Linger(LEAST_NS, MOST_NS)
    settle(events_s, linger)
    assert linger.ns == linger_ns


def test_the_linger_follows_the_rate() -> None:
    """When the market calms down or bursts, the next second's batches stay open as suits it."""
    linger = Linger(LEAST_NS, MOST_NS)
    rates = ((500, MOST_NS), (20, LEAST_NS), (500, MOST_NS), (50_000, LEAST_NS))
    for number, (events_s, expected_ns) in enumerate(rates):
        settle(events_s, linger, 20 * LEARN_NS * number)
        assert linger.ns == expected_ns


def test_without_room_between_the_bounds_nothing_is_learned() -> None:
    """A least linger above the most is the linger."""
    linger = Linger(60 * MOST_NS, MOST_NS)
    settle(2_000, linger)
    assert linger.ns == 60 * MOST_NS
