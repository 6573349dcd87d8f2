"""Checks when a slow client is conflated, paused and closed, and when it is open again."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from wds.fanout.outbox import Ladder, Outbox, Step

S = 1_000_000_000
LADDER = Ladder(high_bytes=100, low_bytes=20, max_bytes=1000, pause_s=2, close_s=10)


def test_the_ladder_goes_conflate_pause_close() -> None:
    """Over the mark a client is conflated, after 2 s paused, after 10 s closed."""
    outbox = Outbox(LADDER)
    assert outbox.observe(100, 0) is Step.OPEN
    assert outbox.observe(101, S) is Step.CONFLATE
    assert outbox.observe(101, 2 * S) is Step.CONFLATE
    assert outbox.observe(50, 3 * S) is Step.PAUSE
    assert outbox.observe(50, 10 * S) is Step.PAUSE
    assert outbox.observe(50, 11 * S) is Step.CLOSE
    assert outbox.observe(0, 12 * S) is Step.CLOSE


def test_a_conflated_client_opens_at_the_low_mark_a_paused_one_when_empty() -> None:
    """A paused client must have swallowed everything, or it would swing."""
    outbox = Outbox(LADDER)
    outbox.observe(200, 0)
    assert outbox.observe(21, S) is Step.CONFLATE
    assert outbox.observe(20, S) is Step.OPEN
    outbox.observe(200, 2 * S)
    outbox.observe(200, 5 * S)
    assert outbox.observe(1, 5 * S) is Step.PAUSE
    assert outbox.observe(0, 5 * S) is Step.OPEN


def test_far_too_many_bytes_close_at_once() -> None:
    """Bytes alone end it, too."""
    assert Outbox(LADDER).observe(1001, 0) is Step.CLOSE


@given(st.lists(st.tuples(st.integers(0, 2000), st.integers(0, 3 * S)), max_size=40))
def test_close_is_final_and_open_means_little_buffered(moves: list[tuple[int, int]]) -> None:
    """Whatever happens: OPEN only with at most the high mark buffered, and CLOSE never ends."""
    outbox, now = Outbox(LADDER), 0
    for buffered, later in moves:
        now += later
        was = outbox.step
        step = outbox.observe(buffered, now)
        assert step is not Step.OPEN or buffered <= LADDER.high_bytes
        assert was is not Step.CLOSE or step is Step.CLOSE
