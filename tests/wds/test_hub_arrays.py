"""Checks that frames of one tick are packed into flat arrays, in order, without loss."""

from __future__ import annotations

import json

from hypothesis import given
from hypothesis import strategies as st

from wds.hub import FRAMES_MAX, in_arrays

OBJECTS = st.lists(st.one_of(st.integers(), st.lists(st.integers(), min_size=1, max_size=4)), min_size=1, max_size=2 * FRAMES_MAX)


@given(OBJECTS)
def test_nothing_is_lost_nested_or_reordered(frames: list[int | list[int]]) -> None:
    """Objects come out flat and in their order, in messages of a bounded number of frames; one alone stays as it is."""
    payloads = list(in_arrays([json.dumps(_objects(frame)).encode() for frame in frames]))
    assert len(payloads) == -(-len(frames) // FRAMES_MAX)
    found = [item for payload in payloads for item in _list(json.loads(payload))]
    assert found == [{"n": n} for frame in frames for n in _list(frame)]


def _objects(frame: int | list[int]) -> object:
    return [{"n": n} for n in frame] if isinstance(frame, list) else {"n": frame}


def _list(value: object) -> list[object]:
    return value if isinstance(value, list) else [value]
