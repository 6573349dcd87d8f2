"""Checks that an operating failure reads as one line and carries its exit code."""

from __future__ import annotations

import msgspec
import pytest

from service.errors import UNREADABLE, OperatorError


def test_an_operator_error_reads_as_two_sentences() -> None:
    """What is wrong, then what to do; full stops are not doubled."""
    assert str(OperatorError("the tape is missing.", "Set TAPE to a file.")) == "the tape is missing. Set TAPE to a file."


def test_an_operator_error_tells_the_exit_code() -> None:
    """2 is a matter of configuration, 3 of a dependency."""
    assert OperatorError("a", "b").exit_code == 2
    assert OperatorError("a", "b", exit_code=3).exit_code == 3


@pytest.mark.parametrize("body", [b"", b"{", b'"\xff"', b"[" * 100_000, b'{"a":' * 100_000, b"5"])
def test_whatever_bytes_are_they_are_unreadable_and_no_more(body: bytes) -> None:
    """Nothing, half of something, another encoding, a hundred thousand levels, another shape: one tuple of exceptions has them all."""
    for kind in (dict[str, int], list[list[int]]):
        with pytest.raises(UNREADABLE):
            msgspec.json.decode(body, type=kind)
    if body != b"5":
        with pytest.raises(UNREADABLE):
            msgspec.json.decode(body)
