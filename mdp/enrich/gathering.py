"""Gathers what a trading day's answers say into sheets of facts: which question comes next, and when a sheet may be shown. Pure.

Invariant: what a sheet says is right; what cannot be said for certain is null. Prices and volumes of earlier days are worked
into the shares of the trading day by the splits in between, so nothing of them is shown before all splits are known, and no
average before every one of its days is.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from datetime import date
from typing import Literal

from msgspec import Struct

from mdp.enrich.answers import BadAnswer, DayRow, FloatRow, SnapshotRow, Split, read
from mdp.enrich.facts import Seen
from mdp.enrich.questions import CALLS_MAX, Order, Question, first_questions, next_page
from mdp.reference import Known, whole

AHEAD_MS = 60_000  # the vendor's clock may be so far ahead of ours
SYMBOLS_MAX = 100_000
Sheet = Literal["past", "today"]


class Before(Struct):
    """What is gathered of one symbol; in shares of the trading day. Days are counted backwards, 0 is the one before it."""

    newest: DayRow | None = None  # its row of day 0
    close: float | None = None  # of the newest day on which it was traded
    volume: float = 0.0
    oldest: int = 0  # the first day on which it was traded
    shares: float | None = None


class Gathering:
    """One round for one trading day: `question` → ask → `take`, `pass_over` or the same again, until `done`."""

    def __init__(self, order: Order) -> None:
        self.order = order
        self.calls = self.bad_rows = 0
        self._questions = deque(first_questions(order))
        self._splits: dict[str, list[Split]] = {}
        self._before: dict[str, Before] = {}
        self._seen: dict[str, Seen] = {}
        self._traded_days: list[int] = []  # those on which the market was open
        self._averaged = False

    @property
    def question(self) -> Question | None:
        """What is to be asked next, None when there is nothing more."""
        return self._questions[0] if self._questions and self.calls < CALLS_MAX else None

    def take(self, body: bytes, now_ms: int) -> Sheet | None:
        """Take the answer to `question`; return the sheet that may be shown now.  Raises: BadAnswer (ask again later)."""
        question = self._questions[0]
        self.calls += 1
        following: Question | None = None
        if question.kind == "splits":
            splits, bad, url = read(body, Split)
            following = next_page(question, url)
            for split in splits:
                self._splits.setdefault(split.ticker, []).append(split)
            if bad:
                raise BadAnswer(f"{bad} splits cannot be read: no price of an earlier day is certain")
        elif question.kind == "day":
            days, bad, _ = read(body, DayRow)
            self._take_day(question.number, days)
        elif question.kind == "snapshot":
            snapshot, bad, _ = read(body, SnapshotRow)
            self._take_snapshot(snapshot, now_ms)
        else:
            floats, bad, url = read(body, FloatRow)
            following = next_page(question, url)
            self._take_floats(floats)
        self.bad_rows += bad
        self._questions.popleft()
        if following is not None:
            self._questions.appendleft(following)
        return self._shows(question, following)

    def pass_over(self) -> None:
        """The vendor refuses `question` for good: what it would have said stays unknown, and what depends on it, too."""
        self.calls += 1
        kind = self._questions[0].kind
        gone = {kind, "day", "floats"} if kind == "splits" else {kind}
        self._questions = deque(one for one in self._questions if one.kind not in gone)

    def finished(self, which: Sheet) -> bool:
        """Whether no question is left that a sheet depends on."""
        return all((one.kind == "snapshot") is not (which == "today") for one in self._questions)

    def sheet(self, which: Sheet) -> Iterator[tuple[str, Known | Seen]]:
        """Yield what a sheet says of each symbol, as far as it is known by now."""
        yield from self._seen.items() if which == "today" else self._known()

    def _shows(self, question: Question, following: Question | None) -> Sheet | None:
        if question.kind == "snapshot":
            return "today"
        last = following is None and not any(one.kind == question.kind for one in self._questions)
        self._averaged |= question.kind == "day" and last
        shows = question.kind == "day" and (last or question.number == 0)
        return "past" if shows or (question.kind == "floats" and last) else None

    def _take_day(self, number: int, rows: list[DayRow]) -> None:
        if not rows:
            if number == 0:  # it may come yet; and if there was none, the day before it is another one than we believe
                raise BadAnswer(f"no values of {self.order.dates[0]}, the trading day before")
            return  # a day on which the market stayed closed although no table says so
        self._traded_days.append(number)
        on = date.fromisoformat(self.order.dates[number])
        for row in rows:
            one = self._one(row.ticker)
            if one is None:
                continue
            became = self._became(row.ticker, on)
            if number == 0:
                one.newest = row
            if one.close is None:
                one.close = row.close / became
            one.volume += row.volume * became
            one.oldest = number

    def _take_snapshot(self, rows: list[SnapshotRow], now_ms: int) -> None:
        least, most = self.order.day_ms, min(self.order.end_ms, now_ms + AHEAD_MS)
        found = ((row.ticker, row.seen) for row in rows[:SYMBOLS_MAX])
        self._seen = {ticker: seen for ticker, seen in found if least <= seen.ts < most}  # the others are of another day

    def _take_floats(self, rows: list[FloatRow]) -> None:
        for row in rows:
            one = self._one(row.ticker)
            if one is not None and str(row.effective_date) >= self.order.dates[-1]:
                one.shares = row.free_float * self._became(row.ticker, row.effective_date)
            elif one is not None:  # splits that are older than those we know may lie in between
                one.shares = row.free_float if row.ticker not in self._splits else None

    def _one(self, ticker: str) -> Before | None:
        found = self._before.get(ticker)
        if found is None and len(self._before) < SYMBOLS_MAX:
            found = self._before[ticker] = Before()
        return found

    def _became(self, ticker: str, on: date) -> float:
        """Return how many shares of the trading day one share of that date has become."""
        times = 1.0
        for split in self._splits.get(ticker, ()):
            if on < split.execution_date <= date.fromisoformat(self.order.day):
                times *= split.split_to / split.split_from
        return times

    def _known(self) -> Iterator[tuple[str, Known]]:
        on = date.fromisoformat(self.order.dates[0])
        for ticker, one in self._before.items():
            average = None
            if self._averaged and one.close is not None:
                days = sum(number <= one.oldest for number in self._traded_days)
                average = whole(round(one.volume / days, 2)) or None
            shares = None if one.shares is None else round(one.shares)
            row, became = one.newest, self._became(ticker, on)
            close = _price(one.close)
            if row is None:
                yield ticker, Known(close, average, shares)
            else:
                first, high, low = (_price(price / became) for price in (row.open, row.high, row.low))
                vwap = _price(row.vwap / became) if row.vwap is not None else None
                volume = whole(round(row.volume * became, 6))
                yield ticker, Known(close, average, shares, first, high, low, volume, vwap)


def _price(value: float | None) -> float | None:
    """A price that was divided by a split's ratio, without the dust of it."""
    return None if value is None else round(value, 6)
