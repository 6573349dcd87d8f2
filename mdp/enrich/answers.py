"""Reads the vendor's REST answers: every row is judged on its own, an answer of another shape is none.

Shapes: `/v3/reference/splits`, `/v2/aggs/grouped/…` (not adjusted), `/v2/snapshot/…/tickers`, `/stocks/vX/float`.
"""

from __future__ import annotations

from datetime import date
from typing import Annotated, TypeVar

import msgspec
from msgspec import Meta, Raw, Struct, field

from mdp.enrich.facts import Seen

ROWS_MAX = 100_000  # of an answer, as of a partition's symbols
Ticker = Annotated[str, Meta(min_length=1, max_length=48)]
Price = Annotated[float, Meta(gt=0, lt=1e12)]
PriceOrNone = Annotated[float, Meta(ge=0, lt=1e12)]  # 0 = there was none
Size = Annotated[float, Meta(ge=0, lt=1e15)]
Part = Annotated[float, Meta(gt=0, lt=1e9)]


class BadAnswer(ValueError):
    """An answer that cannot be used as a whole: another shape, a half, or nothing where something must be."""


class Split(Struct, frozen=True):
    """`split_from` shares became `split_to` on the morning of `execution_date`."""

    ticker: Ticker
    execution_date: date
    split_from: Part
    split_to: Part


class DayRow(Struct, frozen=True):
    """A symbol's regular values of one day."""

    ticker: Ticker = field(name="T")
    open: Price = field(name="o")
    high: Price = field(name="h")
    low: Price = field(name="l")
    close: Price = field(name="c")
    volume: Size = field(name="v")
    vwap: Price | None = field(name="vw", default=None)

    def __post_init__(self) -> None:
        if self.low > self.high:
            raise ValueError("the low is above the high")


class FloatRow(Struct, frozen=True):
    """A symbol's float as of a date."""

    ticker: Ticker
    free_float: Annotated[float, Meta(gt=0, lt=1e15)]
    effective_date: date


class _DaySoFar(Struct):
    open: PriceOrNone = field(name="o", default=0)
    high: PriceOrNone = field(name="h", default=0)
    low: PriceOrNone = field(name="l", default=0)
    volume: Size = field(name="v", default=0)
    vwap: PriceOrNone = field(name="vw", default=0)


class SnapshotRow(Struct):
    """A symbol's day so far; `updated` in ns."""

    ticker: Ticker
    day: _DaySoFar
    updated: Annotated[int, Meta(ge=0, le=2**62)]

    def __post_init__(self) -> None:
        if self.day.low > self.day.high:
            raise ValueError("the low is above the high")

    @property
    def seen(self) -> Seen:
        day = self.day
        return Seen(
            self.updated // 1_000_000, day.volume or None, day.vwap or None, day.open or None, day.high or None, day.low or None
        )


class _Page(Struct):
    results: list[Raw] | None = None
    tickers: list[Raw] | None = None
    count: int | None = None
    results_count: int | None = field(name="resultsCount", default=None)
    next_url: str | None = None


R = TypeVar("R", Split, DayRow, FloatRow, SnapshotRow)
_page = msgspec.json.Decoder(_Page)


def read(body: bytes, row: type[R]) -> tuple[list[R], int, str | None]:
    """Return the rows of an answer, how many of them cannot be used, and where its next page is.  Raises: BadAnswer."""
    try:
        page = _page.decode(body)
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        raise BadAnswer(f"an answer of another shape: {error}") from None
    raws = page.tickers if row is SnapshotRow else page.results
    said = page.count if row is SnapshotRow else page.results_count
    if raws is None:
        if said == 0:
            return [], 0, None  # so the vendor says that there is nothing
        raise BadAnswer(f"an answer of another shape: it has no {'tickers' if row is SnapshotRow else 'results'}")
    if said is not None and said != len(raws):
        raise BadAnswer(f"half an answer: {len(raws)} of {said} rows")
    decode, rows, bad = msgspec.json.Decoder(row).decode, [], max(0, len(raws) - ROWS_MAX)
    for raw in raws[:ROWS_MAX]:
        try:
            rows.append(decode(raw))
        except (msgspec.DecodeError, UnicodeError, RecursionError):
            bad += 1
    if raws and not rows:
        raise BadAnswer("an answer of another shape: none of its rows can be read")
    return rows, bad, page.next_url
