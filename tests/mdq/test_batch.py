"""A batch to a queue message and back."""

from __future__ import annotations

import contextlib
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mdq.batch import Batch, MalformedBatch, from_message, leased_epoch, new_epoch

NOW_NS = 1_700_000_000_000_000_000
BATCH = Batch("options-2", 1, "trades", 3, "0abc", 1_234_567_890_123, 2, NOW_NS, NOW_NS + 1, NOW_NS - 5, b"[1,2]")


def test_a_batch_survives_the_queue() -> None:
    """Headers and body together are the whole batch."""
    assert from_message(BATCH.headers(), BATCH.body) == BATCH


@pytest.mark.parametrize("name", list(BATCH.headers()))
def test_a_message_without_a_header_is_malformed(name: str) -> None:
    """Each header is needed, and the error says which one is missing."""
    headers = BATCH.headers()
    del headers[name]
    with pytest.raises(MalformedBatch, match=name):
        from_message(headers, b"[]")


@pytest.mark.parametrize("name", ["", "Stocks", "a b", "-a", "a" * 33, "a\n", 7, None])
def test_a_source_that_is_no_name_is_malformed(name: Any) -> None:
    """Lower case letters, digits and dashes, at most 32: it becomes part of keys and queue names."""
    with pytest.raises(MalformedBatch, match="source"):
        from_message(BATCH.headers() | {"source": name}, b"[]")


def test_a_tenures_epoch_sorts_with_those_of_sources_without_a_lease() -> None:
    """A fence is at least the millisecond of its tenure's start: a source may get a lease later."""
    before, after = new_epoch(NOW_NS - 5_000_000, 0.9), new_epoch(NOW_NS + 5_000_000, 0)
    assert before < leased_epoch(NOW_NS // 1_000_000) < leased_epoch(NOW_NS // 1_000_000 + 1) < after


@given(st.dictionaries(st.sampled_from([*BATCH.headers(), "other"]), st.one_of(st.none(), st.text(), st.binary(), st.floats())))
def test_foreign_headers_raise_nothing_else(headers: dict[str, Any]) -> None:
    """Whatever a stranger puts into the headers, the outcome is a batch or MalformedBatch."""
    with contextlib.suppress(MalformedBatch):
        assert isinstance(from_message(headers, b""), Batch)


@given(st.integers(0, 4 * 10**18), st.integers(1, 10**15), st.floats(0, 1, exclude_max=True), st.floats(0, 1, exclude_max=True))
def test_epochs_sort_by_start_time(wall_ns: int, later_ms: int, dice: float, other: float) -> None:
    """The epoch of a publisher started a millisecond or more later is greater, whatever the dice say."""
    assert new_epoch(wall_ns, dice) < new_epoch(wall_ns + later_ms * 1_000_000, other)


def test_a_market_travels_in_the_headers_where_there_is_one() -> None:
    """A tape's batch says of no market that all is of it; a listener of before never does."""
    plain = Batch("s", 0, "trades", 0, "e", 0, 1, 1, 2, 3, b"[1]")
    assert "market" not in plain.headers()
    futures = replace(plain, market="futures/cme")
    assert from_message(futures.headers(), b"[1]") == futures
    assert from_message(plain.headers(), b"[1]") == plain


def test_a_trace_travels_in_the_headers_of_drawn_batches_only() -> None:
    """A batch without one has no such header; one with it is the same batch on the other side."""
    plain = Batch("s", 0, "trades", 0, "e", 0, 1, 1, 2, 3, b"[1]")
    assert "traceparent" not in plain.headers()
    drawn = replace(plain, trace="00-0123456789abcdef0123456789abcdef-0123456789abcdef-01")
    assert drawn.headers()["traceparent"] == drawn.trace
    assert from_message(drawn.headers(), b"[1]") == drawn
    assert from_message(plain.headers(), b"[1]") == plain
