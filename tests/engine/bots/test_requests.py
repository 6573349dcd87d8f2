"""What bots ask becomes requests that the gateway reads back as the same commands; its answers become replies."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

from engine.bots.market import BTC, ETH, LISTED
from engine.bots.requests import Request, listing_of, price, reply_of, request_of, sight_of, ticks_of
from engine.bots.traders import Fate, Quote, Reply
from engine.core import commands as cm
from engine.gateway.bodies import InstrumentBody
from engine.gateway.markets import creation_of
from engine.gateway.order_bodies import AmendBody, PlaceBody, amend_of, place_of
from tests.engine.bots.test_traders import Ring

TICKS = {instrument.symbol: instrument.tick_size for instrument in LISTED}


@pytest.mark.parametrize("seed", range(3))
def test_the_gateway_reads_back_the_same_command(seed: int) -> None:
    """Every place and amend of a market's life, through JSON, tick for tick."""
    ring = Ring(seed)
    ring.run(1_500)
    symbols = {order.cl_ord_id: order.symbol for order in ring.commands if isinstance(order, cm.PlaceOrder)}
    seen = set()
    for command in ring.commands:
        seen.add(type(command))
        if isinstance(command, cm.PlaceOrder):
            request = request_of(command, TICKS)
            body = msgspec.json.decode(json.dumps(request.body), type=PlaceBody)
            assert place_of(body, BTC if command.symbol == BTC.symbol else ETH) == command
            assert (request.method, request.path, request.parameters) == ("POST", "/Order", {})
        elif isinstance(command, cm.AmendOrder):
            symbol = symbols[command.cl_ord_id]
            amend = msgspec.json.decode(json.dumps(request_of(command, TICKS, symbol).body), type=AmendBody)
            assert amend_of(amend, BTC if symbol == BTC.symbol else ETH) == command
        else:
            assert request_of(command, TICKS).body is None
    assert {cm.PlaceOrder, cm.AmendOrder, cm.CancelOrder, cm.SetMark, cm.CancelAllAfter} <= seen


def test_contracts_are_listed_as_they_are() -> None:
    """Tick 0.5 and lot 0.001 make 500 units a lot and tick; fees, band and limits come through."""
    for instrument, mark in ((BTC, 180_000), (ETH, 80_000)):
        body = msgspec.json.decode(json.dumps(listing_of(instrument, mark).body), type=InstrumentBody)
        assert creation_of(body) == cm.CreateInstrument(instrument, mark)
    assert (BTC.lot_tick_units, ETH.lot_tick_units) == (500, 500)


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        (cm.CancelOrder(7, "a-1"), Request("DELETE", "/Order", {"account": "7", "clOrdID": "a-1"})),
        (
            cm.CancelAllAfter(7, 30_000_000_000),
            Request("PUT", "/Order/CancelAllAfter", {"account": "7", "timeoutMillis": "30000"}),
        ),
        (cm.SetMark("ETH-PERP", 80_001), Request("PUT", "/MarkPrice", {"symbol": "ETH-PERP", "price": "4000.05"})),
        (cm.Fund("BTC-PERP", -25), Request("PUT", "/Funding", {"symbol": "BTC-PERP", "rate": "-0.000025"})),
    ],
)
def test_what_has_no_body_has_parameters(command: cm.Command, expected: Request) -> None:
    """Prices and rates are exact decimals."""
    assert request_of(command, TICKS) == expected


@pytest.mark.parametrize(
    ("status", "body", "expected"),
    [
        (201, {"ordStatus": "New", "leavesQty": 5}, Reply(Fate.DONE, "", 5)),
        (201, {"ordStatus": "PartiallyFilled", "leavesQty": 2}, Reply(Fate.DONE, "", 2)),
        (201, {"ordStatus": "Filled", "leavesQty": 0}, Reply(Fate.DONE)),
        (200, {"ordStatus": "Canceled", "leavesQty": 0}, Reply(Fate.DONE)),
        (200, {"messageIndex": 5}, Reply(Fate.DONE)),
        (404, {"code": "UnknownOrder"}, Reply(Fate.REFUSED, "UnknownOrder")),
        (409, {"code": "DuplicateClOrdID"}, Reply(Fate.REFUSED, "DuplicateClOrdID")),
        (422, {"code": "InsufficientMargin"}, Reply(Fate.REFUSED, "InsufficientMargin")),
        (503, {"code": "EngineBusy"}, Reply(Fate.REFUSED, "EngineBusy")),
        (503, {"code": "JournalUnavailable"}, Reply(Fate.LOST, "JournalUnavailable")),
        (500, {}, Reply(Fate.LOST, "500")),
        (502, {}, Reply(Fate.LOST, "502")),
    ],
)
def test_answers_mean_something(status: int, body: dict[str, Any], expected: Reply) -> None:
    """Done, refused with its code, or nobody knows."""
    assert reply_of(status, body) == expected


def test_an_account_is_seen() -> None:
    """Waiting stops by their stop price; only the position of the bot's own contract counts."""
    orders = [
        {"clOrdID": "a", "side": "Buy", "price": 90_000.5, "stopPx": None, "orderQty": 3},
        {"clOrdID": "b", "side": "Sell", "price": None, "stopPx": 89_000.0, "orderQty": 4},
        {"clOrdID": "c", "side": "Sell", "price": 88_999.5, "stopPx": 89_000.0, "orderQty": 5},
    ]
    positions = [{"symbol": "BTC-PERP", "qty": -12}, {"symbol": "ETH-PERP", "qty": 5}]
    sight = sight_of({"openOrders": orders, "positions": positions, "available": 9}, "BTC-PERP", "0.5")
    assert sight.orders == {"a": Quote(0, 180_001, 3), "b": Quote(1, 178_000, 4), "c": Quote(1, 178_000, 5)}
    assert (sight.position_lots, sight.available_units) == (-12, 9)


@pytest.mark.parametrize("tick_size", ["0.5", "0.05", "1", "0.00000001", "25"])
def test_prices_come_back_as_ticks(tick_size: str) -> None:
    """Through the float that the gateway answers with."""
    for ticks in (1, 3, 179_999, 1_999_999):
        assert ticks_of(tick_size, float(price(tick_size, ticks))) == ticks
