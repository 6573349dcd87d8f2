"""Checks the pace of questions: the vendor's rate, growing pauses, a breaker, and rest after "too many"."""

from __future__ import annotations

from mdp.enrich.pace import LIMITED_S, OPEN_S, Pace


def test_questions_keep_to_the_rate() -> None:
    """A minute holds no more than the rate."""
    pace, now_s, asked = Pace(120), 0.0, 0
    while now_s < 60:
        if wait_s := pace.wait_s(now_s):
            now_s += wait_s
            continue
        pace.asked(now_s)
        pace.succeeded(now_s)
        asked += 1
    assert 119 <= asked <= 121


def test_a_service_that_is_away_is_asked_ever_less() -> None:
    """For a whole day: a probe every minute or so, and at once at full rate when it is back."""
    pace, now_s, asked = Pace(120), 0.0, 0
    while now_s < 86_400:
        if wait_s := pace.wait_s(now_s):
            now_s += wait_s
            continue
        pace.asked(now_s)
        pace.failed(now_s)
        asked += 1
    assert 1_000 < asked < 86_400 / OPEN_S
    now_s += pace.wait_s(now_s)
    while wait_s := pace.wait_s(now_s):
        now_s += wait_s
    pace.asked(now_s)
    pace.succeeded(now_s)
    assert pace.wait_s(now_s) == 0.5


def test_who_asks_too_often_rests() -> None:
    """A minute at the least."""
    pace = Pace(6_000)
    assert pace.wait_s(5.0) == 0
    pace.asked(5.0)
    pace.failed(5.0, limited=True)
    assert pace.wait_s(5.0) == LIMITED_S
