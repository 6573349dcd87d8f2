"""Makes the tables of holidays again from the package they come from."""

from __future__ import annotations

from datetime import date, timedelta

import exchange_calendars
import pytest

from service.days import holidays


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore:Series.values")
@pytest.mark.parametrize(
    ("name", "closed", "short", "ends"),
    [("XNYS", holidays.STOCKS_CLOSED, holidays.STOCKS_SHORT, "13:00"), ("CMES", holidays.FUTURES_CLOSED, holidays.FUTURES_SHORT, "12:00")],
)  # fmt: skip
def test_the_tables_are_those_of_exchange_calendars(
    name: str, closed: frozenset[date], short: frozenset[date], ends: str
) -> None:
    """Every weekday without a session, and every early close, whose hour is the one that the market says."""
    first, last = date(holidays.FIRST_YEAR, 1, 1), date(holidays.LAST_YEAR, 12, 31)
    found = exchange_calendars.get_calendar(name, start=str(first), end=str(last))
    sessions = {session.date() for session in found.sessions}
    weekdays = {day for n in range((last - first).days + 1) if (day := first + timedelta(days=n)).weekday() < 5}
    assert closed == weekdays - sessions
    assert short == {session.date() for session in found.early_closes}
    closes = found.schedule.loc[found.early_closes, "close"].dt.tz_convert(found.tz)
    assert {moment.strftime("%H:%M") for moment in closes} == {ends}
