"""The circuit breaker: when it opens, when it lets a probe through, what late results do to it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.breaker import Breaker


def opened(failures_max: int = 3, open_s: float = 10.0) -> Breaker:
    """Return a breaker that opened at second 0."""
    breaker = Breaker(failures_max, open_s)
    for _ in range(failures_max):
        breaker.failed(0.0)
    return breaker


def test_failures_in_a_row_open_it() -> None:
    """The last of `failures_max` failures in a row opens; one success in between starts the count again."""
    breaker = Breaker(failures_max=3, open_s=10)
    for now_s in (0.0, 1.0):
        breaker.failed(now_s)
    breaker.succeeded(2.0)
    breaker.failed(3.0)
    breaker.failed(4.0)
    assert breaker.state(4.0) == "closed"
    assert breaker.allows(4.0)
    breaker.failed(5.0)
    assert breaker.state(5.0) == "open"
    assert not breaker.allows(14.9)
    assert breaker.opened == 1


def test_half_open_lets_one_probe_through() -> None:
    """After the cool-down one call is granted; nobody else's until it has its result."""
    breaker = opened()
    assert breaker.state(10.0) == "half-open"
    assert breaker.allows(10.0)
    assert not breaker.allows(10.5)
    breaker.succeeded(11.0)
    assert breaker.state(11.0) == "closed"
    assert breaker.allows(11.0)
    assert breaker.allows(11.0)


def test_a_failed_probe_opens_it_for_another_cool_down() -> None:
    """One failure is enough while half-open, and the time starts at that failure."""
    breaker = opened()
    assert breaker.allows(12.0)
    breaker.failed(15.0)
    assert breaker.state(24.9) == "open"
    assert breaker.state(25.0) == "half-open"
    assert breaker.opened == 2


def test_a_probe_that_never_ends_does_not_block_for_ever() -> None:
    """A granted call whose result never comes is given up after the cool-down."""
    breaker = opened()
    assert breaker.allows(10.0)
    assert not breaker.allows(19.9)
    assert breaker.allows(20.0)


def test_late_results_do_not_move_an_open_one() -> None:
    """Calls that were under way when it opened may end as they like: it neither closes early nor opens longer."""
    breaker = opened()
    breaker.succeeded(1.0)
    breaker.failed(2.0)
    assert breaker.state(9.9) == "open"
    assert breaker.state(10.0) == "half-open"
    assert breaker.opened == 1


def test_closing_forgets_the_failures_before() -> None:
    """After the probe it takes the full number of failures again."""
    breaker = opened()
    assert breaker.allows(10.0)
    breaker.succeeded(10.0)
    breaker.failed(11.0)
    breaker.failed(11.0)
    assert breaker.state(11.0) == "closed"


@pytest.mark.parametrize(("failures_max", "open_s"), [(0, 1.0), (1, 0.0), (-1, -1.0)])
def test_numbers_without_a_meaning_are_refused(failures_max: int, open_s: float) -> None:
    """A breaker that is always open or never opens is a mistake of its maker."""
    with pytest.raises(ValueError, match="above zero"):
        Breaker(failures_max, open_s)


@given(st.lists(st.tuples(st.floats(0.0, 3.0), st.booleans()), max_size=60), st.integers(1, 4))
def test_it_never_calls_while_open_and_always_comes_back(steps: list[tuple[float, bool]], failures_max: int) -> None:
    """Whatever happens: granted only when not open, and a cool-down after the last failure a call is granted."""
    breaker, now_s = Breaker(failures_max, open_s=2.0), 0.0
    for gap_s, well in steps:
        now_s += gap_s
        state = breaker.state(now_s)
        granted = breaker.allows(now_s)
        assert granted == (state != "open")  # each probe here has its result at once
        if granted:
            (breaker.succeeded if well else breaker.failed)(now_s)
            assert well <= (breaker.state(now_s) == "closed")
    assert breaker.allows(now_s + 2.0)
