"""Order bodies as people write them, over HTTP and in order messages, and the commands they become.

Quantities are whole contracts, prices decimals that must be multiples of the tick. What comes in is strict: a field nobody
knows is an error, and nothing is rounded.
"""

from __future__ import annotations

from decimal import Decimal
from typing import Annotated, Literal

import msgspec
from msgspec import UNSET, UnsetType

from engine.core.admission import CLIENT_ID_LENGTH_MAX
from engine.core.commands import SIDES, AmendOrder, Instrument, Leg, More, PlaceOrder, SelfTrade, TimeInForce, Trail
from engine.core.units import WHOLE_MAX, ppm, ticks, time_ns

SYMBOL_LENGTH_MAX = 64
UNKNOWN_TICKS = 0  # of a price whose contract or order nobody knows: the engine refuses it whatever happened meanwhile

Whole = Annotated[int, msgspec.Meta(ge=-WHOLE_MAX, le=WHOLE_MAX)]
AccountNumber = Annotated[int, msgspec.Meta(ge=0, le=WHOLE_MAX)]  # 0, the insurance, may have positions to close
ClientId = Annotated[str, msgspec.Meta(min_length=1, max_length=CLIENT_ID_LENGTH_MAX)]
Symbol = Annotated[str, msgspec.Meta(min_length=1, max_length=SYMBOL_LENGTH_MAX)]
Side = Literal["Buy", "Sell"]

NAMES = {
    "cl_ord_id": "clOrdID", "order_qty": "orderQty", "stop_px": "stopPx", "time_in_force": "timeInForce",
    "trail_amount": "trailAmount", "trail_rate": "trailRate", "take_profit": "takeProfit", "stop_loss": "stopLoss",
    "post_only": "postOnly", "reduce_only": "reduceOnly", "display_qty": "displayQty",
    "self_trade_prevention": "selfTradePrevention", "expire_time": "expireTime", "expires_at": "expiresAt",
}  # fmt: skip


class Body(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, rename=NAMES, gc=False):
    """The base of what people write; names are those of the JSON."""


class OtherBody(Body, frozen=True, kw_only=True):
    """An order that comes with another one, of the same size, account and symbol. `side`, for `oco` only: else the same."""

    cl_ord_id: ClientId
    side: Side | None = None
    price: Decimal | None = None
    stop_px: Decimal | None = None
    trail_amount: Decimal | None = None
    trail_rate: Decimal | None = None


class PlaceBody(Body, frozen=True, kw_only=True):
    """A new order: market without a price, limit with one, stop or stop-limit with `stopPx`; `displayQty` 0 shows all.

    `trailAmount` (in price units) or `trailRate` (a fraction, 0.01 is one percent): a stop that follows the last trade at this
    distance, from `stopPx` when it is given. `oco`: what one of the two trades, the other may not. `takeProfit` (a limit) and
    `stopLoss` (a stop): reduce-only, held until this order trades, then an OCO pair of the size that is filled.
    """

    account: AccountNumber
    symbol: Symbol
    cl_ord_id: ClientId
    side: Side
    order_qty: Whole
    price: Decimal | None = None
    stop_px: Decimal | None = None
    time_in_force: TimeInForce = TimeInForce.GTC
    post_only: bool = False
    reduce_only: bool = False
    display_qty: Whole = 0
    self_trade_prevention: SelfTrade = SelfTrade.NEWEST
    expire_time: str | Whole | None = None
    trail_amount: Decimal | None = None
    trail_rate: Decimal | None = None
    oco: OtherBody | None = None
    take_profit: OtherBody | None = None
    stop_loss: OtherBody | None = None


class AmendBody(Body, frozen=True, kw_only=True):
    """Other terms of an open order; what is absent or null stays as it is."""

    account: AccountNumber
    cl_ord_id: ClientId
    order_qty: Whole | None = None
    price: Decimal | None = None
    stop_px: Decimal | None = None


def place_of(body: PlaceBody, instrument: Instrument | None) -> PlaceOrder:
    """Return the command of a body; without an instrument prices become UNKNOWN_TICKS and the engine refuses the symbol.

    Raises: Misaligned, ValueError.
    """
    return PlaceOrder(
        account=body.account,
        symbol=body.symbol,
        cl_ord_id=body.cl_ord_id,
        side=SIDES[body.side],
        size_lots=body.order_qty,
        price_ticks=_ticks_of(instrument, "price", body.price),
        stop_ticks=_ticks_of(instrument, "stopPx", body.stop_px),
        time_in_force=body.time_in_force,
        post_only=body.post_only,
        reduce_only=body.reduce_only,
        display_lots=body.display_qty,
        self_trade=body.self_trade_prevention,
        expire_ns=0 if body.expire_time is None else time_ns(body.expire_time),
        more=_more_of(instrument, body),
    )


def _more_of(instrument: Instrument | None, body: PlaceBody) -> More | UnsetType:
    if all(one is None for one in (body.oco, body.take_profit, body.stop_loss, body.trail_amount, body.trail_rate)):
        return UNSET
    legs = [_leg_of(instrument, one) for one in (body.oco, body.take_profit, body.stop_loss)]
    more = More(_trail_of(instrument, body), *legs)
    return UNSET if more == More() else more


def _leg_of(instrument: Instrument | None, body: OtherBody | None) -> Leg | UnsetType:
    if body is None:
        return UNSET
    price, stop = _ticks_of(instrument, "price", body.price), _ticks_of(instrument, "stopPx", body.stop_px)
    return Leg(body.cl_ord_id, UNSET if body.side is None else SIDES[body.side], price, stop, _trail_of(instrument, body))


def _trail_of(instrument: Instrument | None, body: PlaceBody | OtherBody) -> Trail | UnsetType:
    """Return how far a stop trails; of zero or less, and of both distances at once, the engine says what is wrong."""
    if body.trail_amount is None and body.trail_rate is None:
        return UNSET
    rate_ppm = 0 if body.trail_rate is None else ppm("trailRate", body.trail_rate)
    return Trail(_ticks_of(instrument, "trailAmount", body.trail_amount) or 0, rate_ppm)


def amend_of(body: AmendBody, instrument: Instrument | None) -> AmendOrder:
    """Return the command of a body; `instrument` is that of the order, None when nobody knows it. Raises: as `place_of`."""
    return AmendOrder(
        account=body.account,
        cl_ord_id=body.cl_ord_id,
        size_lots=body.order_qty,
        price_ticks=_ticks_of(instrument, "price", body.price),
        stop_ticks=_ticks_of(instrument, "stopPx", body.stop_px),
    )


def _ticks_of(instrument: Instrument | None, field: str, value: Decimal | None) -> int | None:
    if value is None:
        return None
    if instrument is None:
        return UNKNOWN_TICKS
    return ticks(instrument, value, field)
