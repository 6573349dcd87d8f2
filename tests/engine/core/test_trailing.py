"""Where trailing stops stand, one rule a test, and that what moves a stop is found without looking at the others."""

from __future__ import annotations

import random

import pytest
from msgspec import UNSET

from engine.core import commands as cm
from engine.core import events as ev
from engine.core.commands import BUY, SELL, AmendOrder, Leg, More, PlaceOrder, Trail
from engine.core.events import RejectReason
from engine.core.trailing import moves_at, stop_behind
from tests.engine.core.test_exchange import Desk, X, trades
from tests.engine.core.test_linked import bracket, open_orders, order, trade_at


@pytest.mark.parametrize("side", [BUY, SELL])
def test_a_stop_moves_exactly_from_the_price_that_is_said_on(side: int) -> None:
    """Beyond it every last price moves the stop, before it none does."""
    dice = random.Random(side)
    for _ in range(2_000):
        trail = Trail(ticks=dice.randint(1, 50)) if dice.random() < 0.4 else Trail(ppm=dice.randint(1, 400_000))
        stop = dice.randint(1, 5_000)
        first, away = moves_at(trail, side, stop), 1 if side == SELL else -1
        for price in (first, first + away, first + 40 * away, first - away):
            if price > 0:
                stood = stop_behind(trail, side, price, 10**9)
                moved = stood > stop if side == SELL else stood < stop
                assert moved == (price != first - away)


def test_a_trailing_stop_follows_the_last_trade_one_way() -> None:
    """It starts behind the last trade, or the mark without one; what comes back does not move it but triggers it."""
    desk = Desk()
    desk.place(1, SELL, 5, None, name="t", trail=Trail(ticks=3))
    assert order(desk, "t").stop_ticks == 97
    trade_at(desk, 104, 102)
    assert order(desk, "t").stop_ticks == 101
    desk.place(3, BUY, 5, 100)
    desk.place(2, SELL, 1, 101)
    assert trades(desk.place(3, BUY, 1, 101))[-1] == (100, 5)


def test_a_distance_in_parts_per_million_is_rounded_away_from_the_market() -> None:
    """1.5 % of 105 are 1.575 ticks: a sale waits at 103, a purchase, once 105 is traded, at 107."""
    desk = Desk()
    trade_at(desk, 105)
    desk.place(1, SELL, 5, None, name="s", trail=Trail(ppm=15_000))
    desk.place(1, BUY, 5, None, name="b", trail=Trail(ppm=15_000))
    assert (order(desk, "s").stop_ticks, order(desk, "b").stop_ticks) == (103, 107)
    trade_at(desk, 104)
    assert (order(desk, "s").stop_ticks, order(desk, "b").stop_ticks) == (103, 106)


def test_a_given_stop_is_where_a_trailing_one_begins() -> None:
    """And an amended one where it goes on; the better of both counts."""
    desk = Desk()
    trade_at(desk, 100)
    desk.place(1, SELL, 5, 99, name="t", stop_ticks=90, trail=Trail(ticks=5))
    assert order(desk, "t").stop_ticks == 95
    desk.do(AmendOrder(1, "t", stop_ticks=97))
    trade_at(desk, 101)
    assert order(desk, "t").stop_ticks == 97
    trade_at(desk, 103)
    assert order(desk, "t").stop_ticks == 98


def test_an_entrys_trailing_loss_starts_with_its_first_fill() -> None:
    """At the price of that fill; a second fill leaves it where it is."""
    desk = Desk()
    bracket(desk, stop_loss=Leg("loss", trail=Trail(ticks=4)), take_profit=UNSET)
    trade_at(desk, 104)
    assert order(desk, "loss").stop_ticks is None
    desk.place(2, SELL, 4, 100)
    assert order(desk, "loss").stop_ticks == 96
    trade_at(desk, 102)
    desk.place(2, SELL, 4, 100)
    assert (order(desk, "loss").stop_ticks, open_orders(desk)["loss"]) == (98, 8)


@pytest.mark.parametrize(
    ("trail", "reason"),
    [
        (Trail(), RejectReason.INVALID_COMBINATION),
        (Trail(1, 1), RejectReason.INVALID_COMBINATION),
        (Trail(-1), RejectReason.INVALID_PRICE),
        (Trail(10**9), RejectReason.INVALID_PRICE),
        (Trail(ppm=10**6), RejectReason.INVALID_PRICE),
    ],
)
def test_a_distance_that_is_none_is_refused(trail: Trail, reason: RejectReason) -> None:
    """Neither, both, below zero, beyond all prices."""
    assert Desk().refusal(PlaceOrder(1, X, "t", SELL, 5, more=More(trail=trail))) == reason


def test_trailing_stops_of_a_contract_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """All of them may move in one command; closed ones make room."""
    monkeypatch.setattr("engine.core.trailing.TRAILS_MAX", 2)
    desk = Desk()
    for name in ("a", "b"):
        desk.place(1, SELL, 5, None, name=name, trail=Trail(1))
    more = PlaceOrder(2, X, "c", SELL, 5, more=More(trail=Trail(1)))
    assert desk.refusal(more) == RejectReason.TOO_MANY_ORDERS
    desk.do(cm.CancelOrder(1, "a"))
    assert isinstance(desk.do(more)[0], ev.OrderAccepted)
