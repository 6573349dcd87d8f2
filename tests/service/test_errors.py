"""Checks that an operating failure reads as one line and carries its exit code."""

from __future__ import annotations

from service.errors import OperatorError


def test_an_operator_error_reads_as_two_sentences() -> None:
    """What is wrong, then what to do; full stops are not doubled."""
    assert str(OperatorError("the tape is missing.", "Set TAPE to a file.")) == "the tape is missing. Set TAPE to a file."


def test_an_operator_error_tells_the_exit_code() -> None:
    """2 is a matter of configuration, 3 of a dependency."""
    assert OperatorError("a", "b").exit_code == 2
    assert OperatorError("a", "b", exit_code=3).exit_code == 3
