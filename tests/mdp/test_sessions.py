"""Times in, trading days and sessions out, also where clocks change."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest

from mdp.events import BadEvent
from mdp.sessions import DAY_MS, Calendar, Calendars

NEW_YORK = ZoneInfo("America/New_York")


def ms(text: str, zone: object = NEW_YORK) -> int:
    return round(datetime.fromisoformat(text).replace(tzinfo=zone).timestamp() * 1000)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("moment", "session"),
    [
        ("2026-11-20 00:00:00", "closed"),
        ("2026-11-20 03:59:59.999", "closed"),
        ("2026-11-20 04:00:00", "pre"),
        ("2026-11-20 09:29:59.999", "pre"),
        ("2026-11-20 09:30:00", "regular"),
        ("2026-11-20 15:59:59.999", "regular"),
        ("2026-11-20 16:00:00", "post"),
        ("2026-11-20 20:00:00", "closed"),
        ("2026-11-20 23:59:59.999", "closed"),
        ("2026-03-08 03:30:00", "closed"),  # the hour after the missing one
        ("2026-03-08 04:00:00", "pre"),
        ("2026-11-01 01:30:00", "closed"),  # the hour that comes twice
        ("2026-11-01 09:30:00", "regular"),
    ],
)
def test_sessions_follow_new_york(moment: str, session: str) -> None:
    """Bounds belong to the session that begins."""
    calendar = Calendar(continuous=False)
    calendar.move(ms(moment))
    assert calendar.session == session


@pytest.mark.parametrize(("day", "hours"), [("2026-11-20", 24), ("2026-03-08", 23), ("2026-11-01", 25)])
def test_days_have_the_length_of_new_yorks_days(day: str, hours: int) -> None:
    """From midnight to midnight, 23 to 25 hours; each minute of it is on the same day and before its next change."""
    start = ms(f"{day} 00:00:00")
    for minutes in range(0, hours * 60, 7):
        calendar = Calendar(continuous=False)
        ts = start + minutes * 60_000
        calendar.move(ts)
        assert calendar.day_start_ms == start
        assert ts < calendar.change_ms <= start + hours * 3_600_000
    assert calendar.change_ms == start + hours * 3_600_000
    assert calendar.move(calendar.change_ms) is True


def test_a_walk_through_a_week_changes_where_single_looks_do() -> None:
    """Moving only at `change_ms` sees the same sessions as asking anew each time."""
    walking = Calendar(continuous=False)
    ts, rolls = ms("2026-03-06 10:00:00"), 0
    for _ in range(7 * 24 * 4):
        if ts >= walking.change_ms:
            rolls += walking.move(ts)
        fresh = Calendar(continuous=False)
        fresh.move(ts)
        assert (walking.session, walking.day_start_ms) == (fresh.session, fresh.day_start_ms), datetime.fromtimestamp(
            ts / 1000, UTC
        )
        ts += 900_000
    assert rolls == 8


def test_other_markets_have_utc_days_and_one_session() -> None:
    """Crypto and forex roll at midnight UTC."""
    calendar = Calendar(continuous=True)
    assert calendar.move(ms("2026-11-20 23:59:59.999", UTC)) is True
    assert (calendar.session, calendar.change_ms) == ("continuous", ms("2026-11-21 00:00:00", UTC))
    assert calendar.move(calendar.change_ms) is True
    assert calendar.day_start_ms == ms("2026-11-21 00:00:00", UTC)


def test_calendars_come_back_from_their_cells() -> None:
    """A restored calendar stands where the old one stood, in its session, and only moves are written."""
    old, new = Calendars(), Calendars()
    ts = ms("2026-11-20 10:00:00")
    assert old.move(old.stocks, ts) is False  # the first day is no new day
    cells = list(old.cells())
    assert [name for name, _ in cells] == ["@stocks"]
    assert list(old.cells()) == []
    assert all(new.restore(name, body) for name, body in cells)
    assert not new.restore("AAPL", b"[]")
    assert (new.stocks.session, new.stocks.day_start_ms, new.stocks.change_ms) == (
        old.stocks.session, old.stocks.day_start_ms, old.stocks.change_ms,
    )  # fmt: skip
    assert list(new.cells()) == []
    new.rewrite()
    assert list(new.cells()) == cells
    assert new.move(new.stocks, ts + DAY_MS) is True


def test_a_time_that_cannot_be_is_refused() -> None:
    """More than a day ahead of the wall clock is a bad event; while the clock is not known nothing is judged."""
    calendars = Calendars()
    now = ms("2026-11-20 10:00:00")
    far = now + round(timedelta(days=1, seconds=1).total_seconds() * 1000)
    calendars.now_ms = now
    with pytest.raises(BadEvent, match="more than a day ahead"):
        calendars.move(calendars.always, far)
    assert calendars.always.day_start_ms == 0
    calendars.now_ms = 0
    assert calendars.move(calendars.always, far) is False
