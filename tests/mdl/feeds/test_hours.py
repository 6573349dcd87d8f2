"""The hours of each market, in New York's time."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from mdl.feeds.hours import Session, market_open, session_of


def at(text: str) -> int:
    return int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp() * 1e9)


@pytest.mark.parametrize(
    ("market", "utc", "is_open"),
    [
        ("stocks", "2026-01-05T09:00:00", True),  # 4:00
        ("stocks", "2026-01-05T08:59:00", False),
        ("stocks", "2026-01-06T00:59:00", True),  # 19:59
        ("stocks", "2026-01-06T01:00:00", False),
        ("stocks", "2026-01-04T15:00:00", False),  # Sunday
        ("options", "2026-07-01T08:00:00", True),  # 4:00 in summer
        ("forex", "2026-01-04T22:00:00", True),  # Sunday 17:00
        ("forex", "2026-01-04T21:59:00", False),
        ("forex", "2026-01-09T22:00:00", False),  # Friday 17:00
        ("futures", "2026-01-06T22:30:00", False),  # the daily break
        ("futures/cme", "2026-01-06T23:00:00", True),
        ("crypto", "2026-01-04T08:00:00", True),
        ("stocks", "2026-11-26T15:00:00", False),  # Thanksgiving
        ("options", "2026-11-27T21:59:00", True),  # the short day after it, 16:59
        ("stocks", "2026-11-27T22:00:00", False),
        ("futures", "2023-12-25T22:59:00", False),  # Christmas, until 17:00 in Chicago
        ("futures", "2023-12-25T23:00:00", True),
    ],
)
def test_each_market_has_its_hours(market: str, utc: str, is_open: bool) -> None:
    """New York's time, extended hours included; holidays and short days too."""
    assert market_open(market, at(utc)) is is_open


@pytest.mark.parametrize(
    ("market", "utc", "session"),
    [
        ("stocks", "2026-01-05T14:29:00", "extended"),  # 9:29
        ("stocks", "2026-01-05T14:30:00", "regular"),
        ("options", "2026-01-05T20:59:00", "regular"),
        ("indices", "2026-01-05T21:00:00", "extended"),  # 16:00
        ("stocks", "2026-11-27T18:00:00", "extended"),  # a short day, 13:00
        ("stocks", "2026-01-06T02:00:00", "closed"),
        ("crypto", "2026-01-03T02:00:00", "regular"),
        ("forex", "2026-01-03T02:00:00", "closed"),  # Friday 21:00
        ("futures", "2026-01-05T23:30:00", "regular"),
    ],
)
def test_the_regular_session_is_told_from_extended_hours(market: str, utc: str, session: Session) -> None:
    """Markets without extended hours are in regular session whenever they are open."""
    assert session_of(market, at(utc)) == session
