"""Checks that a simulated company is plausible, and the same whenever it is asked for."""

from __future__ import annotations

from datetime import date, timedelta

from mdl.simulation.company import NOT_SPLIT_DAYS, became, company, filings, logo, settlements, splits
from mdl.simulation.universe import universe

TODAY = date(2026, 11, 23)


def test_what_is_known_is_plausible() -> None:
    """Dates lie in the past and come in order; a share of before a split is another number of today's."""
    listed = universe(60, 7)
    assert company(listed, 5) == company(universe(60, 7), 5)
    for number in range(60):
        known = company(listed, number)
        assert known.listed_on < TODAY
        assert known.shares > listed.volumes[number]
        dates = [one.on for one in splits(number, TODAY)]
        assert dates == sorted(dates, reverse=True)
        assert all(on <= TODAY - timedelta(days=NOT_SPLIT_DAYS) and on.weekday() < 5 for on in dates)
        filed = [on for on, _, _ in filings(number, TODAY, 8)]
        assert filed == sorted(filed, reverse=True)
        assert filed[0] <= TODAY
        assert logo(number).startswith(b"\x89PNG")
    assert len({logo(number) for number in range(60)}) == 60
    one = splits(4, TODAY)[0]
    assert became(4, one.on - timedelta(days=1), TODAY) == one.after / one.before
    assert became(4, one.on, TODAY) == became(1, date(1990, 1, 1), TODAY) == 1


def test_short_interest_is_settled_twice_a_month() -> None:
    """In the middle and at the end, on working days, published eleven days later."""
    assert settlements(TODAY, 3) == [date(2026, 10, 30), date(2026, 10, 15), date(2026, 9, 30)]
