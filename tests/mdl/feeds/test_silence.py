"""When a silent feed is a fault."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from mdl.feeds.silence import Silence


def at(text: str) -> int:
    return int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp() * 1e9)


ALL = ("T.*", "Q.*", "LULD.*")


@pytest.mark.parametrize(
    ("market", "topics", "utc", "fault"),
    [
        ("stocks", ALL, "2026-01-05T15:00:00", True),  # Monday 10:00
        ("stocks", ALL, "2026-01-05T10:00:00", True),  # 5:00: the whole market is never quiet
        ("stocks", ("T.NVDA",), "2026-01-05T10:00:00", False),  # one stock is
        ("stocks", ("T.NVDA",), "2026-01-05T15:00:00", True),
        ("stocks", ALL, "2026-01-05T08:00:00", False),
        ("stocks", ALL, "2026-01-04T15:00:00", False),  # Sunday
        ("stocks", ("LULD.*",), "2026-01-05T15:00:00", False),  # days may pass
        ("options", ("T.*",), "2026-01-05T10:00:00", False),
        ("options", ("T.*",), "2026-01-05T15:00:00", True),
        ("crypto", ("XT.*",), "2026-01-04T05:00:00", True),
        ("forex", ("C.*",), "2026-01-04T21:00:00", False),
        ("forex", ("C.*",), "2026-01-04T23:00:00", True),
        ("futures/cme", ("T.*",), "2026-01-06T22:30:00", False),  # the daily break
        ("futures/cme", ("T.*",), "2026-01-07T00:30:00", True),
    ],
)
def test_silence_is_a_fault_only_while_data_may_be_expected(market: str, topics: tuple[str, ...], utc: str, fault: bool) -> None:
    """By market, session and what was subscribed."""
    reason = Silence(market, topics, 30).reason(45, at(utc))
    assert reason == ("no data for 45 s while the market is open" if fault else "")


def test_the_opening_is_given_its_time() -> None:
    """A night's silence is no fault at 4:00:10, nor on the delayed feed before 4:15."""
    night_s = 8 * 3600.0
    live, delayed = Silence("stocks", ALL, 30), Silence("stocks", ALL, 30, delayed=True)
    assert not live.reason(night_s, at("2026-01-05T09:00:10"))
    assert live.reason(night_s, at("2026-01-05T09:00:31"))
    assert not delayed.reason(night_s, at("2026-01-05T09:15:10"))
    assert delayed.reason(night_s, at("2026-01-05T09:15:31"))


def test_minute_bars_are_given_a_minute_more() -> None:
    """They come once a minute; any quicker kind beside them sets the pace."""
    open_ns = at("2026-01-05T15:00:00")
    assert not Silence("stocks", ("AM.*",), 30).reason(80, open_ns)
    assert Silence("stocks", ("AM.*", "LULD.*"), 30).reason(91, open_ns)
    assert Silence("stocks", ("AM.*", "T.*"), 30).reason(31, open_ns)


def test_zero_never_judges() -> None:
    """And a silence below the limit is none."""
    open_ns = at("2026-01-05T15:00:00")
    assert not Silence("stocks", ALL, 0).reason(1e6, open_ns)
    assert not Silence("stocks", ALL, 30).reason(29, open_ns)
