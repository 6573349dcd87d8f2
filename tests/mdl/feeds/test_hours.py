"""The hours of each market, in New York's time."""

from __future__ import annotations

from datetime import UTC, datetime
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mdl.feeds.hours import Session, eastern, market_open, session_of
from tests.mdl.calm import calm


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
    ],
)
def test_each_market_has_its_hours(market: str, utc: str, is_open: bool) -> None:
    """New York's time, extended hours included."""
    assert market_open(market, at(utc)) is is_open


@calm
@given(st.datetimes(datetime(2008, 1, 1), datetime(2060, 1, 1)))
def test_new_york_time_agrees_with_the_time_zone_database(moment: datetime) -> None:
    """Our own rule, because images often carry no database."""
    try:
        zone = ZoneInfo("America/New_York")
    except ZoneInfoNotFoundError:
        pytest.skip("no time-zone database on this machine")
    utc = moment.replace(tzinfo=UTC, microsecond=0)
    local = eastern(int(utc.timestamp()) * 1_000_000_000)
    assert local.replace(tzinfo=None) == utc.astimezone(zone).replace(tzinfo=None)


@pytest.mark.parametrize(
    ("market", "utc", "session"),
    [
        ("stocks", "2026-01-05T14:29:00", "extended"),  # 9:29
        ("stocks", "2026-01-05T14:30:00", "regular"),
        ("options", "2026-01-05T20:59:00", "regular"),
        ("indices", "2026-01-05T21:00:00", "extended"),  # 16:00
        ("stocks", "2026-01-06T02:00:00", "closed"),
        ("crypto", "2026-01-03T02:00:00", "regular"),
        ("forex", "2026-01-03T02:00:00", "closed"),  # Friday 21:00
        ("futures", "2026-01-05T23:30:00", "regular"),
    ],
)
def test_the_regular_session_is_told_from_extended_hours(market: str, utc: str, session: Session) -> None:
    """Markets without extended hours are in regular session whenever they are open."""
    assert session_of(market, at(utc)) == session
