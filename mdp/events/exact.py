"""Converts JSON numbers to whole units of 10⁻¹⁰ and back, so that sums of fractional sizes stay exact.

0.1 + 0.2 is not 0.3 in floats; 1_000_000_000 + 2_000_000_000 units is. A float that a decimal of up to ten places was read
into is that decimal again after one rounding; the division back proves it. Anything finer, or so large that floats lie
farther apart than units, goes through Decimal.
"""

from __future__ import annotations

from decimal import ROUND_HALF_EVEN, Decimal

UNITS = 10**10
UNITS_FLOAT = 1e10
PROOF_MAX = 1 << 52  # units up to here (a value of 450,000) differ as floats, too: the division back tells them apart


def units(value: int | float) -> int:
    """Return `value` in units of 10⁻¹⁰, exact for decimals of up to ten places, else rounded half-even.

    Cost: 0.15 µs; of large fractions 1 µs.
    """
    if value.__class__ is int:
        return value * UNITS
    scaled = round(value * UNITS_FLOAT)
    if scaled <= PROOF_MAX and scaled / UNITS_FLOAT == value:
        return scaled
    return int((Decimal(repr(value)) * UNITS).to_integral_value(ROUND_HALF_EVEN))


def number(whole: int) -> int | float:
    """Return units as the nearest number, an int when it is one."""
    quotient, rest = divmod(whole, UNITS)
    return whole / UNITS if rest else quotient


def ratio(notional: int, volume: int) -> float | None:
    """Return price = notional (units²) / volume (units), correctly rounded; None without volume."""
    return notional / (volume * UNITS) if volume else None
