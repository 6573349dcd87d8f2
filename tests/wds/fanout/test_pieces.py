"""Checks that frames are packed into flat arrays, in order and without loss, and that a cut is put back."""

from __future__ import annotations

import json

from hypothesis import given
from hypothesis import strategies as st

from wds.fanout.pieces import FRAMES_MAX, PIECE_BYTES, Cursor, Part, Recipient, cut, hand_over, in_arrays

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


class Chain:
    """Where each member stands."""

    def __init__(self) -> None:
        self.at: dict[object, Cursor] = {}

    def rewind(self, member: Recipient, before: Cursor) -> None:
        self.at[member] = before


class Member:
    """Takes one piece and no more."""

    def __init__(self) -> None:
        self.ready = True
        self.taken: list[bytes] = []

    def write(self, blob: bytes) -> None:
        self.taken.append(blob)
        self.ready = False

    def loosen(self, round_: object) -> None:
        pass


def test_what_a_full_client_does_not_take_is_put_back() -> None:
    """Pieces have a bounded size; of what is not written each chain stands before its first frame again."""
    first, second = Chain(), Chain()
    frame = b"x" * (PIECE_BYTES // 2)
    parts = [Part(frame, chain, Cursor(1, seq)) for seq in range(4) for chain in (first, second)]
    pieces = cut(parts, lambda payload: payload)
    assert [len(piece.parts) for piece in pieces] == [2, 2, 2, 2]
    member = Member()
    hand_over(member, pieces)
    assert len(member.taken) == 1
    assert (first.at[member], second.at[member]) == (Cursor(1, 1), Cursor(1, 1))
