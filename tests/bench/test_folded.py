"""Checks how sampled stacks become shares of the time."""

from __future__ import annotations

from tests.bench.folded import Share, shares


def test_a_function_owns_the_samples_in_which_it_is_the_innermost() -> None:
    """What a function calls counts for its total only; the costliest comes first."""
    found = shares(["main;flush;pack 30", "main;flush 10", "main 60"])
    assert found == [Share("main", 60.0, 100.0), Share("pack", 30.0, 30.0), Share("flush", 10.0, 40.0)]


def test_a_function_that_calls_itself_counts_once() -> None:
    """A recursion is no more than the whole."""
    assert shares(["walk;walk;walk 7"]) == [Share("walk", 100.0, 100.0)]


def test_names_may_hold_spaces_and_what_is_no_stack_is_left_out() -> None:
    """The count is what follows the last space."""
    assert shares(["", "no count", "run (mdl/buffer.py:12) 3"]) == [Share("run (mdl/buffer.py:12)", 100.0, 100.0)]


def test_nothing_sampled_is_no_share() -> None:
    """An idle process has no functions."""
    assert shares([]) == []
