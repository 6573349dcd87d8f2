"""Checks the T, Q and L2 events made of the exchange's frames against levels in plain dicts, over random sequences."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterable
from decimal import Decimal
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mdl.feeds.exchange_market import DEPTH_EVERY_NS, BadFrame, Cursor, Instrument, Market, Message, Scale, Snapshot, read_frame
from tests.mdl.calm import calm

MS = 1_763_691_409_123
TIME = "2025-11-21T02:16:49.123Z"
SYMBOLS = {"BTC-PERP": ("0.5", "0.001"), "ETH-PERP": ("0.05", "1"), "ODD": ("0.003", "0.25")}
INSTRUMENTS = [Instrument(symbol, tick, lot) for symbol, (tick, lot) in SYMBOLS.items()]
MS_NS = 1_000_000

Levels = dict[int, int]  # ticks → contracts
Plain = dict[tuple[str, str], Levels]  # (symbol, side) → levels


def message(index: int, updates: Iterable[dict[str, Any]] = (), trades: Iterable[list[dict[str, Any]]] = ()) -> Message:
    """Return what the exchange would send, read as the feed reads it."""
    frame = {
        "messageIndex": index, "prevMessageIndex": max(0, index - 1), "timestamp": TIME, "executions": list(trades),
        "accountTransactions": [], "liquidations": [], "fundingCharges": [], "livenessChecks": [], "bookUpdates": list(updates),
    }  # fmt: skip
    found = read_frame(json.dumps(frame).encode())
    assert isinstance(found, Message)
    return found


def update(symbol: str, side: str, ticks: int, lots: int) -> dict[str, Any]:
    return {"symbol": symbol, "side": side, "price": ticks * float(SYMBOLS[symbol][0]), "qty": lots}


def execution(trade: str | None, lots: int = 3, price: float | None = 100.5, **more: Any) -> dict[str, Any]:
    found = {"symbol": "BTC-PERP", "execType": "Trade", "lastQty": lots, "lastPx": price, "orderId": "7", "account": 1}
    return found | ({} if trade is None else {"trdMatchID": trade}) | more


def snapshot(symbol: str, index: int, plain: Plain) -> Snapshot:
    tick = float(SYMBOLS[symbol][0])
    levels = [
        [{"price": ticks * tick, "qty": lots, "orders": 1} for ticks, lots in sorted(plain[symbol, side].items(), reverse=down)]
        for side, down in (("Buy", True), ("Sell", False))
    ]
    found = {"symbol": symbol, "messageIndex": index, "timestamp": TIME, "bids": levels[0], "asks": levels[1], "markPrice": None}
    return msgspec.json.decode(json.dumps(found), type=Snapshot)


def empty() -> Plain:
    return {(symbol, side): {} for symbol in SYMBOLS for side in ("Buy", "Sell")}


def market(levels: int = 20) -> Market:
    made = Market(levels)
    made.learn(INSTRUMENTS)
    for symbol in SYMBOLS:
        assert made.seed(snapshot(symbol, 0, empty())) == []
    return made


def decoded(events: list[bytes]) -> list[dict[str, Any]]:
    return [json.loads(event) for event in events]


def best(plain: Plain, symbol: str, levels: int) -> tuple[list[list[float]], list[list[float]]]:
    """Return the depth as its event should say it: prices and sizes as the nearest floats to the decimals."""
    tick, lot = (float(step) for step in SYMBOLS[symbol])
    sides = [sorted(plain[symbol, side].items(), reverse=side == "Buy")[:levels] for side in ("Buy", "Sell")]
    bids, asks = ([[pytest.approx(t * tick), pytest.approx(q * lot)] for t, q in side] for side in sides)
    return bids, asks


def test_a_trade_is_told_once_though_both_sides_report_it() -> None:
    """In the order of the message; the size is in the base asset, the time is the exchange's."""
    trades = [
        [execution("8"), execution("8"), execution("9", lots=10, price=100), execution("9", lots=10, price=100)],
        [execution("10", symbol="ETH-PERP", price=7.25), execution("10", symbol="ETH-PERP", price=7.25)],
    ]
    first, second, third = decoded(market().apply(message(5, trades=trades)))
    assert first == {"ev": "T", "sym": "BTC-PERP", "i": "8", "x": 0, "p": 100.5, "s": 0.003, "t": MS}
    assert (second["i"], second["p"], second["s"]) == ("9", 100.0, 0.01)
    assert (third["sym"], third["i"], third["s"]) == ("ETH-PERP", "10", 3)


def test_only_trades_are_trades() -> None:
    """Orders, liquidations and funding print nothing, and are no fault."""
    kinds = ("New", "Canceled", "Replaced", "Rejected", "Triggered", "Liquidation", "Deleverage", "Funding")
    one = market()
    assert one.apply(message(5, trades=[[execution("1", execType=kind)] for kind in kinds])) == []
    assert one.unknown(message(5, trades=[[execution("1", execType="Rejected", symbol="???")]])) == set()
    assert one.malformed == 0


@pytest.mark.parametrize("bad", [{"trade": None}, {"trade": ""}, {"lots": 0}, {"lots": -1}, {"price": None}, {"price": 0}])
def test_a_trade_that_cannot_be_is_counted(bad: dict[str, Any]) -> None:
    """The others of its message are told all the same."""
    one = market()
    trades = [[execution(**({"trade": "1"} | bad)), execution("2")]]
    assert [event["i"] for event in decoded(one.apply(message(5, trades=trades)))] == ["2"]
    assert one.malformed == 1


def test_the_top_is_told_when_it_changes_and_only_then() -> None:
    """Price or size of either side, once a message; an empty side is zero."""
    one = market()
    (quote,) = decoded(one.apply(message(1, [update("BTC-PERP", "Buy", 200, 5)])))
    assert quote == {"ev": "Q", "sym": "BTC-PERP", "bp": 100.0, "bs": 0.005, "ap": 0, "as": 0, "t": MS}
    assert one.apply(message(2, [update("BTC-PERP", "Buy", 199, 7)])) == []
    assert one.apply(message(3, [update("BTC-PERP", "Buy", 200, 5)])) == []
    (quote,) = decoded(one.apply(message(4, [update("BTC-PERP", "Buy", 200, 0), update("BTC-PERP", "Sell", 203, 1)])))
    assert (quote["bp"], quote["bs"], quote["ap"], quote["as"]) == (99.5, 0.007, 101.5, 0.001)


def test_trades_come_before_the_top_they_leave() -> None:
    """A reader sees the print, then the new best price."""
    one = market()
    one.apply(message(1, [update("BTC-PERP", "Sell", 201, 3)]))
    events = decoded(one.apply(message(2, [update("BTC-PERP", "Sell", 201, 0)], [[execution("1"), execution("1")]])))
    assert [event["ev"] for event in events] == ["T", "Q"]


def test_depth_waits_its_time_and_its_last_state_always_leaves() -> None:
    """At most one a symbol in 50 ms; one that changed back is not told again."""
    one = market()
    one.depth(0)
    one.apply(message(1, [update("BTC-PERP", "Buy", 200, 5)]))
    assert [event["b"] for event in decoded(one.depth(10 * MS_NS))] == [[[100.0, 0.005]]]
    one.apply(message(2, [update("BTC-PERP", "Buy", 200, 6)]))
    assert one.due_ns == 60 * MS_NS
    assert one.depth(59 * MS_NS) == []
    one.apply(message(3, [update("BTC-PERP", "Buy", 200, 7), update("ETH-PERP", "Sell", 9, 1)]))
    assert [event["sym"] for event in decoded(one.depth(59 * MS_NS))] == ["ETH-PERP"]
    assert [event["b"] for event in decoded(one.depth(60 * MS_NS))] == [[[100.0, 0.007]]]
    assert one.due_ns is None
    one.apply(message(4, [update("BTC-PERP", "Buy", 200, 8)]))
    one.apply(message(5, [update("BTC-PERP", "Buy", 200, 7)]))
    assert one.depth(10_000 * MS_NS) == []
    assert one.due_ns is None


def test_a_snapshot_younger_than_a_message_wins() -> None:
    """Messages that the snapshot knows already print their trades and move no level."""
    plain = empty() | {("BTC-PERP", "Buy"): {200: 9}}
    one = market()
    (quote,) = decoded(one.seed(snapshot("BTC-PERP", 10, plain)))
    assert (quote["bp"], quote["bs"]) == (100.0, 0.009)
    events = decoded(one.apply(message(10, [update("BTC-PERP", "Buy", 200, 1)], [[execution("4")]])))
    assert [event["ev"] for event in events] == ["T"]
    (quote,) = decoded(one.apply(message(11, [update("BTC-PERP", "Buy", 200, 1)])))
    assert quote["bs"] == 0.001


def test_symbols_that_appear_later_are_asked_for() -> None:
    """Those in levels and in trades; until they are learned what is said of them is counted."""
    one = Market()
    new = message(3, [update("ODD", "Buy", 5, 1)], [[execution("1"), execution("1")]])
    assert one.unknown(new) == {"ODD", "BTC-PERP"}
    assert one.apply(new) == []
    assert one.malformed == 2 + 1
    one.learn([Instrument("ODD", "0.003", "0.25"), Instrument("BAD", "no number", "1"), Instrument("ZERO", "0", "1")])
    assert one.symbols == ["ODD"]
    assert one.malformed == 3 + 2
    one.learn([Instrument("ODD", "1", "1")])
    assert decoded(one.apply(new))[0]["bp"] == 0.015


LIVES = st.lists(
    st.tuples(
        st.lists(
            st.tuples(st.sampled_from([*SYMBOLS]), st.sampled_from(["Buy", "Sell"]), st.integers(1, 12), st.integers(0, 3)),
            max_size=4,
        ),
        st.integers(0, 80),  # ms until the next message
        st.booleans(),  # whether the depth is asked for in between
        st.integers(0, 9),  # 0: the books are read anew first
    ),
    max_size=60,
)


@calm
@given(life=LIVES, levels=st.integers(1, 6))
def test_what_is_told_is_always_what_the_levels_are(life: list[Any], levels: int) -> None:
    """Over any life: each Q is the top and differs from the one before, each L2 the best levels; in the end both are current."""
    one, plain, now_ns = market(levels), empty(), 0
    tops: dict[str, Any] = dict.fromkeys(SYMBOLS, (0, 0, 0, 0))
    depths: dict[str, Any] = {symbol: ([], []) for symbol in SYMBOLS}
    sent_ns = dict.fromkeys(SYMBOLS, -DEPTH_EVERY_NS)

    def hear_depth() -> None:
        for event in decoded(one.depth(now_ns)):
            symbol = event["sym"]
            assert (event["b"], event["a"]) == best(plain, symbol, levels)
            assert (event["b"], event["a"]) != depths[symbol]
            assert now_ns - sent_ns[symbol] >= DEPTH_EVERY_NS
            depths[symbol], sent_ns[symbol] = (event["b"], event["a"]), now_ns

    def hear_quotes(events: list[bytes]) -> None:
        for event in decoded(events):
            top = (event["bp"], event["bs"], event["ap"], event["as"])
            assert top != tops[event["sym"]]
            tops[event["sym"]] = top
        for symbol in SYMBOLS:
            bids, asks = best(plain, symbol, 1)
            assert tops[symbol] == (*(bids[0] if bids else (0, 0)), *(asks[0] if asks else (0, 0)))

    for index, (changes, pause_ms, look, anew) in enumerate(life, 1):
        for symbol, side, ticks, lots in changes:
            plain[symbol, side][ticks] = lots
            if not lots:
                del plain[symbol, side][ticks]
        given_ = message(index, [update(*change) for change in changes])
        if not anew:
            for symbol in SYMBOLS:
                for event in decoded(one.seed(snapshot(symbol, index, plain))):
                    tops[event["sym"]] = (event["bp"], event["bs"], event["ap"], event["as"])
        hear_quotes(one.apply(given_))
        if look:
            hear_depth()
        now_ns += pause_ms * MS_NS
    while (due_ns := one.due_ns) is not None:
        now_ns = max(now_ns, due_ns)
        hear_depth()
    for symbol in SYMBOLS:
        assert depths[symbol] == best(plain, symbol, levels)
    assert one.malformed == 0


@calm
@given(units=st.integers(0, 10**12), step=st.sampled_from(["1", "5", "0.1", "0.5", "0.05", "0.001", "0.003", "25", "0.00000001"]))
def test_amounts_are_the_nearest_floats_to_the_decimals(units: int, step: str) -> None:
    """What Python reads from the decimal text; and back."""
    scale = Scale(step)
    assert scale.amount(units) == float(Decimal(step) * units)
    assert scale.units(float(Decimal(step) * units)) == units


def test_a_cursor_knows_what_follows_what() -> None:
    """The next one, one seen before, one behind a hole; everything is next when no position is known."""
    cursor = Cursor()
    assert cursor.judge(message(7)) == "next"
    cursor.index = 7
    assert [cursor.judge(message(index)) for index in (6, 7, 8)] == ["seen", "seen", "next"]
    after = msgspec.structs.replace(message(20), previous=19)
    assert cursor.judge(after) == "hole"
    assert cursor.judge(msgspec.structs.replace(after, previous=7)) == "next"
    assert not cursor.meet(7)
    assert (cursor.index, cursor.life) == (7, 0)
    assert cursor.meet(6)
    assert (cursor.index, cursor.life, cursor.judge(after)) == (None, 1, "next")


@pytest.mark.parametrize(
    "data",
    [
        b"", b"not JSON", b"\xff\xfe", b"[]", b"{}", b"17", b"null", b"[" * 5_000, b'{"messageIndex":-1,"timestamp":"%s"}' % TIME.encode(),
        b'{"messageIndex":1,"timestamp":"yesterday"}', b'{"messageIndex":1,"timestamp":"2025-11-21T02:16:49"}',
        b'{"messageIndex":1,"timestamp":"%s","bookUpdates":[{"symbol":"A","side":"Left","price":1,"qty":1}]}' % TIME.encode(),
        b'{"messageIndex":1,"timestamp":"%s","bookUpdates":[{"symbol":"A","side":"Buy","price":1,"qty":-1}]}' % TIME.encode(),
        b'{"messageIndex":1,"timestamp":"%s","bookUpdates":[{"symbol":"A","side":"Buy","price":0,"qty":1}]}' % TIME.encode(),
        b'{"messageIndex":1,"timestamp":"%s","executions":[{}]}' % TIME.encode(),
    ],
)  # fmt: skip
def test_what_is_no_frame_is_said_so(data: bytes) -> None:
    """One error for every kind of garbage."""
    with pytest.raises(BadFrame):
        read_frame(data)


@calm
@given(st.binary(max_size=200) | st.text(max_size=200))
def test_no_input_raises_anything_else(data: bytes | str) -> None:
    """A frame, a gap's text, or a BadFrame."""
    with contextlib.suppress(BadFrame):
        assert isinstance(read_frame(data), Message | str)
