"""Tests trading days and sessions of all markets, where clocks change, on holidays and short days."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import pytest

from mdp.days.calendar import Calendar, Calendars
from service.days.markets import ALWAYS, FOREX, FUTURES, STOCKS, Market
from tests.mdp.feed import Desk, Event, bar, batch, quote, trade

NEW_YORK, CHICAGO = ZoneInfo("America/New_York"), ZoneInfo("America/Chicago")


def ms(text: str, zone: object = NEW_YORK) -> int:
    return round(datetime.fromisoformat(text).replace(tzinfo=zone).timestamp() * 1000)  # type: ignore[arg-type]


OPENS = ms("2026-11-20 09:30:00")


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
        ("2026-03-08 04:00:00", "closed"),  # a Sunday
        ("2026-03-09 04:00:00", "pre"),  # the clocks have changed
        ("2026-11-27 12:59:59.999", "regular"),  # a short day
        ("2026-11-27 13:00:00", "post"),
        ("2026-11-27 17:00:00", "closed"),
        ("2026-11-26 12:00:00", "closed"),  # a holiday
        ("2026-11-01 01:30:00", "closed"),  # the hour that comes twice
        ("2026-11-02 09:30:00", "regular"),
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
        (STOCKS, "2026-11-19 04:00:00", NEW_YORK, 24),
        (STOCKS, "2026-03-06 04:00:00", NEW_YORK, 71),  # a Friday; on Sunday an hour is missing
        (STOCKS, "2026-10-30 04:00:00", NEW_YORK, 73),
        (STOCKS, "2026-11-25 04:00:00", NEW_YORK, 48),  # Thanksgiving follows
        (FUTURES, "2026-11-18 17:00:00", CHICAGO, 24),
        (FUTURES, "2026-03-05 17:00:00", CHICAGO, 71),
        (FUTURES, "2023-12-21 17:00:00", CHICAGO, 96),  # Friday's day lasts over Christmas, to Monday evening
        (FOREX, "2026-11-19 17:00:00", NEW_YORK, 72),
        (ALWAYS, "2026-03-08 00:00:00", UTC, 24),
    ],
)
def test_a_day_lasts_from_opening_to_opening(market: Market, opens: str, zone: object, hours: int) -> None:
    """Over nights, weekends and holidays, whatever the clocks do; each minute of it is before its next change."""
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


@pytest.mark.parametrize("week", ["2026-03-06 10:00:00", "2026-10-30 10:00:00", "2026-11-24 10:00:00", "2026-12-23 10:00:00"])
@pytest.mark.parametrize("market", [STOCKS, FUTURES, FOREX, ALWAYS], ids=lambda market: market.name)
def test_a_walk_through_a_week_changes_where_single_looks_do(market: Market, week: str) -> None:
    """Moving only at `change_ms` sees the same sessions as asking anew each time."""
    walking = Calendar("", market)
    ts = ms(week)
    for _ in range(8 * 24 * 4):
        if ts >= walking.change_ms:
            walking.move(ts)
        fresh = Calendar("", market)
        fresh.move(ts)
        assert (walking.session, walking.day_start_ms) == (fresh.session, fresh.day_start_ms), datetime.fromtimestamp(
            ts / 1000, UTC
        )
        ts += 900_000


@pytest.mark.parametrize(
    ("moment", "session"),
    [
        ("2026-11-22 16:59:59.999", "closed"),  # a Sunday
        ("2026-11-22 17:00:00", "regular"),
        ("2026-11-23 00:00:00", "regular"),
        ("2026-11-23 15:59:59.999", "regular"),
        ("2026-11-23 16:00:00", "closed"),
        ("2026-11-26 11:59:59.999", "regular"),  # Thanksgiving: a short day
        ("2026-11-26 12:00:00", "closed"),
        ("2023-12-25 12:00:00", "closed"),  # Christmas
        ("2023-12-25 17:00:00", "regular"),
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
    calendar.move(ms("2026-04-02 19:59:00"))  # Good Friday follows
    thursday = calendar.day_start_ms
    assert calendar.change_ms == ms("2026-04-02 20:00:00")
    for moment in ("2026-04-03 12:00:00", "2026-04-05 12:00:00", "2026-04-06 03:59:59"):
        assert calendar.move(ms(moment)) is False
        assert (calendar.day_start_ms, calendar.session) == (thursday, "closed")
    assert calendar.change_ms == ms("2026-04-06 04:00:00")
    assert calendar.move(ms("2026-04-06 04:00:00")) is True
    assert calendar.day_start_ms == ms("2026-04-06 04:00:00")


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
    assert found.move(ms("2026-11-23 10:00:00")) is True


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


def test_a_session_is_due_when_its_source_has_reached_its_end() -> None:
    """Of that source alone, and not before a first event has said where its day stands."""
    calendars = Calendars()
    for source in ("live", "tape"):
        calendars.source = source
        calendars.join(f"{source}-A", False).move(ms("2026-11-20 15:59:00"))
    calendars.source = "live"
    crypto = calendars.join("BTC-USD", True)
    assert calendars.due("live", ms("2026-11-20 15:59:59")) == []
    assert [calendar.name for calendar in calendars.due("live", ms("2026-11-20 16:00:00"))] == ["live|stocks"]
    crypto.move(ms("2026-11-20 15:59:00"))
    assert len(calendars.due("live", ms("2026-11-20 19:00:00"))) == 2
    assert calendars.due("other", ms("2027-11-20 19:00:00")) == []


@pytest.mark.parametrize(
    "first",
    [
        trade("ANCH1", t=OPENS) | {"z": 3},
        quote("ANCH1", t=OPENS) | {"z": 3},
        bar("A", OPENS, 10, "ANCH1", av=5),
    ],
    ids=lambda event: str(event["ev"]),
)
def test_a_stock_whose_ticker_looks_like_a_futures_is_a_stock(first: Event) -> None:
    """A tape, or the day's volume in an aggregate, are of stocks alone, also in a feed of several markets."""
    desk = Desk()
    desk.feed(first)
    desk.feed(trade("ESZ6", t=OPENS), trade("ANCH1", t=OPENS))
    desk.hand_over()
    calendars = {name: json.loads(desk.cache.cells[f"quote:{name}".encode()])[2][0] for name in ("ANCH1", "ESZ6")}
    assert calendars == {"ANCH1": "s|stocks", "ESZ6": "s|futures"}


@pytest.mark.parametrize(("market", "calendar"), [("stocks", "stocks"), ("futures/cme", "futures"), ("", "futures")])
def test_the_source_s_market_says_what_a_ticker_is(market: str, calendar: str) -> None:
    """Where a feed is of one market; the exchange's and a tape's tickers speak for themselves."""
    desk = Desk()
    desk.deliver(replace(batch([trade("ANCH1")], "trades", 0), market=market))
    desk.flush()
    for name in ("quote", "range"):
        assert f'"s|{calendar}"' in desk.cache.cells[f"{name}:ANCH1".encode()].decode()
