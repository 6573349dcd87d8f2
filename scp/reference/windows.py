"""Cuts the past into windows that everybody's questions share, and joins their bars to one answer. Pure.

Invariant: a bar is in one window by the vendor's own time of it, so that the windows side by side have each bar once.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from typing import NamedTuple

from scp.reference.answers import BadAnswer, BarRow
from service.days.markets import STOCKS

MINUTE_MS, HOUR_MS, DAY_MS = 60_000, 3_600_000, 86_400_000
NUMBERS = 8  # of a packed bar: t, open, high, low, close, volume, vwap, trades
DELAYED_MS = 16 * MINUTE_MS  # a delayed plan's newest bars of so long are still being made
OLD_MS = 2 * DAY_MS  # what is so old is not corrected any more
FRESH_MS = {"1m": MINUTE_MS, "5m": MINUTE_MS, "1h": 5 * MINUTE_MS, "1d": 15 * MINUTE_MS}
NOT_KNOWN = float("nan")
Packed = array  # of float: NUMBERS for each bar, oldest first


class Span(NamedTuple):
    """A width of bars: how the vendor calls it, and how much of the past is asked for at once."""

    times: int
    unit: str
    width_ms: int
    window_ms: int


SPANS = {
    "1m": Span(1, "minute", MINUTE_MS, 4 * DAY_MS),
    "5m": Span(5, "minute", 5 * MINUTE_MS, 16 * DAY_MS),
    "1h": Span(1, "hour", HOUR_MS, 48 * DAY_MS),
    "1d": Span(1, "day", DAY_MS, 720 * DAY_MS),
}
HOLES_MAX = 4  # windows without a bar after which nothing older is looked for


class Window(NamedTuple):
    """A part of the past: [since, until) in ms."""

    since_ms: int
    until_ms: int


def windows(span: Span, before_ms: int, now_ms: int) -> Iterator[Window]:
    """Yield the windows before a time, the newest first, to the beginning of the epoch."""
    at = (min(before_ms, now_ms) - 1) // span.window_ms
    while at >= 0:
        yield Window(at * span.window_ms, (at + 1) * span.window_ms)
        at -= 1


def fresh_until(name: str, window: Window, now_ms: int) -> int:
    """Return until when a window's bars are fresh: old ones until the next trading day, for a split works all of them over."""
    if window.until_ms <= now_ms - OLD_MS:
        return min(STOCKS.day_of(now_ms).end_ms, now_ms + DAY_MS)
    return now_ms + FRESH_MS[name]


def pack(rows: Iterable[BarRow], span: Span, window: Window, now_ms: int, delayed: bool) -> Packed[float]:
    """Return the bars of a window that are whole by now.  Raises: BadAnswer when they are not in order, or of another time."""
    made, last, settled_ms = array("d"), -1, now_ms - (DELAYED_MS if delayed else 0)
    for row in rows:
        if not (window.since_ms <= row.t < window.until_ms and row.t > last):
            raise BadAnswer(f"a bar of {row.t} between others")
        last = row.t
        start = trading_day(row.t) if span.unit == "day" else row.t
        if start + span.width_ms > settled_ms:
            break
        rest = (NOT_KNOWN if one is None else one for one in (row.vwap, row.trades))
        made.extend((start, row.open, row.high, row.low, row.close, row.volume, *rest))
    return made


def trading_day(midnight_ms: int) -> int:
    """Return when the trading day of a day's bar begins, as ours are called; the vendor's have midnight in New York."""
    on = datetime.fromtimestamp(midnight_ms / 1000, STOCKS.zone).date()
    return round(datetime.combine(on, STOCKS.sessions[0][0], STOCKS.zone).astimezone(UTC).timestamp() * 1000)


def rows_before(packed: Packed[float], before_ms: int) -> list[list[float | int | None]]:
    """Return [t, open, high, low, close, volume, vwap, trades] of the bars that begin before a time, oldest first."""
    found: list[list[float | int | None]] = []
    for at in range(0, len(packed), NUMBERS):
        if packed[at] >= before_ms:
            break
        t, *prices, volume, vwap, trades = packed[at : at + NUMBERS]
        found.append([int(t), *prices, _whole(volume), _known(vwap), None if trades != trades else int(trades)])
    return found


def _whole(number: float) -> float | int:
    return int(number) if number.is_integer() else number


def _known(number: float) -> float | None:
    return None if number != number else number
