"""The pauses between two connections."""

from __future__ import annotations

from datetime import UTC, datetime

from hypothesis import given
from hypothesis import strategies as st

from mdl.feeds.reconnect import CLOSED_MOST_S, MOST_S, Reconnect
from tests.mdl.calm import calm


def at(text: str) -> int:
    return int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp() * 1e9)


OPEN = at("2026-01-05T15:00:00")  # Monday 10:00 in New York
NIGHT = at("2026-01-05T03:00:00")


def test_pauses_grow_to_a_cap_and_are_fully_jittered() -> None:
    """The dice decide between nothing and the ceiling."""
    policy = Reconnect("stocks")
    assert [policy.lost(0, OPEN, 1.0) for _ in range(9)] == [0.5, 1, 2, 4, 8, 16, 30, 30, 30]
    assert policy.lost(0, OPEN, 0.0) == 0


def test_a_connection_that_does_not_last_does_not_reset_the_backoff() -> None:
    """The vendor lets us in before it says max_connections."""
    policy = Reconnect("stocks")
    for _ in range(5):
        policy.connected(0)
        pause_s = policy.lost(1, OPEN, 1.0)
    assert pause_s == 8
    policy.connected(100)
    assert policy.lost(161, OPEN, 1.0) == 0.5


def test_a_closed_market_is_asked_less_often() -> None:
    """But crypto never closes."""
    assert Reconnect("stocks").lost(0, NIGHT, 1.0) == 5
    assert Reconnect("crypto").lost(0, NIGHT, 1.0) == 0.5


@calm
@given(st.sampled_from(["stocks", "crypto", "forex", "futures/cme"]), st.integers(0, 300), st.integers(0, 2**61), st.floats(0, 1))
def test_no_pause_is_longer_than_the_cap(market: str, attempts: int, wall_ns: int, dice: float) -> None:
    """Also after hundreds of failures."""
    policy = Reconnect(market)
    policy.attempt = attempts
    assert 0 <= policy.lost(0, wall_ns, dice) <= max(MOST_S, CLOSED_MOST_S)
