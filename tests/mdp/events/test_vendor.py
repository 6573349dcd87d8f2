"""Checks that vendor JSON is decoded into typed events, and that a bad event never loses its batch."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mdp.events.vendor import (
    LEVELS_MAX,
    Book,
    CryptoQuote,
    CryptoTrade,
    Decoder,
    ForexQuote,
    IndexValue,
    LimitBands,
    MinuteBar,
    Quote,
    SecondBar,
    Trade,
    split_array,
)

TRADE = {"ev": "T", "sym": "A", "p": 1.5, "s": 100, "t": 1_700_000_000_000}
GOOD: list[tuple[dict[str, Any], type]] = [
    ({"ev": "T", "sym": "MSFT", "x": 4, "i": "12345", "z": 3, "p": 114.125, "s": 100, "c": [0, 12], "t": 1536036818784, "q": 3681328}, Trade),
    ({"ev": "Q", "sym": "MSFT", "bx": 4, "bp": 114.125, "bs": 100, "ax": 7, "ap": 114.128, "as": 160, "c": 0, "i": [604], "t": 1536036818784, "q": 1, "z": 3}, Quote),
    ({"ev": "A", "sym": "SPCE", "v": 200, "av": 8642007, "op": 25.66, "vw": 25.39, "o": 25.39, "c": 25.39, "h": 25.39, "l": 25.39, "a": 25.38, "z": 50, "s": 1610144868000, "e": 1610144869000}, SecondBar),
    ({"ev": "AM", "sym": "O:SPY251219C00650000", "v": 2, "av": 8, "op": 2.2, "vw": 2.2, "o": 2.2, "c": 2.2, "h": 2.2, "l": 2.2, "a": 2.2, "z": 1, "s": 1610144820000, "e": 1610144880000}, MinuteBar),
    ({"ev": "XT", "pair": "BTC-USD", "p": 33021.9, "t": 1610462007425, "s": 0.01616617, "c": [2], "i": "14272084", "x": 3, "r": 1610462007576}, CryptoTrade),
    ({"ev": "XQ", "pair": "BTC-USD", "bp": 33052.79, "bs": 0.48, "ap": 33073.19, "as": 0.601, "t": 1610462411115, "x": 1, "r": 1610462411128}, CryptoQuote),
    ({"ev": "C", "p": "USD/CNH", "x": 44, "a": 6.83366, "b": 6.83363, "t": 1536036818784}, ForexQuote),
    ({"ev": "V", "val": 3988.5, "T": "I:SPX", "t": 1678220098130}, IndexValue),
    ({"ev": "LULD", "T": "MSFT", "h": 218.11, "l": 197.35, "i": [17], "z": 3, "t": 1601316845000, "q": 3371205}, LimitBands),
    ({"ev": "L2", "sym": "BTC-PERP", "b": [[60000.5, 0.012], [60000, 3]], "a": [[60001, 1.5]], "t": 1601316845000}, Book),
]  # fmt: skip
BOOK = {"ev": "L2", "sym": "A", "b": [[2, 1], [1, 1]], "a": [[3, 1], [4, 1]], "t": 1_700_000_000_000}
BAD = [
    {**TRADE, "p": 0}, {**TRADE, "p": -1}, {**TRADE, "p": "1.5"}, {**TRADE, "p": None}, {**TRADE, "s": -1}, {**TRADE, "t": -1},
    {**TRADE, "t": 1_700_000_000_000_000_000}, {**TRADE, "t": 1.5}, {**TRADE, "sym": ""},
    {**TRADE, "sym": "A" * 49}, {**TRADE, "sym": None}, {**TRADE, "c": 12}, {**TRADE, "i": 7},
    {**TRADE, "i": "x" * 129}, {**TRADE, "c": [1] * 65}, {**TRADE, "ev": "ZZ"}, {**TRADE, "ev": None}, {}, [], 5, None, "T", [TRADE],
    {k: v for k, v in TRADE.items() if k != "p"}, {**TRADE, "p": 1e12}, {**TRADE, "s": 1e15},
    *({**BOOK, "b": bad} for bad in (
        [[1, 1], [1, 2]], [[1, 1], [2, 1]], [[1, 0]], [[1, -1]], [[-1, 1]], [[0, 1]], [[1, 1e15]], [[1e12, 1]], [[1, "2"]], [[1, None]],
        [[1]], [[1, 2, 3]], [1, 2], {}, None, "", [{}], [[n, 1] for n in range(LEVELS_MAX + 1, 0, -1)],
    )),
    *({**BOOK, "a": bad} for bad in ([[1, 1], [1, 2]], [[2, 1], [1, 1]], [[n + 1, 1] for n in range(LEVELS_MAX + 1)])),
    {**BOOK, "t": None}, {k: v for k, v in BOOK.items() if k != "a"},
    {**GOOD[2][0], "vw": 1e300}, {**GOOD[2][0], "vw": -1}, {**GOOD[2][0], "op": 1e300}, {**GOOD[2][0], "a": -5},
]  # fmt: skip
BROKEN = [
    b'{"ev":"T","sym":"A","p":1.5,"s":1,"t":1,"i":"\xff"}', b'{"ev":"T","sym":"A","p":1.5,"s":1,"t":1,"i":"\\ud800"}',
    b'{"ev":"T","sym":"A","p":1e999,"s":1,"t":1}', b'{"ev":"T","sym":"A","p":NaN,"s":1,"t":1}', b'{"ev":"L2","sym":"A","b":[[1e999,1]],"a":[],"t":1}', b'{"ev":"L2","sym":"A","b":[[1,NaN]],"a":[],"t":1}', b'{"ev":"T",}', b"tru", b'{"ev":01}',
]  # fmt: skip


@pytest.mark.parametrize(("event", "kind"), GOOD, ids=[kind.__name__ for _, kind in GOOD])
def test_the_vendors_own_examples_decode(event: dict[str, Any], kind: type) -> None:
    """Every shape of the vendor's reference is understood, with fields that nobody uses passed over."""
    [found], bad = Decoder().decode(json.dumps([event]).encode())
    assert bad == []
    assert type(found) is kind
    assert found.symbol in json.dumps(event)


@pytest.mark.parametrize("bad", [json.dumps(event).encode() for event in BAD] + BROKEN, ids=repr)
@pytest.mark.parametrize("skip", [0, 1, 2])
def test_one_bad_event_never_loses_its_batch(bad: bytes, skip: int) -> None:
    """Whatever is wrong with one event, those before and after it arrive, and it is kept as it came, with a reason."""
    good = [json.dumps({**TRADE, "s": n}).encode() for n in range(4)]
    body = b"[" + b",".join([good[0], bad, good[1], good[2], good[3]]) + b"]"
    events, found = Decoder().decode(body, skip)
    sizes = [event.size for event in events]  # type: ignore[union-attr]
    assert sizes == [0, 1, 2, 3][{0: 0, 1: 1, 2: 1}[skip] :]
    assert [piece for piece, reason in found if reason] == ([bad] if skip < 2 else [])


@pytest.mark.parametrize("body", [b"", b"{}", b"[", b"]", b'[{"ev":"T"', b"null", b"\xff\xfe", b"[1,2", b'["', b"[]]", b"[1][2]"])
def test_what_is_no_array_is_one_bad_event(body: bytes) -> None:
    """A body that cannot be taken apart is kept whole, and nothing fails."""
    assert Decoder().decode(body) == ([], [(body, "the batch is not a JSON array of events")])
    assert Decoder().pieces(body) == []


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)


@given(st.lists(JSON, min_size=1, max_size=6), st.sampled_from([None, 1]), st.booleans())
def test_an_array_comes_apart_into_its_elements(items: list[Any], indent: int | None, ascii_only: bool) -> None:
    """Brackets and commas inside strings and nested values do not count."""
    body = json.dumps(items, indent=indent, ensure_ascii=ascii_only).encode("utf-8", "surrogatepass")
    assert [json.loads(piece.decode("utf-8", "surrogatepass")) for piece in split_array(body)] == items


@given(st.binary(max_size=60))
def test_no_bytes_break_the_decoder(noise: bytes) -> None:
    """Whatever arrives, the answer is events and bad events."""
    decoder = Decoder()
    for body in (noise, b"[" + noise + b"]", b"[" + json.dumps(TRADE).encode() + b"," + noise + b"]"):
        events, bad = decoder.decode(body)
        assert events or bad or decoder.pieces(body) == [] or body.strip() == b"[]" or json.loads(body) == []
        decoder.type_name(body)


def test_sizes_stay_whole_or_fractional() -> None:
    """100 is a number of shares, 0.5 a part of a coin: neither becomes the other."""
    events, _ = Decoder().decode(json.dumps([TRADE, {**GOOD[4][0]}, {**TRADE, "s": 2.5}]).encode())
    assert [(type(e.size), e.size) for e in events] == [(int, 100), (float, 0.01616617), (float, 2.5)]  # type: ignore[union-attr]


def test_a_book_may_be_empty_on_either_side_full_or_crossed() -> None:
    """No orders, twenty levels and a bid at the ask are what books look like."""
    full = [[n, 0.5] for n in range(LEVELS_MAX, 0, -1)]
    books = [
        {**BOOK, "b": b, "a": a} for b, a in (([], []), (full, []), ([], full[::-1]), (full, full[::-1]), ([[5, 1]], [[5, 1]]))
    ]
    events, bad = Decoder().decode(json.dumps(books).encode())
    assert bad == []
    assert [([list(level) for level in e.bids], [list(level) for level in e.asks]) for e in events] == [  # type: ignore[union-attr]
        (made["b"], made["a"]) for made in books
    ]


def test_the_type_of_an_unknown_event_is_told() -> None:
    """For the counts by type; bounded, and never an error."""
    decoder = Decoder()
    assert decoder.type_name(b'{"ev":"NEW"}') == "NEW"
    assert decoder.type_name(b'{"ev":"' + b"x" * 50 + b'"}') == "x" * 20
    assert [decoder.type_name(piece) for piece in (b"{}", b"5", b'{"ev":7}', b"\xff")] == ["(none)"] * 4
