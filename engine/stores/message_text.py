"""Writes the parts of a message as JSON text, byte for byte what encoding the structs of `messages.py` would give.

With a store this is most of what the matching process does. A struct of thirty fields has to be filled and then read again to be
encoded; its text is made in one step, for half of the time. What is rare is made as a struct and encoded.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import msgspec
from msgspec import UNSET

from engine.core.commands import SIDE_NAMES, Instrument, PlaceOrder
from engine.core.linked import group_of, with_legs
from engine.core.state import LEG_STEP, Order
from engine.core.units import PPM, scale

PRICES_MAX = 16_384  # texts of prices that are remembered; the one longest unused is forgotten
NO_TRADE = '"lastQty":0,"execCost":0,"lastPx":0.0,"commission":0.0,"execComm":0'  # of an execution that is none
_ENCODER = msgspec.json.Encoder()


class Scale(NamedTuple):
    """What a contract's numbers are multiplied by, and its parts of a message that never change."""

    symbol: str  # with its quotation marks
    over: int  # price of a tick as a fraction
    under: int
    lot_tick_units: int
    taker_rate: str
    maker_rate: str


def scale_of(instrument: Instrument) -> Scale:
    """Return a contract's scale."""
    rates = text(instrument.taker_fee_ppm / PPM), text(instrument.maker_fee_ppm / PPM)
    return Scale(text(instrument.symbol), *scale(instrument.tick_size), instrument.lot_tick_units, *rates)


def text(value: object) -> str:
    """Return a value as JSON: a string with its quotation marks, a number, a list of structs."""
    return _ENCODER.encode(value).decode()


@lru_cache(maxsize=PRICES_MAX)
def price_text(ticks: int, over: int, under: int) -> str:
    """Return a price as the float nearest to the exact decimal."""
    return text(ticks * over / under)


def execution(
    order: Order, scale: Scale | None, time: str, exec_type: str, exec_id: str, status: str, leaves: int, last: str = NO_TRADE,
    more: str = "",
) -> str:  # fmt: skip
    """Return an execution of an order as it is now. Without a `scale`, of a contract that is none, it has no prices.

    `last` are the fields of a trade, from `lastQty` to `execComm`; `more` those between `displayQty` and `linkId`, each behind a
    comma.
    """
    terms, filled = order.terms, order.filled_lots
    symbol, price, average, extra = "", "null", "0.0", ""
    if scale is None:
        symbol = text(terms.symbol)
    else:
        symbol, over, under, lot_tick_units, _, _ = scale
        if order.price_ticks is not None:
            price = price_text(order.price_ticks, over, under)
        if filled:
            average = text(order.cost_units * over / (filled * lot_tick_units * under))
        if order.stop_ticks is not None:
            extra = f',"stopPx":{price_text(order.stop_ticks, over, under)}'
    if terms.display_lots:
        extra += f',"displayQty":{terms.display_lots}'
    if more:
        extra += more
    if order.link is not UNSET or terms.more is not UNSET or order.order_id >= LEG_STEP:
        extra += _linked(order)
    return (
        f'{{"orderId":"{order.order_id}","clOrdID":{text(terms.cl_ord_id)},"account":{terms.account},"symbol":{symbol},'
        f'"side":"{SIDE_NAMES[terms.side]}","ordType":"{ord_type(terms)}","timeInForce":"{terms.time_in_force}","price":{price},'
        f'"orderQty":{order.size_lots},"leavesQty":{leaves},"ordStatus":"{status}","cumQty":{filled},"cumCost":{order.cost_units},'
        f'"avgPx":{average},"timestamp":"{time}","execType":"{exec_type}","execId":"{exec_id}",{last},"transactTime":"{time}"'
        f"{extra}}}"
    )


def trade(lots: int, value: int, price: str, rate: str, fee: int) -> str:
    """Return the fields that a trade has more than any other execution."""
    return f'"lastQty":{lots},"execCost":{value},"lastPx":{price},"commission":{rate},"execComm":{fee}'


def transaction(number: str, account: int, kind: str, amount: int, balance: int, time: str, symbol: str, exec_id: str) -> str:
    """Return what changed a balance; `symbol` is with its quotation marks, "" when there is none."""
    extra = f',"symbol":{symbol}' if symbol else ""
    if exec_id:
        extra += f',"execId":"{exec_id}"'
    return (
        f'{{"transactionId":"{number}","account":{account},"transactType":"{kind}","amount":{amount},"balance":{balance},'
        f'"timestamp":"{time}"{extra}}}'
    )


def book_update(symbol: str, side: int, price: str, qty: int) -> str:
    """Return what a level shows now; `symbol` is with its quotation marks."""
    return f'{{"symbol":{symbol},"side":"{SIDE_NAMES[side]}","price":{price},"qty":{qty}}}'


def _linked(order: Order) -> str:
    link, kind = link_id(order), contingency(order)
    return (f',"linkId":"{link}"' if link else "") + (f',"contingencyType":"{kind}"' if kind else "")


def status_of(order: Order) -> str:
    """Return the state of an order that is open, or filled: PendingNew is an exit before its entry's first fill."""
    if order.filled_lots:
        return "PartiallyFilled" if order.leaves_lots else "Filled"
    return "PendingNew" if order.held else "New"


def link_id(order: Order) -> str:
    """Return what all orders of one command have in common when there are several: the id of the first; else nothing."""
    first = group_of(order.order_id)
    return str(first) if first != order.order_id or len(with_legs(order.terms)) > 1 else ""


def contingency(order: Order) -> str:
    """Return FIX's name for what an order does to those that it is linked to."""
    if order.link is UNSET:
        return ""
    return "OneTriggersTheOther" if order.link.exits else "OneCancelsTheOther"


def ord_type(terms: PlaceOrder) -> str:
    """Return FIX's name for an order with these terms, triggered or not."""
    if terms.more is not UNSET and terms.more.trail is not UNSET:
        return "TrailingStop" if terms.price_ticks is None else "TrailingStopLimit"
    if terms.stop_ticks is None:
        return "Market" if terms.price_ticks is None else "Limit"
    return "Stop" if terms.price_ticks is None else "StopLimit"
