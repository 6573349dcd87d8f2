"""Converts prices between decimals and ticks, and times between ISO 8601 and nanoseconds, exactly or not at all.

A price is a decimal number or a decimal string in price units, a time ISO 8601 with its zone or whole milliseconds since the
epoch. Nothing is rounded: what does not fit is refused with a text that says what would. Booleans are no numbers.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal, InvalidOperation
from functools import lru_cache

from engine.core.commands import Instrument

PPM = 1_000_000
WHOLE_MAX = 2**53 - 1  # what every JSON reader keeps exactly
DIGITS_MAX = 40  # of a price: far more than any market has, and few enough to calculate with
RATE_DIGITS = 9  # of a fraction, before and behind the point
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MS_MAX = (2**63 - 1) // 10**6  # nanoseconds must fit 64 bits: until the year 2262
MICROSECOND = timedelta(microseconds=1)


class Misaligned(ValueError):
    """A price between two ticks."""


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


def ppm(field: str, rate: Decimal) -> int:
    """Return a rate as parts per million.  Raises: ValueError between two of them."""
    if not rate.is_finite() or (rate and not -RATE_DIGITS <= rate.adjusted() < RATE_DIGITS):
        raise ValueError(f"{field} must be a fraction, like 0.0005")
    if len(rate.as_tuple().digits) > DIGITS_MAX:
        raise ValueError(f"{field} has too many digits")
    if not rate:
        return 0
    over, under = rate.as_integer_ratio()
    whole, rest = divmod(over * PPM, under)
    if rest:
        raise ValueError(f"{field} has more than six digits behind the point")
    return whole


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
