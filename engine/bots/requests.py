"""Writes the bots' commands as requests to the gateway, and reads its answers as replies and accounts. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from typing import Any, NamedTuple

from engine.bots.traders import Fate, Quote, Reply
from engine.core.commands import (
    SIDE_NAMES,
    SIDES,
    AmendOrder,
    CancelAllAfter,
    CancelOrder,
    Command,
    Fund,
    Instrument,
    PlaceOrder,
    SetMark,
)
from engine.core.units import PPM

NS_PER_MS = 1_000_000
OPEN = ("New", "PartiallyFilled")


class Request(NamedTuple):
    """One HTTP request."""

    method: str
    path: str
    parameters: dict[str, str]
    body: dict[str, Any] | None = None
    key: str = ""  # for what would be done twice by a retry: orders have client ids, everything else sets what it says


class Sight(NamedTuple):
    """An account as its bot sees it."""

    orders: dict[str, Quote]
    position_lots: int
    available_units: int


def listing_of(instrument: Instrument, mark_ticks: int) -> Request:
    """Return the request that lists a contract."""
    body = {
        "symbol": instrument.symbol, "markPrice": price(instrument.tick_size, mark_ticks), "tickSize": instrument.tick_size,
        "lotSize": instrument.lot_size, "makerFee": _rate(instrument.maker_fee_ppm), "takerFee": _rate(instrument.taker_fee_ppm),
        "priceBand": _rate(instrument.band_ppm), "orderQtyMax": instrument.size_lots_max,
        "priceMax": price(instrument.tick_size, instrument.price_ticks_max),
    }  # fmt: skip
    return Request("PUT", "/Instrument", {}, body)


def request_of(command: Command, tick_sizes: Mapping[str, str], symbol: str = "") -> Request:
    """Return the request for a command. `symbol` is the order's for an amend, which does not name it."""
    if isinstance(command, PlaceOrder):
        return _place(command, tick_sizes[command.symbol])
    if isinstance(command, AmendOrder):
        return _amend(command, tick_sizes[symbol])
    if isinstance(command, CancelOrder):
        return Request("DELETE", "/Order", {"account": str(command.account), "clOrdID": command.cl_ord_id})
    if isinstance(command, CancelAllAfter):
        timeout = str(command.timeout_ns // NS_PER_MS)
        return Request("PUT", "/Order/CancelAllAfter", {"account": str(command.account), "timeoutMillis": timeout})
    if isinstance(command, SetMark):
        mark = price(tick_sizes[command.symbol], command.mark_ticks)
        return Request("PUT", "/MarkPrice", {"symbol": command.symbol, "price": mark})
    assert isinstance(command, Fund), f"bots send no {type(command).__name__}"
    return Request("PUT", "/Funding", {"symbol": command.symbol, "rate": _rate(command.rate_ppm)})


def _place(order: PlaceOrder, tick_size: str) -> Request:
    body: dict[str, Any] = {
        "account": order.account, "symbol": order.symbol, "clOrdID": order.cl_ord_id, "side": SIDE_NAMES[order.side],
        "orderQty": order.size_lots, "timeInForce": order.time_in_force.value, "postOnly": order.post_only,
        "reduceOnly": order.reduce_only, "displayQty": order.display_lots,
    }  # fmt: skip
    for name, ticks in (("price", order.price_ticks), ("stopPx", order.stop_ticks)):
        if ticks is not None:
            body[name] = price(tick_size, ticks)
    return Request("POST", "/Order", {}, body)


def _amend(amend: AmendOrder, tick_size: str) -> Request:
    body: dict[str, Any] = {"account": amend.account, "clOrdID": amend.cl_ord_id}
    if amend.size_lots is not None:
        body["orderQty"] = amend.size_lots
    if amend.price_ticks is not None:
        body["price"] = price(tick_size, amend.price_ticks)
    return Request("PUT", "/Order", {}, body)


def reply_of(status: int, body: Mapping[str, Any]) -> Reply:
    """Return what an answer means for the command; 5xx leaves it open, but for a full queue, which took nothing."""
    if 200 <= status < 300:
        return Reply(Fate.DONE, "", int(body.get("leavesQty", 0)) if body.get("ordStatus") in OPEN else 0)
    code = str(body.get("code", status))
    lost = status >= 500 and code != "EngineBusy"
    return Reply(Fate.LOST if lost else Fate.REFUSED, code)


def sight_of(account: Mapping[str, Any], symbol: str, tick_size: str) -> Sight:
    """Return an account's open orders and its position in one contract."""
    orders = {}
    for order in account["openOrders"]:
        at = order["price"] if order["stopPx"] is None else order["stopPx"]
        orders[order["clOrdID"]] = Quote(SIDES[order["side"]], ticks_of(tick_size, at), order["orderQty"])
    position = sum(held["qty"] for held in account["positions"] if held["symbol"] == symbol)
    return Sight(orders, position, account["available"])


def price(tick_size: str, ticks: int) -> str:
    """Return a price as the gateway reads it, exactly."""
    return format(Decimal(tick_size) * ticks, "f")


def ticks_of(tick_size: str, at: float) -> int:
    """Return the ticks nearest to a price."""
    return round(at / float(tick_size))


def _rate(ppm: int) -> str:
    return format(Decimal(ppm) / PPM, "f")
