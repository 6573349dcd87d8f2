"""Tests which market a symbol belongs to, and what operators may say about it."""

from __future__ import annotations

from datetime import date

import pytest

from mdp.settings import MdpSettings
from service.days.markets import Markets, calendar_of
from service.errors import OperatorError
from service.settings import load
from tests.mdp.days.test_calendar import ms


@pytest.mark.parametrize(
    ("symbol", "market"),
    [("ESZ6", "futures"), ("6EH27", "futures"), ("ESZ6-ESH7", "futures"), ("AAPL", "stocks"), ("BRK.B", "stocks"), ("F", "stocks"),
     ("O:SPY251219C00650000", "stocks"), ("I:SPX", "stocks")],
)  # fmt: skip
def test_a_symbol_names_its_market(symbol: str, market: str) -> None:
    """Hardly a stock's ticker ends like a future's; what never closes says so, and a pair of currencies has a slash."""
    assert Markets().of(symbol, False).name == market
    assert (Markets().of("BTC-USD", True).name, Markets().of("EUR/USD", True).name) == ("always", "forex")


@pytest.mark.parametrize(
    ("market", "calendar"),
    [("stocks", "stocks"), ("options", "stocks"), ("indices", "stocks"), ("futures", "futures"), ("futures/cme", "futures"),
     ("crypto", ""), ("forex", ""), ("", ""), ("moon", "")],
)  # fmt: skip
def test_a_feed_of_one_market_says_when_it_is_open(market: str, calendar: str) -> None:
    """Before what a ticker looks like; an operator's pattern and the type of an event have more to say."""
    assert calendar_of(market) == calendar
    markets = MdpSettings(MDP_CALENDARS="*-PERP=always").markets
    assert markets.of("ANCH1", False, calendar).name == (calendar or "futures")
    assert markets.of("MICRO", False, calendar).name == (calendar or "stocks")
    assert (markets.of("X-PERP", False, calendar).name, markets.of("EUR/USD", True, calendar).name) == ("always", "forex")


def test_patterns_come_first_and_the_exchange_s_contracts_never_close() -> None:
    """The first that fits wins; without one the symbol speaks for itself."""
    markets = MdpSettings(MDP_CALENDARS="BTC-Q*=futures,BTC-*=always").markets
    assert [markets.of(name, False).name for name in ("BTC-Q3", "BTC-PERP", "ETH-PERP")] == ["futures", "always", "stocks"]
    assert MdpSettings().markets.of("ETH-PERP", False).name == "always"


def test_an_operator_closes_a_day() -> None:
    """A day of mourning that no table knows: the day before lasts on."""
    markets = MdpSettings(MDP_CLOSED="stocks=2027-01-12").markets
    day = markets.of("AAPL", False).day_of(ms("2027-01-12 12:00:00"))
    assert (day.start_ms, day.end_ms) == (ms("2027-01-11 04:00:00"), ms("2027-01-13 04:00:00"))
    assert date(2027, 1, 12) not in Markets().named("stocks").closed


def test_a_year_that_no_table_has_is_an_ordinary_one() -> None:
    """Its weekdays are days, also Christmas."""
    day = Markets().of("AAPL", False).day_of(ms("2045-12-25 12:00:00"))
    assert (day.start_ms, day.end_ms) == (ms("2045-12-25 04:00:00"), ms("2045-12-26 04:00:00"))


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [("MDP_CALENDARS", "AAPL", "PATTERN=MARKET"), ("MDP_CALENDARS", "A*=moon", "stocks, futures, forex, always"),
     ("MDP_CLOSED", "stocks=20270112x", "MARKET=YYYY-MM-DD"), ("MDP_CLOSED", "moon=2027-01-12", "stocks, futures, forex, always")],
)  # fmt: skip
def test_what_cannot_be_is_one_line(monkeypatch: pytest.MonkeyPatch, name: str, value: str, said: str) -> None:
    """It names the variable, what is wrong and how it is written."""
    monkeypatch.setenv(name, value)
    with pytest.raises(OperatorError, match=name) as refused:
        load(MdpSettings)
    assert said in str(refused.value)
