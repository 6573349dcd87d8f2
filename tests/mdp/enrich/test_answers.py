"""Checks how answers are read: rows on their own, halves and other shapes refused as a whole; only BadAnswer escapes."""

from __future__ import annotations

import contextlib
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mdp.enrich.answers import BadAnswer, DayRow, FloatRow, SnapshotRow, Split, read
from mdp.enrich.facts import Seen
from tests.mdl.calm import calm

ROW: dict[str, Any] = {"T": "A", "o": 1, "h": 3, "l": 1, "c": 2, "v": 100.5, "vw": 1.5, "t": 7, "n": 3}


def days(*rows: Any, **more: Any) -> bytes:
    return json.dumps({"results": list(rows), "status": "OK"} | more).encode()


def test_rows_are_judged_on_their_own() -> None:
    """A price of 0, a low above the high, text for a number: counted, and those beside them come."""
    bad = [ROW | {"c": 0}, ROW | {"l": 4}, ROW | {"v": "1"}, ROW | {"v": -1}, {}, 7, ROW | {"T": ""}]
    rows, count, url = read(days(ROW, *bad, resultsCount=8), DayRow)
    assert rows == [DayRow("A", 1, 3, 1, 2, 100.5, 1.5)]
    assert (count, url) == (7, None)


@pytest.mark.parametrize(
    "body",
    [
        b"", b"<html>", b"{}", b"[]", b'{"results":{"T":"A"}}', b'{"results":[', b'{"results":[7]}', b"\xff", b"[" * 100_000,
        b'{"results":[{"T":"A","o":1e400,"h":1,"l":1,"c":1,"v":1}]}',
    ],
)  # fmt: skip
def test_another_shape_is_no_answer(body: bytes) -> None:
    """Nothing of it is taken, and it says so in a line."""
    with pytest.raises(BadAnswer, match="another shape"):
        read(body, DayRow)


def test_half_an_answer_is_none() -> None:
    """As many rows as the vendor says, or none of them; that there are none is an answer."""
    with pytest.raises(BadAnswer, match="half an answer: 1 of 2 rows"):
        read(days(ROW, resultsCount=2), DayRow)
    assert read(b'{"status":"OK","resultsCount":0,"queryCount":0}', DayRow) == ([], 0, None)


def test_what_the_others_look_like() -> None:
    """A split, a float, a snapshot; 0 in a snapshot is nothing yet."""
    split = {"ticker": "A", "execution_date": "2026-11-20", "split_from": 1, "split_to": 4}
    assert read(days(split), Split)[0][0].split_to == 4
    free = {"ticker": "A", "free_float": 5, "effective_date": "2026-11-20", "free_float_percent": 3}
    assert read(days(free, next_url="http://h/?cursor=x"), FloatRow)[2] == "http://h/?cursor=x"
    quiet = {"ticker": "A", "day": {"o": 0, "h": 0, "l": 0, "c": 0, "v": 10, "vw": 2.5}, "updated": 5_000_000}
    [row], _, _ = read(json.dumps({"count": 1, "tickers": [quiet]}).encode(), SnapshotRow)
    assert row.seen == Seen(5, 10, 2.5, None, None, None)


@calm
@given(
    st.binary(max_size=200) | st.recursive(st.none() | st.integers() | st.text(), st.lists).map(lambda x: json.dumps(x).encode())
)
def test_whatever_comes_only_one_error_escapes(body: bytes) -> None:
    """BadAnswer, or an answer."""
    for row in (DayRow, FloatRow, SnapshotRow, Split):
        with contextlib.suppress(BadAnswer):
            read(body, row)
