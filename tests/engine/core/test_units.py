"""Prices, times and order bodies at the border: exact, strict, and never long in the making."""

from __future__ import annotations

import json
import time
from decimal import Decimal
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.core.commands import AmendOrder, Instrument, PlaceOrder, SelfTrade, TimeInForce
from engine.core.units import AmendBody, Misaligned, PlaceBody, amend_of, iso, place_of, price, scale, ticks, time_ns

CENT = Instrument("X", tick_size="0.01")
HALF = Instrument("X", tick_size="0.5")
TEN = Instrument("X", tick_size="10")
EIGHTH = Instrument("X", tick_size="0.125")
ORDER = {"account": 7, "symbol": "X", "clOrdID": "a", "side": "Buy", "orderQty": 3}


def place(**changes: Any) -> PlaceOrder:
    """Return the command of a place body with some fields changed."""
    return place_of(msgspec.json.decode(json.dumps(ORDER | changes), type=PlaceBody), CENT)


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
    began_s = time.perf_counter()
    with pytest.raises(ValueError, match="price") as refused:
        ticks(CENT, written)
    assert not isinstance(refused.value, Misaligned)
    assert len(str(refused.value)) < 150
    assert time.perf_counter() - began_s < 0.5


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
