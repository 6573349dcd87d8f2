"""Tests trading days and sessions of all markets, also where clocks change."""

from __future__ import annotations

from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import pytest

from mdp.sessions import ALWAYS, DAY_MS, FUTURES, STOCKS, Calendar, Calendars, Market, market_of

NEW_YORK, CHICAGO = ZoneInfo("America/New_York"), ZoneInfo("America/Chicago")


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
    calendar = Calendar("", STOCKS)
    calendar.move(ms(moment))
    assert calendar.session == session


@pytest.mark.parametrize(
    ("market", "opens", "zone", "hours"),
    [
        (STOCKS, "2026-11-20 04:00:00", NEW_YORK, 24),
        (STOCKS, "2026-03-07 04:00:00", NEW_YORK, 23),
        (STOCKS, "2026-10-31 04:00:00", NEW_YORK, 25),
        (FUTURES, "2026-11-19 17:00:00", CHICAGO, 24),
        (FUTURES, "2026-03-07 17:00:00", CHICAGO, 23),
        (ALWAYS, "2026-03-08 00:00:00", UTC, 24),
    ],
)
def test_a_day_lasts_from_opening_to_opening(market: Market, opens: str, zone: object, hours: int) -> None:
    """23 to 25 hours, whatever the clocks do; each minute of it is on the same day and before its next change."""
    start = ms(opens, zone)
    for minutes in range(0, hours * 60, 7):
        calendar = Calendar("", market)
        ts = start + minutes * 60_000
        calendar.move(ts)
        assert calendar.day_start_ms == start
        assert ts < calendar.change_ms <= start + hours * 3_600_000
    calendar.move(start + hours * 3_600_000 - 1)
    assert calendar.change_ms == start + hours * 3_600_000
    assert calendar.move(calendar.change_ms) is True


def test_a_walk_through_a_week_changes_where_single_looks_do() -> None:
    """Moving only at `change_ms` sees the same sessions as asking anew each time."""
    walking = Calendar("", STOCKS)
    ts, rolls = ms("2026-03-06 10:00:00"), 0
    for _ in range(7 * 24 * 4):
        if ts >= walking.change_ms:
            rolls += walking.move(ts)
        fresh = Calendar("", STOCKS)
        fresh.move(ts)
        assert (walking.session, walking.day_start_ms) == (fresh.session, fresh.day_start_ms), datetime.fromtimestamp(
            ts / 1000, UTC
        )
        ts += 900_000
    assert rolls == 7


@pytest.mark.parametrize(
    ("moment", "session"),
    [
        ("2026-11-22 16:59:59.999", "closed"),  # a Sunday
        ("2026-11-22 17:00:00", "regular"),
        ("2026-11-23 00:00:00", "regular"),
        ("2026-11-23 15:59:59.999", "regular"),
        ("2026-11-23 16:00:00", "closed"),
    ],
)
def test_futures_trade_from_the_evening_before(moment: str, session: str) -> None:
    """Chicago's day begins at 17:00: New York's midnight is in the middle of it and ends nothing."""
    calendar = Calendar("", FUTURES)
    calendar.move(ms(moment, CHICAGO))
    assert calendar.session == session


def test_the_last_session_lasts_until_the_next_one_opens() -> None:
    """Four closed days, and quotes before the opening, leave Thursday's day as it was; the opening on Tuesday ends it."""
    calendar = Calendar("", STOCKS)
    calendar.move(ms("2026-11-19 19:59:00"))
    thursday = calendar.day_start_ms
    assert calendar.move(ms("2026-11-20 03:59:00")) is False
    assert calendar.day_start_ms == thursday
    assert calendar.move(ms("2026-11-24 04:00:00")) is True
    assert calendar.day_start_ms == ms("2026-11-24 04:00:00")


@pytest.mark.parametrize(
    ("symbol", "market"),
    [("ESZ6", FUTURES), ("6EH27", FUTURES), ("ESZ6-ESH7", FUTURES), ("AAPL", STOCKS), ("BRK.B", STOCKS), ("F", STOCKS),
     ("O:SPY251219C00650000", STOCKS), ("I:SPX", STOCKS), ("BTC-PERP", STOCKS)],
)  # fmt: skip
def test_a_symbol_names_its_market(symbol: str, market: Market) -> None:
    """No ticker of a stock ends like a future's; what never closes says so."""
    assert market_of(symbol, False) is market
    assert market_of(symbol, True) is ALWAYS


def test_only_stocks_have_extended_hours() -> None:
    """The official values are made from 09:30 to 16:00; other markets make them all day."""
    stocks, futures = Calendar("", STOCKS), Calendar("", FUTURES)
    for calendar in (stocks, futures):
        calendar.move(ms("2026-11-20 12:00:00"))
    moments = ("2026-11-20 09:29:59.999", "2026-11-20 09:30:00", "2026-11-20 15:59:59.999", "2026-11-20 16:00:00")
    assert [stocks.extended(ms(moment)) for moment in moments] == [True, False, False, True]
    assert not any(futures.extended(ms(moment)) for moment in moments)


def test_calendars_come_back_from_their_cells() -> None:
    """A restored calendar stands where the old one stood, in its session, and only moves are written."""
    old, new = Calendars(), Calendars()
    old.source = "live"
    ts = ms("2026-11-20 10:00:00")
    calendar = old.join("AAPL", False)
    assert calendar.move(ts) is False  # the first day ends none
    cells = list(old.cells())
    assert [name for name, _ in cells] == ["@live|stocks"]
    assert list(old.cells()) == []
    assert all(new.restore(name, body) for name, body in cells)
    assert not new.restore("AAPL", b"[]")
    found = new.rejoin("AAPL", calendar.name)
    assert (found.session, found.day_start_ms, found.change_ms) == (calendar.session, calendar.day_start_ms, calendar.change_ms)
    assert list(new.cells()) == []
    new.rewrite()
    assert list(new.cells()) == cells
    assert found.move(ts + DAY_MS) is True


def test_each_source_has_its_own_time() -> None:
    """A tape of last year beside a live feed moves its own days, and only its own begin anew."""
    calendars = Calendars()
    calendars.source = "live"
    live = calendars.join("AAPL", False)
    calendars.source = "tape"
    tape = calendars.join("MSFT", False)
    live.move(ms("2026-11-20 10:00:00"))
    tape.move(ms("2025-11-20 10:00:00"))
    assert (calendars.of["AAPL"], calendars.of["MSFT"]) == (live, tape)
    calendars.restart("tape")
    assert (tape.day_start_ms, live.day_start_ms) == (0, ms("2026-11-20 04:00:00"))
    restored = Calendars()
    for name, body in calendars.cells():
        restored.restore(name, body)
    assert restored.rejoin("MSFT", tape.name).change_ms == 0
    calendars.leave("AAPL")
    assert (live.symbols, calendars.of.get("AAPL")) == (set(), None)
