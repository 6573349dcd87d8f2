"""Prices, times and order bodies as people write them in, ticks, nanoseconds and commands out; and prices and times back.

At the border a price is a decimal number or a decimal string in price units, a quantity a whole number of contracts, money
whole units, a time ISO 8601 with its zone or whole milliseconds since the epoch. Nothing is rounded: what does not fit is
refused with a text that says what would. Booleans are no numbers, and a field nobody knows is an error.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal, InvalidOperation
from functools import lru_cache
from typing import Annotated, Literal

import msgspec

from engine.core.book import BUY, SELL
from engine.core.commands import AmendOrder, Instrument, PlaceOrder, SelfTrade, TimeInForce

WHOLE_MAX = 2**53 - 1  # what every JSON reader keeps exactly
DIGITS_MAX = 40  # of a price: far more than any market has, and few enough to calculate with
CLIENT_ID_LENGTH_MAX = 64
SYMBOL_LENGTH_MAX = 64
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MS_MAX = (2**63 - 1) // 10**6  # nanoseconds must fit 64 bits: until the year 2262
MICROSECOND = timedelta(microseconds=1)
UNKNOWN_TICKS = 0  # of a price whose contract or order nobody knows: the engine refuses it whatever happened meanwhile

Whole = Annotated[int, msgspec.Meta(ge=-WHOLE_MAX, le=WHOLE_MAX)]
AccountNumber = Annotated[int, msgspec.Meta(ge=0, le=WHOLE_MAX)]  # 0, the insurance, may have positions to close
ClientId = Annotated[str, msgspec.Meta(min_length=1, max_length=CLIENT_ID_LENGTH_MAX)]
Symbol = Annotated[str, msgspec.Meta(min_length=1, max_length=SYMBOL_LENGTH_MAX)]
Side = Literal["Buy", "Sell"]
SIDES = {"Buy": BUY, "Sell": SELL}

NAMES = {
    "cl_ord_id": "clOrdID", "order_qty": "orderQty", "stop_px": "stopPx", "time_in_force": "timeInForce",
    "post_only": "postOnly", "reduce_only": "reduceOnly", "display_qty": "displayQty",
    "self_trade_prevention": "selfTradePrevention", "expire_time": "expireTime", "expires_at": "expiresAt",
}  # fmt: skip


class Misaligned(ValueError):
    """A price between two ticks."""


class Body(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, rename=NAMES, gc=False):
    """The base of what people write; names are those of the JSON."""


class PlaceBody(Body, frozen=True, kw_only=True):
    """A new order: market without a price, limit with one, stop or stop-limit with `stopPx`; `displayQty` 0 shows all."""

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
    )


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


def ticks(instrument: Instrument, value: Decimal | int | float | str, field: str = "price") -> int:
    """Return a price as ticks, exactly; `field` names it in the error. A float counts as the shortest decimal it prints as.

    Raises: Misaligned between two ticks; ValueError for what is no number, not finite, not above zero or absurdly long or
    large. Whether it is beyond the instrument's largest price is the engine's question.
    """
    number = _decimal(value, field)
    if not number.is_finite() or number <= 0:
        raise ValueError(f"{field} {_short(number)} must be a number above zero")
    if len(number.as_tuple().digits) > DIGITS_MAX or abs(number.adjusted()) > DIGITS_MAX:
        raise ValueError(f"{field} {_short(number)} has too many digits")
    tick_over, tick_under = scale(instrument.tick_size)
    over, under = number.as_integer_ratio()
    whole, rest = divmod(over * tick_under, under * tick_over)
    if rest:
        raise Misaligned(f"{field} {_short(number)} is not a multiple of the tick size {instrument.tick_size}")
    if whole > WHOLE_MAX:
        raise ValueError(f"{field} {_short(number)} is too large")
    return whole


def price(instrument: Instrument, ticks: int) -> float:
    """Return the price of some ticks, or of a fraction of one summed up over many: correctly rounded, not accumulated."""
    over, under = scale(instrument.tick_size)
    return ticks * over / under


@lru_cache(maxsize=1024)
def scale(size: str) -> tuple[int, int]:
    """Return a tick or lot size as a fraction in lowest terms.  Raises: ValueError when it is no decimal above zero."""
    number = _decimal(size, "size")
    if not number.is_finite() or number <= 0 or len(number.as_tuple().digits) > DIGITS_MAX or abs(number.adjusted()) > DIGITS_MAX:
        raise ValueError(f"size {_short(number)} must be a decimal above zero, like 0.25")
    return number.as_integer_ratio()


def _decimal(value: Decimal | int | float | str, field: str) -> Decimal:
    if isinstance(value, bool) or not isinstance(value, Decimal | int | float | str):
        raise ValueError(f"{field} must be a number or a decimal string, not {type(value).__name__}")
    if isinstance(value, int) and abs(value) > 10**DIGITS_MAX:
        raise ValueError(f"{field} has too many digits")  # before anything writes it out
    try:
        return Decimal(repr(value) if isinstance(value, float) else value)
    except InvalidOperation:
        raise ValueError(f"{field} {str(value)[:50]!r} is not a number") from None


def _short(number: Decimal) -> str:
    text = str(number)
    return text if len(text) <= DIGITS_MAX + 10 else f"{text[:DIGITS_MAX]}…"


def time_ns(value: str | int) -> int:
    """Return a time in ns since the epoch: ISO 8601 with its zone (to the microsecond), or whole ms.  Raises: ValueError."""
    if isinstance(value, bool):
        raise ValueError("a time must be ISO 8601 or whole milliseconds, not bool")
    if isinstance(value, int):
        if not 0 <= value <= MS_MAX:
            raise ValueError("a time in milliseconds must be between 1970 and 2262")
        return value * 1_000_000
    try:
        moment = datetime.fromisoformat(value)
    except ValueError:
        raise ValueError(f"time {value[:50]!r} is not ISO 8601, like 2026-11-21T02:16:49.123Z") from None
    if moment.tzinfo is None:
        raise ValueError(f"time {value[:50]!r} has no zone; write 2026-11-21T02:16:49.123Z")
    found = (moment - EPOCH) // MICROSECOND * 1_000
    if not 0 <= found <= MS_MAX * 1_000_000:
        raise ValueError(f"time {value[:50]!r} must be between 1970 and 2262")
    return found


def iso(time_ns: int) -> str:
    """Return a time in ns as ISO 8601 in UTC, whole milliseconds: 2026-11-21T02:16:49.123Z."""
    return (EPOCH + timedelta(milliseconds=time_ns // 1_000_000)).isoformat(timespec="milliseconds")[:-6] + "Z"
