"""Says what is asked of the vendor's REST service for a trading day, in which order, and how a page leads to the next one.

The few large answers: splits, the whole market's values of each of the trading days before, one snapshot of today, floats.
"""

from __future__ import annotations

from datetime import date, datetime
from typing import Literal
from urllib.parse import parse_qsl, urlsplit

from msgspec import Struct

from service.days.markets import Market

DAYS = 30  # trading days over which volumes are averaged
CALLS_MAX = 200  # for one trading day: a server whose pages never end is given up
SPLITS_A_PAGE, FLOATS_A_PAGE = 1_000, 5_000  # the most that the vendor gives
Kind = Literal["splits", "day", "snapshot", "floats"]


class Order(Struct, frozen=True):
    """What one round of questions is about.

    `dates`: the trading days before, newest first; `day`: the trading day itself, which begins at `day_ms` and ends at `end_ms`;
    `past`, `today`: which sheets are wanted. `live` = the vendor's own day is the same one: what it says of now is of that day.
    """

    day_ms: int
    end_ms: int
    day: str
    dates: tuple[str, ...]
    partitions: int
    live: bool
    past: bool = True
    today: bool = True


class Question(Struct, frozen=True):
    """One call: a page of splits or floats (`cursor` = its query), a day's values (`number` of `dates`), the snapshot."""

    kind: Kind
    number: int = 0
    cursor: tuple[tuple[str, str], ...] = ()

    def __str__(self) -> str:
        return f"{self.kind} {self.number}" if self.kind == "day" else self.kind


def order_for(market: Market, day_ms: int, now_ms: int, partitions: int, past: bool = True) -> Order:
    """Return what is to be asked for the trading day that begins at `day_ms`; `now_ms` is the wall clock."""
    day, dates, before_ms = market.day_of(day_ms), list[str](), day_ms
    for _ in range(DAYS):
        before_ms = market.day_of(before_ms - 1).start_ms
        dates.append(_date(market, before_ms))
    live = day.start_ms <= now_ms < day.end_ms
    return Order(day_ms, day.end_ms, _date(market, day_ms), tuple(dates), partitions, live, past, live)


def first_questions(order: Order) -> list[Question]:
    """Return what is asked at first: what many look at comes before the long average."""
    before = [Question("splits"), *(Question("day", number) for number in range(len(order.dates)))] if order.past else []
    now = [Question("snapshot")] if order.today else []
    floats = [Question("floats")] if order.past and order.live else []  # the vendor's floats are of today
    return [*before[:2], *now, *before[2:], *floats]


def next_page(question: Question, url: str | None) -> Question | None:
    """Return the question for the page after, None when there is none. Only the query counts: the key goes nowhere else."""
    query = tuple(parse_qsl(urlsplit(url or "").query))
    return Question(question.kind, question.number + 1, query) if query and query != question.cursor else None


def split_bounds(order: Order) -> tuple[date, date]:
    """Return the dates (both included) on which splits were executed that concern the trading day."""
    return date.fromisoformat(order.dates[-1]), date.fromisoformat(order.day)


def _date(market: Market, ts: int) -> str:
    return str(datetime.fromtimestamp(ts / 1000, market.zone).date())
