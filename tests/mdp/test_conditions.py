"""Condition codes in, what a trade may change out."""

from __future__ import annotations

import itertools

import pytest

from mdp.conditions import ALL, HIGH_LOW, LAST, VOLUME, Rules, rule_of

TABLE = [
    (None, ALL, "no conditions"),
    ([], ALL, "no conditions"),
    ([0], ALL, "regular sale"),
    ([14, 41], ALL, "intermarket sweep, trade-through exempt"),
    ([12], VOLUME, "form T: outside regular hours"),
    ([13], VOLUME, "extended hours, out of sequence"),
    ([37], VOLUME, "odd lot"),
    ([2], VOLUME, "average price"),
    ([7], VOLUME, "cash sale"),
    ([20], VOLUME, "next day"),
    ([21], VOLUME, "price variation"),
    ([29], VOLUME, "seller"),
    ([52], VOLUME, "contingent"),
    ([53], VOLUME, "qualified contingent"),
    ([5], HIGH_LOW | VOLUME, "bunched sold"),
    ([10], HIGH_LOW | VOLUME, "derivatively priced"),
    ([22], HIGH_LOW | VOLUME, "prior reference price"),
    ([32], HIGH_LOW | VOLUME, "sold out of sequence"),
    ([33], HIGH_LOW | VOLUME, "sold out of sequence, stopped"),
    ([15], 0, "official close: repeats the closing trade"),
    ([16], 0, "official open"),
    ([38], LAST | HIGH_LOW, "corrected consolidated close: a price, no new volume"),
    ([17], ALL, "the opening auction's trade gives the open"),
    ([30], ALL, "sold last"),
    *(([code], ALL, "like a regular sale") for code in (1, 3, 4, 6, 8, 9, 11, 18, 19, 23, 24, 25, 27, 28, 31, 34, 35, 36, 55)),
    ([999], ALL, "a code of tomorrow"),
]


@pytest.mark.parametrize(("codes", "rule", "why"), TABLE, ids=[f"{codes}" for codes, _, _ in TABLE])
def test_a_code_says_what_a_trade_may_change(codes: list[int] | None, rule: int, why: str) -> None:
    """The consolidated rules, code by code."""
    assert rule_of(codes) == rule, why


def test_the_strictest_code_wins() -> None:
    """A trade with several codes may change only what each of them allows, in whatever order they stand."""
    singles = [codes[0] for codes, _, _ in TABLE if codes]
    for pair in itertools.product(singles, repeat=2):
        assert rule_of(list(pair)) == rule_of([pair[0]]) & rule_of([pair[1]]), pair


def test_remembered_rules_are_the_rules() -> None:
    """The table of combinations changes nothing, also when it starts again."""
    rules = Rules()
    Rules.COMBINATIONS_MAX, before = 3, Rules.COMBINATIONS_MAX
    try:
        for code in [*range(60), *range(60)]:
            assert rules.of([code, 14]) == rule_of([code, 14])
    finally:
        Rules.COMBINATIONS_MAX = before
