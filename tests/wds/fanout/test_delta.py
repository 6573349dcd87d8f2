"""Checks that the difference between two states leads from the old one to the new one."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec import Raw

from wds.fanout import delta

calm = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])  # a busy machine is no reason to fail
STATES = st.dictionaries(st.sampled_from("abcdef"), st.one_of(st.none(), st.integers(0, 2), st.text(max_size=2)))


def raw(state: Any) -> dict[str, Raw]:
    return delta.parse_fields(json.dumps(state).encode())


@calm
@given(old=STATES, new=STATES)
def test_applying_the_changed_fields_gives_the_new_state(old: dict[str, Any], new: dict[str, Any]) -> None:
    """old + changed(old, new) = new, with vanished fields as null; nothing unchanged is in it."""
    changed = {name: json.loads(bytes(value)) for name, value in delta.changed(raw(old), raw(new)).items()}
    merged = {**old, **changed}
    assert {name: value for name, value in merged.items() if value is not None} == {
        name: value for name, value in new.items() if value is not None
    }
    assert all(name not in old or old[name] != value for name, value in changed.items())


@calm
@given(old=STATES, new=STATES)
def test_applying_the_row_difference_gives_the_new_board(old: dict[str, Any], new: dict[str, Any]) -> None:
    """Rows set, rows gone and the order lead to the new board."""
    boards = [delta.parse_board(json.dumps({"order": sorted(rows), "rows": rows}).encode()) for rows in (old, new)]
    diff = delta.row_diff(*boards)
    rows = {**boards[0].rows, **diff.set}
    for gone in diff.gone:
        del rows[gone]
    assert rows == boards[1].rows
    assert (boards[0].order if diff.order is None else diff.order) == boards[1].order
    assert diff.empty == (old == new)


def test_fields_are_added_and_truncated_as_bytes() -> None:
    """Helpers of snapshots keep valid JSON."""
    assert json.loads(delta.with_field(b"{}", "history", b"[1]")) == {"history": [1]}
    assert json.loads(delta.with_field(b'{"a": 1 }', "history", b"[]")) == {"a": 1, "history": []}
    assert delta.truncate_list(b"[1,2,3]", 2) == b"[2,3]"
    assert json.loads(bytes(delta.pick_encoded(b'{"a":1,"b":2}', frozenset({"b"})))) == {"b": 2}
