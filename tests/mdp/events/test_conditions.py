"""Tests what a trade may change, code by code, by the vendor's tables."""

from __future__ import annotations

import itertools

import pytest

from mdp.events.conditions import ALL, CANCEL, EXTENDED, FLAGS, HIGH_LOW, LAST, OPTIONS, STOCKS, VOLUME, Rules, rule_of

STOCK_RULES = [
    (None, ALL, "no conditions"),
    ([], ALL, "no conditions"),
    ([0], ALL, "regular sale"),
    ([14, 41], ALL, "intermarket sweep, trade-through exempt"),
    ([12], ALL | EXTENDED, "form T: all but the regular session's values"),
    ([13], HIGH_LOW | VOLUME | EXTENDED, "extended hours, out of sequence: its time is that of the report"),
    ([37], VOLUME, "odd lot"),
    ([12, 37], VOLUME | EXTENDED, "an odd lot in extended hours"),
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
    ([44], 0, "canceled"),
    ([17], ALL, "the opening auction's trade gives the open"),
    ([30], ALL, "sold last"),
    *(([code], ALL, "like a regular sale") for code in (1, 3, 4, 6, 8, 9, 11, 18, 19, 23, 24, 25, 27, 28, 31, 34, 35, 36, 55)),
    ([999], ALL, "a code of tomorrow"),
]
OPTION_RULES = [
    *(([code], CANCEL, "takes one back") for code in (201, 203, 205, 207)),
    *(([code], 0, "late") for code in (202, 204, 206)),
    *(([code], ALL, "a trade like any other") for code in (208, 209, 210, 219, *range(227, 246))),
    *(([code], VOLUME, "proprietary products") for code in (246, 247)),
    ([248], ALL | EXTENDED, "extended hours"),
    ([12], ALL, "a stock's code says nothing of an option"),
]


@pytest.mark.parametrize(("codes", "rule", "why"), STOCK_RULES, ids=[f"{codes}" for codes, _, _ in STOCK_RULES])
def test_a_code_says_what_a_trade_may_change(codes: list[int] | None, rule: int, why: str) -> None:
    """The consolidated rules of stocks, code by code."""
    assert rule_of(codes) == rule, why


@pytest.mark.parametrize(("codes", "rule", "why"), OPTION_RULES, ids=[f"{codes}" for codes, _, _ in OPTION_RULES])
def test_options_have_codes_of_their_own(codes: list[int], rule: int, why: str) -> None:
    """The consolidated rules of options, code by code."""
    assert rule_of(codes, OPTIONS) == rule, why


@pytest.mark.parametrize("table", [STOCKS, OPTIONS])
def test_the_strictest_code_wins(table: dict[int, int]) -> None:
    """A trade with several codes may change only what each of them allows, and is what any of them says, in whatever order."""
    for pair in itertools.product([*table, 0, 999], repeat=2):
        one, two = (rule_of([code], table) for code in pair)
        assert rule_of(list(pair), table) == (one & two & ALL) | ((one | two) & FLAGS), pair


def test_remembered_rules_are_the_rules(monkeypatch: pytest.MonkeyPatch) -> None:
    """The tables of combinations change nothing, also when they start again; the symbol says whose codes they are."""
    rules = Rules()
    monkeypatch.setattr(Rules, "COMBINATIONS_MAX", 3)
    for code in [*range(60), *range(200, 250), *range(60)]:
        assert rules.of([code, 14], "AAPL") == rule_of([code, 14])
        assert rules.of([code, 14], "O:SPY251219C00650000") == rule_of([code, 14], OPTIONS)
