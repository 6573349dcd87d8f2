"""Prices and times at the border: exact, strict, and never long in the making."""

from __future__ import annotations

import time
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.core.commands import Instrument
from engine.core.units import Misaligned, iso, price, scale, ticks, time_ns

CENT = Instrument("X", tick_size="0.01")
HALF = Instrument("X", tick_size="0.5")
TEN = Instrument("X", tick_size="10")
EIGHTH = Instrument("X", tick_size="0.125")


@pytest.mark.parametrize(
    ("instrument", "written", "expected"),
    [
        (CENT, 0.07, 7), (CENT, "0.07", 7), (CENT, 1.1, 110), (CENT, 3, 300), (CENT, Decimal("4.350"), 435), (CENT, "1e2", 10_000),
        (HALF, 50_000.5, 100_001), (HALF, "1", 2), (TEN, 20, 2), (TEN, "1E+1", 1), (EIGHTH, 0.125, 1), (EIGHTH, "1.625", 13),
    ],
)  # fmt: skip
def test_a_price_becomes_ticks_exactly(instrument: Instrument, written: Any, expected: int) -> None:
    """Numbers and decimal strings alike; binary fractions play no part."""
    assert ticks(instrument, written) == expected


@pytest.mark.parametrize(("instrument", "written"), [(CENT, 0.075), (HALF, "1.25"), (TEN, 15), (EIGHTH, 0.1), (CENT, "1e-12")])
def test_a_price_between_ticks_is_misaligned(instrument: Instrument, written: Any) -> None:
    """It is not rounded, and the text names the tick size."""
    with pytest.raises(Misaligned, match=f"not a multiple of the tick size {instrument.tick_size}"):
        ticks(instrument, written)


@pytest.mark.parametrize(
    "written",
    [
        0, -1, "0", "-0.01", float("nan"), float("inf"), float("-inf"), "NaN", "sNaN", "Infinity", "1e400", "1e-400", 10**400,
        Decimal("1e999999"), Decimal("1e-999999"), "1e999999999999999999", "9" * 100_000, "0." + "1" * 100_000, "1e18", True, False,
        None, "", "abc", "1,5", "0x10", [], {}, b"1",
    ],
)  # fmt: skip
def test_nonsense_is_refused_quickly(written: Any) -> None:
    """No number, not finite, not above zero, too long, too large: an error at once, in a short text."""
    began_s = time.process_time()
    with pytest.raises(ValueError, match="price") as refused:
        ticks(CENT, written)
    assert not isinstance(refused.value, Misaligned)
    assert len(str(refused.value)) < 150
    assert time.process_time() - began_s < 0.5


def test_more_than_the_instrument_allows_is_the_engines_question() -> None:
    """A large but sane price is converted."""
    assert ticks(CENT, 10**9) == 10**11


@given(st.integers(1, 10**12), st.sampled_from(["0.01", "0.5", "0.125", "1", "10", "0.00000001", "0.003", "25"]))
def test_prices_and_ticks_go_round(number: int, tick_size: str) -> None:
    """What is written out as a number or as its text reads back as the same ticks, as far as a float can tell them apart."""
    instrument = Instrument("X", tick_size=tick_size)
    assert ticks(instrument, str(Decimal(tick_size) * number)) == number
    assert price(instrument, number) == float(Decimal(tick_size) * number)
    assert ticks(instrument, price(instrument, number)) == number


@pytest.mark.parametrize("size", ["0", "-1", "NaN", "Infinity", "", "x", "1e99", "1e-99"])
def test_a_size_that_is_no_decimal_above_zero_is_refused(size: str) -> None:
    """A tick of nothing would divide by zero."""
    with pytest.raises(ValueError, match="size"):
        scale(size)


@pytest.mark.parametrize(
    "written",
    ["", "now", "2026-11-21", "2026-11-21T02:16:49", "2026-13-01T00:00:00Z", "1969-12-31T23:59:59Z", "2300-01-01T00:00:00Z",
     "0001-01-01T00:00:00+23:59", "9999-12-31T23:59:59-23:59", -1, 2**63, True, "1" * 100_000],
)  # fmt: skip
def test_times_without_a_zone_or_out_of_range_are_refused(written: Any) -> None:
    """A time means one moment or is an error."""
    with pytest.raises(ValueError, match="time") as refused:
        time_ns(written)
    assert len(str(refused.value)) < 150


@given(st.integers(0, 9_000_000_000_000))
def test_times_go_round(time_ms: int) -> None:
    """Milliseconds are kept; zones are honoured."""
    assert time_ns(iso(time_ms * 1_000_000)) == time_ms * 1_000_000
    assert time_ns(time_ms) == time_ms * 1_000_000


def test_a_time_in_another_zone_is_the_same_moment() -> None:
    """Offsets and fractions count."""
    assert time_ns("2026-11-21T03:16:49.123456+01:00") == 1_795_227_409_123_456_000
    assert iso(1_795_227_409_123_999_999) == "2026-11-21T02:16:49.123Z"
