"""Checks what is gathered against a naive model that keeps all days and splits, and what stays unknown when something is missing."""

from __future__ import annotations

import json
import random
from datetime import date, timedelta
from fractions import Fraction
from typing import Any

import pytest

from mdp.enrich.answers import BadAnswer
from mdp.enrich.facts import Seen
from mdp.enrich.gathering import Gathering
from mdp.enrich.questions import order_for
from mdp.reference import Known
from service.days.markets import STOCKS

NOW_MS = 1_795_450_000_000  # a Monday in November 2026
DAY = STOCKS.day_of(NOW_MS)
ORDER = order_for(STOCKS, DAY.start_ms, NOW_MS, 4)


class Plain:
    """Random days, splits and floats of some symbols, and what follows of them, worked out anew for every symbol."""

    def __init__(self, seed: int) -> None:
        dice = self.dice = random.Random(seed)
        self.symbols = [f"S{n}" for n in range(12)]
        self.days = [
            {s: self._row() for s in self.symbols[:10] if dice.random() < 0.8 and (s != "S3" or number < 5)}
            for number in range(len(ORDER.dates))
        ]
        self.days[7] = {}  # the market stayed closed, and no table says so
        spread = (date.fromisoformat(ORDER.day) - date.fromisoformat(ORDER.dates[-1])).days
        on = [str(date.fromisoformat(ORDER.day) - timedelta(days=dice.randrange(spread))) for _ in range(6)]
        self.splits = [(dice.choice(self.symbols), day, dice.choice((1, 2, 10)), dice.choice((1, 3, 4))) for day in on]
        self.splits += [("S0", ORDER.day, 1, 4)]  # on the very morning
        self.floats = {s: dice.randrange(10**6, 10**8) for s in self.symbols if dice.random() < 0.7}

    def _row(self) -> dict[str, Any]:
        low, high = sorted(round(self.dice.uniform(1, 90), 2) for _ in range(2))
        return {"o": low, "h": high, "l": low, "c": high, "v": self.dice.randrange(1, 10**6), "vw": high}

    def answer(self, question: Any) -> bytes:
        if question.kind == "day":
            rows = [{"T": s} | row for s, row in self.days[question.number].items()]
        elif question.kind == "splits":
            rows = [{"ticker": s, "execution_date": on, "split_from": a, "split_to": b} for s, on, a, b in self.splits]
        elif question.kind == "floats":
            rows = [{"ticker": s, "free_float": n, "effective_date": ORDER.dates[3]} for s, n in self.floats.items()]
        else:
            return json.dumps({"tickers": [], "count": 0}).encode()
        return json.dumps({"results": rows, "resultsCount": len(rows)}).encode()

    def became(self, symbol: str, on: str) -> Fraction:
        times = Fraction(1)
        for s, when, a, b in self.splits:
            if s == symbol and on < when <= ORDER.day:
                times *= Fraction(b, a)
        return times

    def known(self, symbol: str) -> Known | None:
        shares = self.floats.get(symbol)
        traded = [n for n in range(len(ORDER.dates)) if symbol in self.days[n]]
        if not traded and shares is None:
            return None
        close = average = None
        first: list[float | None] = [None] * 5
        if traded:
            newest, open_days = traded[0], [n for n in range(len(ORDER.dates)) if self.days[n] and n <= traded[-1]]
            close = float(Fraction(str(self.days[newest][symbol]["c"])) / self.became(symbol, ORDER.dates[newest]))
            total = sum(self.days[n][symbol]["v"] * self.became(symbol, ORDER.dates[n]) for n in traded)
            average = float(total / len(open_days))
        if symbol in self.days[0]:
            row, times = self.days[0][symbol], self.became(symbol, ORDER.dates[0])
            first = [float(Fraction(str(row[k])) / times) for k in ("o", "h", "l")]
            first += [float(row["v"] * times), float(Fraction(str(row["vw"])) / times)]
        if shares is not None:
            shares = round(shares * self.became(symbol, ORDER.dates[3]))
        return Known(close, average, shares, *first)


def play(gathering: Gathering, plain: Plain) -> None:
    while (question := gathering.question) is not None:
        gathering.take(plain.answer(question), NOW_MS)


@pytest.mark.parametrize("seed", range(8))
def test_facts_equal_the_naive_model(seed: int) -> None:
    """Close, day before, average and float of every symbol, with splits in between, days without trades, and new listings."""
    plain, gathering = Plain(seed), Gathering(ORDER)
    play(gathering, plain)
    found = dict(gathering.sheet("past"))
    assert gathering.calls == 33
    assert found.keys() == {s for s in plain.symbols if plain.known(s) is not None}
    for symbol, known in found.items():
        wanted = plain.known(symbol)
        for field in Known.__struct_fields__:
            mine, theirs = getattr(known, field), getattr(wanted, field)
            assert (mine is None) == (theirs is None), f"seed {seed} {symbol} {field}"
            assert mine is None or mine == pytest.approx(theirs, abs=0.006, rel=1e-6), f"seed {seed} {symbol} {field}"


def test_what_is_not_known_for_certain_is_null() -> None:
    """No average before all its days are there, no price at all before the splits are."""
    plain, gathering = Plain(1), Gathering(ORDER)
    assert dict(gathering.sheet("past")) == {}
    assert gathering.take(plain.answer(gathering.question), NOW_MS) is None
    assert gathering.take(plain.answer(gathering.question), NOW_MS) == "past"
    early = dict(gathering.sheet("past"))
    assert {known.avg_volume for known in early.values()} == {None}
    assert any(known.prev_close for known in early.values())
    assert not gathering.finished("past")
    assert not gathering.finished("today")


def test_without_splits_nothing_of_earlier_days_is_said() -> None:
    """Refused for good: the snapshot is asked all the same, and what depends on splits is not even asked."""
    gathering = Gathering(ORDER)
    gathering.pass_over()
    assert str(gathering.question) == "snapshot"
    gathering.take(b'{"tickers":[],"count":0}', NOW_MS)
    assert gathering.question is None
    assert dict(gathering.sheet("past")) == {}


def test_an_empty_day_before_is_asked_again() -> None:
    """It may come yet; and a split that cannot be read may be of any symbol."""
    gathering = Gathering(ORDER)
    with pytest.raises(BadAnswer, match="splits cannot be read"):
        gathering.take(b'{"results":[{"ticker":"A","execution_date":"2026-11-20","split_from":1,"split_to":2},{}]}', NOW_MS)
    gathering.take(b'{"results":[]}', NOW_MS)
    with pytest.raises(BadAnswer, match="no values of 2026-11-20"):
        gathering.take(b'{"resultsCount":0}', NOW_MS)
    assert str(gathering.question) == "day 0"


def test_a_snapshot_of_another_day_is_none() -> None:
    """What was updated before the day began, or far in the future, says nothing of it."""
    gathering = Gathering(ORDER)
    gathering.pass_over()
    times = {"old": DAY.start_ms - 1, "new": NOW_MS - 5, "late": NOW_MS + 3_600_000}
    day = {"o": 2, "h": 3, "l": 1, "c": 2, "v": 10, "vw": 2.5}
    rows = [{"ticker": name, "day": day, "updated": ts * 1_000_000} for name, ts in times.items()]
    gathering.take(json.dumps({"tickers": rows}).encode(), NOW_MS)
    assert dict(gathering.sheet("today")) == {"new": Seen(NOW_MS - 5, 10, 2.5, 2, 3, 1)}
