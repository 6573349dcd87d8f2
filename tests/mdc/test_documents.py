"""Checks that documents keep their `data` byte for byte, and what snapshots with a limit hold."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mdc.documents import decode_doc, decode_message, event_snapshot, state_snapshot

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


def document(data: Any, seq: int = 1, epoch: str = "e1", ch: str = "quote:A", ts: int = 5) -> bytes:
    return json.dumps({"ch": ch, "epoch": epoch, "seq": seq, "ts": ts, "data": data}).encode()


@given(JSON, st.integers(1, 2**53))
def test_a_document_comes_back(data: Any, seq: int) -> None:
    """Head and data survive, the data byte for byte."""
    doc = decode_doc(document(data, seq))
    assert (doc.ch, doc.epoch, doc.seq, doc.ts) == ("quote:A", "e1", seq, 5)
    assert bytes(doc.data).decode() == json.dumps(data)


@given(st.lists(JSON, max_size=5))
def test_a_message_is_its_documents_in_order(items: list[Any]) -> None:
    """What was joined with commas comes apart again."""
    docs = decode_message(b"[" + b",".join(document(item, n) for n, item in enumerate(items)) + b"]")
    assert [(doc.seq, json.loads(bytes(doc.data))) for doc in docs] == list(enumerate(items))


@given(JSON, st.none() | st.integers(0, 3))
def test_a_state_snapshot_is_the_state(data: Any, limit: int | None) -> None:
    """Without history, and when it is no board, the data is untouched."""
    if isinstance(data, dict) and {"order", "rows"} <= data.keys():
        return
    assert json.loads(state_snapshot(document(data, 7), None, limit).data) == data


@given(st.lists(st.lists(st.integers(), min_size=1, max_size=3), max_size=6), st.none() | st.integers(0, 8))
def test_history_joins_the_data_newest_last(bars: list[list[int]], limit: int | None) -> None:
    """The limit keeps the newest closed bars."""
    snapshot = state_snapshot(document({"t": 9}, 7), [json.dumps(bar).encode() for bar in bars], limit)
    kept = bars if limit is None else bars[max(0, len(bars) - limit) :]
    assert json.loads(snapshot.data) == {"t": 9, "history": kept}
    assert snapshot.seq == 7


@pytest.mark.parametrize(("limit", "names"), [(None, "CAB"), (0, ""), (1, "C"), (2, "CA"), (9, "CAB")])
def test_a_board_is_cut_to_its_first_rows(limit: int | None, names: str) -> None:
    """The limit keeps the best rows in their order."""
    data = {"order": list("CAB"), "rows": {name: {"sym": name} for name in "ABC"}}
    snapshot = state_snapshot(document(data), None, limit)
    assert json.loads(snapshot.data) == {"order": list(names), "rows": {name: {"sym": name} for name in names}}


@given(st.lists(JSON, max_size=12), st.integers(1, 6), st.none() | st.integers(0, 8))
def test_an_event_snapshot_is_the_newest_events(events: list[Any], keep: int, limit: int | None) -> None:
    """At most what the kind keeps and the limit asks for; its seq is the last one's."""
    snapshot = event_snapshot([document(event, n + 1) for n, event in enumerate(events)], keep, limit)
    if not events:
        assert snapshot is None
        return
    assert snapshot is not None
    most = keep if limit is None else min(keep, limit)
    assert json.loads(snapshot.data) == events[max(0, len(events) - most) :]
    assert snapshot.seq == len(events)


def test_events_of_an_earlier_life_are_left_out() -> None:
    """Another epoch counts by itself; only the newest life is shown."""
    bodies = [document(1, 8, "e1"), document(2, 9, "e1"), document(3, 1, "e2"), document(4, 2, "e2")]
    snapshot = event_snapshot(bodies, 50)
    assert snapshot is not None
    assert (snapshot.epoch, snapshot.seq, snapshot.data) == ("e2", 2, b"[3,4]")


@pytest.mark.parametrize("body", [b"", b"{}", b"[]", b'{"ch":"a"', b"\xff", document(1)[:-1]])
def test_what_is_no_document_is_refused(body: bytes) -> None:
    """Garbage is an error of one kind."""
    with pytest.raises(msgspec.DecodeError):
        decode_doc(body)
