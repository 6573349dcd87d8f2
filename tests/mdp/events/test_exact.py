"""Checks units, sums and ratios against Decimal."""

from __future__ import annotations

from decimal import ROUND_HALF_EVEN, Decimal
from fractions import Fraction

from hypothesis import example, given
from hypothesis import strategies as st

from mdp.events.exact import UNITS, number, ratio, units

WHOLES = st.integers(0, 10**15)
DECIMALS = st.builds(lambda digits, places: Decimal(digits).scaleb(-places), st.integers(0, 10**15), st.integers(0, 10))
VOLUMES = st.integers(1, 10**25)


@given(DECIMALS)
@example(Decimal("123456789.123"))
@example(Decimal("450360.9627370497"))
@example(Decimal("0.1"))
def test_a_decimal_of_ten_places_is_exact(value: Decimal) -> None:
    """A decimal that was read into a float and has at most 15 digits is that decimal again, in units."""
    assert units(float(value)) == value * UNITS


@given(st.floats(0, 1e15, exclude_max=True))
def test_any_float_is_its_shortest_decimal_rounded(value: float) -> None:
    """Finer numbers are rounded half-even at the tenth place, of the decimal that a reader of the JSON sees."""
    assert units(value) == int((Decimal(repr(value)) * UNITS).to_integral_value(ROUND_HALF_EVEN))


@given(WHOLES)
def test_whole_numbers_are_exact_and_come_back_whole(value: int) -> None:
    """Shares stay integers."""
    assert units(value) == value * UNITS
    back = number(units(value))
    assert back == value
    assert isinstance(back, int)


@given(st.lists(DECIMALS, max_size=30))
def test_sums_are_exact(values: list[Decimal]) -> None:
    """However many fractional sizes are added, the sum is the nearest number to the true one."""
    assert Fraction(number(sum(units(float(value)) for value in values))) == Fraction(float(sum(values, Decimal(0))))


@given(st.integers(0, 10**35), VOLUMES)
def test_a_ratio_is_correctly_rounded(notional: int, volume: int) -> None:
    """vwap is the float nearest to the exact quotient."""
    assert ratio(notional, volume) == float(Fraction(notional, volume * UNITS))


def test_nothing_traded_has_no_average() -> None:
    """No volume, no price."""
    assert ratio(0, 0) is None
