"""Checks the bars that the simulated market keeps of itself, and the trading days that it makes up before it began."""

from __future__ import annotations

import json
from collections import defaultdict
from datetime import UTC, datetime
from typing import Any

import pytest

from mdl.simulation import past
from mdl.simulation.market import Simulator
from mdl.simulation.past import Past, PastBar
from mdl.simulation.universe import day_before
from service.days.markets import STOCKS

BEGIN_MS = 1_767_623_400_000  # Monday 2026-01-05, 9:30 in New York
MINUTE_MS, HOUR_MS, DAY_MS = 60_000, 3_600_000, 86_400_000


def played(symbols: int, frames: int, step_ms: int, events: int = 60) -> tuple[Simulator, list[dict[str, Any]]]:
    market = Simulator(symbols, seed=7, quotes=0.1)
    market.past = Past(market.listed)
    found = [event for n in range(frames) for event in json.loads(market.frame(BEGIN_MS + n * step_ms, events))]
    return market, [event for event in found if event["ev"] == "T"]


def test_minutes_are_those_of_the_trades_that_were_sent() -> None:
    """Counted again from the frames, by the rules of odd lots and late trades."""
    market, trades = played(5, 1_200, 600, 40)
    wanted: dict[tuple[str, int], list[dict[str, Any]]] = defaultdict(list)
    for trade in trades:
        wanted[trade["sym"], trade["t"] // MINUTE_MS * MINUTE_MS].append(trade)
    assert market.past is not None
    late = 0
    for number, symbol in enumerate(market.listed.symbols):
        bars = {bar.start: bar for bar in market.past.bars(number, MINUTE_MS, BEGIN_MS - DAY_MS, BEGIN_MS + DAY_MS, BEGIN_MS)}
        for (name, start), own in wanted.items():
            pricing = [trade["p"] for trade in own if 37 not in trade["c"]]
            inside = [trade["p"] for trade in own if not {37, 32} & set(trade["c"])]
            if name != symbol or not inside:
                continue
            late += len(pricing) - len(inside)
            bar = bars[start]
            assert [round(100 * x) for x in (inside[0], max(pricing), min(pricing), inside[-1])] == list(bar[1:5])
            assert (bar.volume, bar.trades) == (sum(trade["s"] for trade in own), len(own))
    assert late > 10


def test_a_made_up_day_adds_up() -> None:
    """Open, high, low, close and volume are those that the day's own answer names; again the same; nothing at night."""
    market = Simulator(20, seed=7)
    kept = Past(market.listed)
    friday = STOCKS.day_of(BEGIN_MS - 3 * DAY_MS).start_ms
    for number in range(20):
        minutes = kept.bars(number, MINUTE_MS, friday, friday + DAY_MS, BEGIN_MS)
        (day,) = kept.days(number, friday, friday + 1, BEGIN_MS)
        before = day_before(market.listed, number, past.salt_of(datetime.fromtimestamp(friday / 1000, STOCKS.zone).date()))
        assert len(minutes) == 390
        assert [minutes[0].open, max(bar.high for bar in minutes), min(bar.low for bar in minutes), minutes[-1].close] == list(
            day[1:5]
        )
        assert sum(bar.volume for bar in minutes) == day.volume == before.volume
        assert all(bar.low <= min(bar.open, bar.close) <= max(bar.open, bar.close) <= bar.high for bar in minutes)
        assert minutes == Past(market.listed).bars(number, MINUTE_MS, friday, friday + DAY_MS, BEGIN_MS)
        assert datetime.fromtimestamp(minutes[0].start / 1000, UTC).hour == 14


def test_wider_bars_are_sums_across_the_beginning() -> None:
    """Days before and the day itself, in one answer; each start once."""
    market, _ = played(3, 800, 30_000)
    assert market.past is not None
    for span_ms in (5 * MINUTE_MS, HOUR_MS):
        wide = market.past.bars(0, span_ms, BEGIN_MS - 7 * DAY_MS, BEGIN_MS + DAY_MS, BEGIN_MS)
        narrow = market.past.bars(0, MINUTE_MS, BEGIN_MS - 7 * DAY_MS, BEGIN_MS + DAY_MS, BEGIN_MS)
        assert len({bar.start for bar in wide}) == len(wide)
        assert [bar.start for bar in wide] == sorted(bar.start for bar in wide)
        assert sum(bar.volume for bar in wide) == sum(bar.volume for bar in narrow)
    days = market.past.days(0, BEGIN_MS - 7 * DAY_MS, BEGIN_MS + DAY_MS, BEGIN_MS)
    assert [datetime.fromtimestamp(bar.start / 1000, STOCKS.zone).day for bar in days] == [30, 31, 2, 5]
    assert days[-1].volume == sum(bar.volume for bar in market.past.bars(0, MINUTE_MS, BEGIN_MS, BEGIN_MS + DAY_MS, BEGIN_MS))


def test_hours_are_left_of_the_oldest_minutes(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is kept is bounded, and hours stay exact."""
    monkeypatch.setattr(past, "BARS_MAX", 60)
    market = Simulator(1, seed=7)
    kept, wide = Past(market.listed), PastBar(0, 0, 0, 0, 0, 0, 0, 0)
    for minute in range(300):
        kept.take(0, BEGIN_MS + minute * MINUTE_MS, 1_000 + minute, 10, False, False)
    minutes = kept.bars(0, MINUTE_MS, BEGIN_MS, BEGIN_MS + DAY_MS, BEGIN_MS)
    assert len(minutes) == 63
    hours = kept.bars(0, HOUR_MS, BEGIN_MS, BEGIN_MS + DAY_MS, BEGIN_MS)
    hours = kept.bars(0, HOUR_MS, BEGIN_MS - HOUR_MS, BEGIN_MS + DAY_MS, BEGIN_MS)
    wide = hours[1]
    assert wide == PastBar(BEGIN_MS + HOUR_MS // 2, 1_030, 1_089, 1_030, 1_089, 600, sum(range(1_030, 1_090)) * 10, 60)
    assert sum(bar.volume for bar in hours) == 3_000
