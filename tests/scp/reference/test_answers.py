"""Reads answers of any shape: what comes out is right, or null, or nothing."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scp.reference import answers
from scp.reference.answers import BadAnswer

READERS = [
    answers.read_overview, answers.read_interest, answers.read_volume, answers.read_splits, answers.read_filings,
    answers.read_events, answers.read_bars,
]  # fmt: skip
NAMES = st.sampled_from([
    "results", "ticker", "name", "settlement_date", "short_interest", "date", "short_volume", "total_volume", "execution_date",
    "split_from", "split_to", "filing_date", "form_type", "filing_url", "events", "type", "ticker_change", "branding", "icon_url",
    "t", "o", "h", "l", "c", "v", "resultsCount", "count", "list_date",
])  # fmt: skip
LEAVES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=8),
    st.sampled_from(["NVDA", "2026-01-05", "ticker_change"]),
)
SHAPES = st.recursive(
    LEAVES, lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(NAMES, inner, max_size=6)), max_leaves=25
)


@settings(max_examples=150, deadline=None)
@given(st.one_of(st.dictionaries(NAMES, SHAPES, max_size=4).map(lambda one: {**one}), SHAPES), st.sampled_from(READERS))
def test_any_answer_is_read_or_refused(shape: Any, read: Any) -> None:
    """Nothing else escapes, and what is read can be sent on."""
    try:
        found = read(json.dumps(shape).encode(), "NVDA")
    except BadAnswer:
        return
    msgspec.json.encode(found)


@pytest.mark.parametrize("body", [b"", b"\xff", b"[" * 5_000, b'{"results":' * 900])
def test_bytes_that_are_no_answer_are_refused(body: bytes) -> None:
    """By every reader."""
    for read in READERS:
        with pytest.raises(BadAnswer):
            read(body, "NVDA")


def test_the_newest_row_counts_whatever_the_order() -> None:
    """Of rows of the stock itself; an address that is none is not passed on."""
    rows = [{"ticker": "NVDA", "date": f"2026-11-{day}", "short_volume": day, "total_volume": 100} for day in (10, 12, 11)]
    found = answers.read_volume(json.dumps({"results": rows}).encode(), "NVDA")
    assert found is not None
    assert (str(found.on), found.pct) == ("2026-11-12", 12.0)
    assert [answers.web(url) for url in ("https://a.b/c", "javascript:alert(1)", "https:///x", "data:text/html,x", "https://a:99999/", None)] == [
        "https://a.b/c", None, None, None, None, None,
    ]  # fmt: skip
