"""Checks whose word counts for a symbol's trading day: the operator's file, then the vendor's facts of that very day."""

from __future__ import annotations

from mdp.days.calendar import Calendars
from mdp.enrich.facts import DAYS_MAX, Facts
from mdp.reference import Known

DAY_MS = 86_400_000


def calendar_of(symbol: str = "A", ts: int = 1_700_000_000_000, continuous: bool = False):  # type: ignore[no-untyped-def]
    calendars = Calendars()
    calendars.source = "s"
    found = calendars.join(symbol, continuous)
    found.move(ts)
    return found


def test_the_file_overrides_field_by_field() -> None:
    """What it leaves empty the vendor may say; of another day than its own only what lasts counts."""
    facts, calendar = Facts({"A": Known(10.0, 500)}), calendar_of()
    facts.learn(calendar.day_start_ms, {"A": Known(9.0, 400, 1_000, 8.0), "B": Known(1.0)})
    assert facts.known("A", calendar, given=True) == Known(10.0, 500, 1_000, 8.0)
    assert facts.known("A", calendar, given=False) == Known(9.0, 500, 1_000, 8.0)
    assert facts.known("B", calendar, given=True) == Known(1.0)
    assert facts.known("C", calendar, given=True) is None


def test_facts_of_another_day_or_market_are_none() -> None:
    """Never yesterday's close today, and no stock's facts for a coin of the same name."""
    facts, calendar, coin = Facts({}), calendar_of(), calendar_of("A", continuous=True)
    facts.learn(calendar.day_start_ms - DAY_MS, {"A": Known(9.0)})
    facts.learn(coin.day_start_ms, {"A": Known(9.0)})
    assert facts.known("A", calendar, given=False) is None
    assert facts.known("A", coin, given=False) is None
    assert facts.seen("A", calendar) is None


def test_days_are_bounded() -> None:
    """The day that was told first makes room."""
    facts, calendar = Facts({}), calendar_of()
    facts.learn(calendar.day_start_ms, {"A": Known(9.0)})
    for number in range(1, DAYS_MAX + 1):
        facts.learn(calendar.day_start_ms + number, {"A": Known(8.0)})
    assert facts.known("A", calendar, given=False) is None
