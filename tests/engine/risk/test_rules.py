"""The questions put to the risk service and the sample service's limits."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.core import commands as cm
from engine.core.exchange import Exchange
from engine.risk.rules import Exposure, Limits, RiskOrder, RiskRequest, assess, exposure_of, question
from engine.stores.message_builder import MessageBuilder

VIEW = Exposure(
    position_lots=0, buy_lots=0, sell_lots=0, mark_ticks=100, lot_tick_units=2, equity_units=10**6, gross_units=0
)  # fmt: skip


def order(lots: int, side: str = "Buy", price: int | None = 100) -> RiskOrder:
    return RiskOrder(1, "X", side, lots, price, "a")


def view(**changes: Any) -> Exposure:
    return msgspec.structs.replace(VIEW, **changes)


@pytest.mark.parametrize(
    ("lots", "side", "held", "expected"),
    [
        (10, "Buy", {}, ""), (11, "Buy", {}, "position_limit"), (10, "Sell", {}, ""), (11, "Sell", {}, "position_limit"),
        (1, "Buy", {"position_lots": 10}, "position_limit"), (1, "Buy", {"buy_lots": 10}, "position_limit"),
        (5, "Buy", {"position_lots": 3, "buy_lots": 2}, ""), (6, "Buy", {"position_lots": 3, "buy_lots": 2}, "position_limit"),
        (1, "Buy", {"sell_lots": 10}, ""), (20, "Sell", {"position_lots": 10}, ""), (21, "Sell", {"position_lots": 10}, "position_limit"),
        (5, "Sell", {"position_lots": 50}, ""), (50, "Sell", {"position_lots": 50}, ""), (0, "Buy", {"position_lots": 50}, ""),
        (101, "Sell", {"position_lots": 50}, "position_limit"), (10, "Buy", {"position_lots": -10, "buy_lots": 15}, "position_limit"),
    ],
)  # fmt: skip
def test_the_position_counts_with_everything_open_on_its_side(lots: int, side: str, held: dict[str, int], expected: str) -> None:
    """At most 10 lots either way; what brings a position down is never refused for its size."""
    assert assess(order(lots, side), view(**held), Limits(position_lots_max=10)) == expected


@pytest.mark.parametrize(
    ("lots", "price", "held", "expected"),
    [
        (5, 100, {}, ""), (6, 100, {}, "notional_limit"), (5, 99, {}, ""), (5, 101, {}, "notional_limit"), (5, None, {}, ""),
        (1, 100, {"gross_units": 1_000}, "notional_limit"), (1, 100, {"gross_units": 800}, ""),
        (1, 100, {"position_lots": -5, "gross_units": 1_000}, ""), (2, 100, {"buy_lots": 4}, "notional_limit"),
    ],
)  # fmt: skip
def test_the_notional_counts_over_all_contracts(lots: int, price: int | None, held: dict[str, int], expected: str) -> None:
    """At most 1,000 units, 200 a lot at the mark; a price above the mark counts as such."""
    assert assess(order(lots, "Buy", price), view(**held), Limits(notional_units_max=1_000)) == expected


@pytest.mark.parametrize(("price", "expected"), [(95, ""), (105, ""), (94, "price_band"), (106, "price_band"), (None, "")])
def test_a_price_far_from_the_mark_is_refused(price: int | None, expected: str) -> None:
    """5 % both ways, also for what adds nothing; a market order has no price."""
    assert assess(order(1, "Buy", price), VIEW, Limits(band_ppm=50_000)) == expected
    assert assess(order(0, "Buy", price), VIEW, Limits(band_ppm=50_000)) == expected


@given(st.integers(0, 10**6), st.sampled_from(["Buy", "Sell"]), st.integers(1, 10**6) | st.none(), st.integers(-(10**6), 10**6))
def test_without_limits_everything_is_approved(lots: int, side: str, price: int | None, position: int) -> None:
    """0 means none."""
    assert assess(order(lots, side, price), view(position_lots=position), Limits()) == ""


@given(st.integers(1, 100), st.sampled_from(["Buy", "Sell"]), st.integers(-100, 100), st.integers(0, 100), st.integers(0, 100))
def test_a_smaller_order_is_never_refused_where_a_larger_one_is_not(
    lots: int, side: str, position: int, buys: int, sells: int
) -> None:
    """As long as both make the position larger: the limits are monotonic in the size."""
    held, limits = view(position_lots=position, buy_lots=buys, sell_lots=sells), Limits(50, 10_000)
    if not assess(order(lots + 1, side), held, limits) and (position >= 0) == (side == "Buy"):
        assert not assess(order(lots, side), held, limits)


@pytest.fixture
def floor() -> Exchange:
    """Return an exchange where account 1 is long 4 lots and bids for 3 more, and account 2 is on the other side."""
    exchange, commands = Exchange(MessageBuilder), []
    commands += [cm.CreateInstrument(cm.Instrument("X", lot_tick_units=2), 100), cm.Deposit(1, 10**6), cm.Deposit(2, 10**6)]
    commands += [
        cm.PlaceOrder(2, "X", "s", 1, 4, 100),
        cm.PlaceOrder(1, "X", "b", 0, 4, 100),
        cm.PlaceOrder(1, "X", "o", 0, 3, 90),
    ]
    for index, command in enumerate(commands, 1):
        exchange.decide(index, index, command)
    return exchange


def test_the_view_has_what_the_rules_look_at(floor: Exchange) -> None:
    """Position, open lots with those on their way, mark, money."""
    ways = {(1, "X", 0): 5, (1, "X", 1): 6, (2, "X", 0): 7}
    found = exposure_of(floor.state, 1, "X", ways)
    assert found == Exposure(4, 8, 6, 100, 2, 10**6, 800)
    short = exposure_of(floor.state, 2, "X")
    assert short is not None
    assert (short.position_lots, short.buy_lots, short.sell_lots) == (-4, 0, 0)
    assert exposure_of(floor.state, 3, "X") is None
    assert exposure_of(floor.state, 1, "Y") is None


def test_only_what_takes_risk_is_asked_about(floor: Exchange) -> None:
    """Places, amends to more or to another price; not cancels, not amends to less, not what the engine will refuse."""

    def asked(command: cm.Command) -> RiskOrder | None:
        found = question(floor.state, command)
        return found[0] if found else None

    assert asked(cm.PlaceOrder(1, "X", "n", 0, 2, 99)) == RiskOrder(1, "X", "Buy", 2, 99, "n")
    assert asked(cm.PlaceOrder(1, "X", "n", 1, 2)) == RiskOrder(1, "X", "Sell", 2, None, "n")
    assert asked(cm.PlaceOrder(1, "X", "n", 1, 2, 99, reduce_only=True)) == RiskOrder(1, "X", "Sell", 0, 99, "n")
    assert asked(cm.AmendOrder(1, "o", 5)) == RiskOrder(1, "X", "Buy", 2, 90, "o")
    assert asked(cm.AmendOrder(1, "o", 2, 95)) == RiskOrder(1, "X", "Buy", 0, 95, "o")
    for nothing in (
        cm.AmendOrder(1, "o", 2), cm.AmendOrder(1, "o", 3, 90), cm.AmendOrder(1, "b", 9), cm.AmendOrder(1, "z", 9), cm.CancelOrder(1, "o"),
        cm.AmendOrder(9, "o", 9), cm.CancelAll(1), cm.PlaceOrder(9, "X", "n", 0, 2, 99), cm.PlaceOrder(1, "Y", "n", 0, 2, 99),
    ):  # fmt: skip
        assert asked(nothing) is None, nothing


def test_the_question_travels_as_json(floor: Exchange) -> None:
    """Names as on every other border; what is written is read back."""
    asked = question(floor.state, cm.PlaceOrder(1, "X", "n", 0, 2, 99))
    assert asked is not None
    request = RiskRequest("r1", *asked, "risk-responses")
    encoded = msgspec.json.encode(request)
    assert msgspec.json.decode(encoded, type=RiskRequest) == request
    assert msgspec.json.decode(encoded)["order"] == {
        "account": 1, "symbol": "X", "side": "Buy", "lots": 2, "priceTicks": 99, "clOrdID": "n"}  # fmt: skip
