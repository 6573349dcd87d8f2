"""Order bodies: each field arrives in its command, and nothing that is not documented is taken."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

from engine.core.commands import SELL, AmendOrder, Instrument, Leg, More, PlaceOrder, SelfTrade, TimeInForce, Trail
from engine.gateway.order_bodies import AmendBody, PlaceBody, amend_of, place_of

CENT = Instrument("X", tick_size="0.01")
ORDER = {"account": 7, "symbol": "X", "clOrdID": "a", "side": "Buy", "orderQty": 3}


def place(**changes: Any) -> PlaceOrder:
    """Return the command of a place body with some fields changed."""
    return place_of(msgspec.json.decode(json.dumps(ORDER | changes), type=PlaceBody), CENT)


def test_an_order_body_becomes_its_command() -> None:
    """Every field arrives; absent ones have the defaults."""
    assert place() == PlaceOrder(7, "X", "a", 0, 3)
    full = place(
        side="Sell", price="1.25", stopPx=1.5, timeInForce="GoodTillDate", postOnly=True, reduceOnly=True, displayQty=2,
        selfTradePrevention="CancelBoth", expireTime="2026-11-21T02:16:49.123Z",
    )  # fmt: skip
    expire_ns = 1_795_227_409_123_000_000
    assert full == PlaceOrder(7, "X", "a", 1, 3, 125, 150, TimeInForce.GTD, True, True, 2, SelfTrade.BOTH, expire_ns)
    assert place(expireTime=1_795_227_409_123).expire_ns == expire_ns


def test_linked_orders_and_trails_arrive_in_their_command() -> None:
    """Distances are prices or fractions, exactly; the other order says only what is its own."""
    assert place(trailAmount="0.25").trail == Trail(ticks=25)
    assert place(trailRate=0.0125).trail == Trail(ppm=12_500)
    assert place(oco={"clOrdID": "b", "side": "Sell", "price": 2}).more == More(oco=Leg("b", SELL, 200))
    exits = place(takeProfit={"clOrdID": "p", "price": 2}, stopLoss={"clOrdID": "l", "stopPx": 1, "trailAmount": 0.5})
    profit, loss = Leg("p", price_ticks=200), Leg("l", stop_ticks=100, trail=Trail(ticks=50))
    assert exits.more == More(take_profit=profit, stop_loss=loss)
    for wrong in ({"trailRate": "0.0000001"}, {"trailAmount": 0.001}, {"oco": {"clOrdID": "b", "price": 0.001}}):
        with pytest.raises(ValueError, match=r"price|trail"):
            place(**wrong)


def test_an_amend_body_becomes_its_command() -> None:
    """Absent and null fields stay as they are."""
    body = msgspec.json.decode(b'{"account":7,"clOrdID":"a","price":0.07,"orderQty":null}', type=AmendBody)
    assert amend_of(body, CENT) == AmendOrder(7, "a", None, 7, None)


def test_without_an_instrument_prices_become_what_the_engine_refuses() -> None:
    """An unknown symbol or order is the engine's answer to give; sizes and absent prices are as they were."""
    body = msgspec.json.decode(json.dumps(ORDER | {"price": 1.234567}), type=PlaceBody)
    assert place_of(body, None).price_ticks == 0
    assert place_of(body, None).stop_ticks is None


@pytest.mark.parametrize(
    "changes",
    [
        {"account": True}, {"account": "7"}, {"account": 7.0}, {"account": -1}, {"account": 2**60}, {"account": None}, {"symbol": ""},
        {"symbol": 5}, {"symbol": "X" * 65}, {"clOrdID": ""}, {"clOrdID": "a" * 65}, {"clOrdID": 1}, {"side": "buy"}, {"side": 0},
        {"orderQty": "3"}, {"orderQty": 3.0}, {"orderQty": True}, {"orderQty": 10**30}, {"price": True}, {"price": "abc"},
        {"price": [1]}, {"timeInForce": "GTC"}, {"postOnly": 1}, {"postOnly": "true"}, {"displayQty": None}, {"expireTime": 1.5},
        {"selfTradePrevention": "None"}, {"ordType": "Limit"}, {"clordid": "a"}, {"cl_ord_id": "a"},
        {"oco": {}}, {"oco": {"clOrdID": "b", "orderQty": 3}}, {"stopLoss": "b"}, {"trailRate": True},
    ],
)  # fmt: skip
def test_wrong_types_and_unknown_fields_are_errors(changes: dict[str, Any]) -> None:
    """Strict: no coercion, no field that nobody reads."""
    with pytest.raises(msgspec.ValidationError):
        place(**changes)


@pytest.mark.parametrize("field", ["account", "symbol", "clOrdID", "side", "orderQty"])
def test_what_an_order_needs_must_be_there(field: str) -> None:
    """A missing field is named."""
    body = {name: value for name, value in ORDER.items() if name != field}
    with pytest.raises(msgspec.ValidationError, match=field):
        msgspec.json.decode(json.dumps(body), type=PlaceBody)
