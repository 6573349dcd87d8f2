"""Checks that one person cannot use up what all may ask."""

from __future__ import annotations

from scp.reference.allowance import PERSONS_MAX, Allowance


def asked(allowance: Allowance, person: int, now_s: float, many: int = 1_000) -> int:
    """Ask until it is refused; return how often it was not."""
    return next((n for n in range(many) if allowance.wait_s(person, now_s)[0]), many)


def test_a_person_has_half_of_the_burst_and_a_quarter_of_the_rate() -> None:
    """What is left is for others; who is refused is told how long, and whose doing it is."""
    allowance = Allowance(120)
    assert asked(allowance, 1, 0.0) == 10
    assert allowance.wait_s(1, 0.0) == (2.0, True)
    assert asked(allowance, 2, 0.0) == 10
    wait_s, own = allowance.wait_s(3, 0.0)
    assert (wait_s, own) == (0.5, False)
    assert sum(asked(allowance, 1, second) for second in range(1, 61)) == 30
    total = sum(asked(allowance, person, float(second)) for second in range(100, 160) for person in range(10, 40))
    assert 120 <= total <= 140
    for person in range(PERSONS_MAX + 100):
        allowance.wait_s(person, 200.0)
    assert len(allowance._persons) == PERSONS_MAX
