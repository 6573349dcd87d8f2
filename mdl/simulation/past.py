"""Keeps what the simulated market has traded as minutes and hours, and makes up the trading days before it began.

Bars are made as the vendor makes them: odd lots count for volume alone, trades that were reported late for their own minute's
range and volume. Minutes of a day before add up to that day's values, and are the same whenever they are asked for.
May be asked in a thread of its own while trades are told. Bounds: `BARS_MAX` minutes of all stocks together, then hours are left
of the oldest; of these `HOURS_MAX`.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator
from datetime import date, datetime
from functools import lru_cache
from itertools import pairwise
from random import Random
from typing import NamedTuple
from zlib import crc32

from mdl.simulation.universe import Universe, day_before
from service.days.markets import STOCKS

MINUTE_MS, HOUR_MS = 60_000, 3_600_000
SETTLED_MINUTES = 2  # a late trade is at most ten seconds late
BARS_MAX, HOURS_MAX = 400_000, 200_000  # 64 bytes each
DAYS_KEPT = 64  # of stocks, whose minutes were made up
WIDTH = 8  # numbers of a packed bar


class PastBar(NamedTuple):
    """Start in ms, prices in cents, volume in shares, value in cents × shares."""

    start: int
    open: int
    high: int
    low: int
    close: int
    volume: int
    value: int
    trades: int


class Growing:
    """The minute of a stock while it grows. Prices 0 = none yet."""

    __slots__ = ("close", "high", "low", "open", "trades", "value", "volume")

    def __init__(self) -> None:
        self.open = self.high = self.low = self.close = self.volume = self.value = self.trades = 0

    def take(self, price: int, size: int, odd: bool, late: bool) -> None:
        self.volume += size
        self.value += price * size
        self.trades += 1
        if odd:
            return
        self.high = max(self.high, price)
        self.low = min(self.low or price, price)
        if not late:
            self.open = self.open or price
            self.close = price


class Past:
    """What has been, of one market. `take` is told each trade; times do not go back by more than a late trade's delay."""

    def __init__(self, listed: Universe) -> None:
        self.began_ms = 0  # 0 = not yet
        self._listed = listed
        self._growing: dict[int, dict[int, Growing]] = {}  # minute → stock → its bar
        self._minutes = [array("q") for _ in listed.symbols]
        self._hours = [array("q") for _ in listed.symbols]
        self._kept_minutes = max(60, BARS_MAX // max(1, len(listed.symbols)))
        self._kept_hours = max(48, HOURS_MAX // max(1, len(listed.symbols)))
        self._made_up = lru_cache(DAYS_KEPT)(self._make_up)

    def take(self, number: int, ts: int, price: int, size: int, odd: bool, late: bool) -> None:
        """Count a trade of the stock at `number`."""
        minute = ts // MINUTE_MS
        bars = self._growing.get(minute)
        if bars is None:
            self.began_ms = self.began_ms or ts
            bars = self._growing[minute] = {}
            self._settle(minute - SETTLED_MINUTES)
        bar = bars.get(number)
        if bar is None:
            bar = bars[number] = Growing()
        bar.take(price, size, odd, late)

    def bars(self, number: int, span_ms: int, since_ms: int, until_ms: int, now_ms: int) -> list[PastBar]:
        """Return the bars of `span_ms` (a divisor or multiple of an hour) that begin in [since, until), oldest first."""
        began_ms = STOCKS.day_of(self.began_ms or now_ms).start_ms
        earlier = self._earlier(number, since_ms, min(until_ms, began_ms))
        return list(_summed((*earlier, *self._later(number, span_ms, since_ms, until_ms)), span_ms))

    def days(self, number: int, since_ms: int, until_ms: int, now_ms: int) -> list[PastBar]:
        """Return the trading days that begin (with the pre-market) in [since, until); one that has not ended is as it is."""
        began_ms = STOCKS.day_of(self.began_ms or now_ms).start_ms
        found = [_whole_day(self._listed, number, start) for start in _days_between(since_ms, min(until_ms, began_ms))]
        later = (bar for bar in self._later(number, HOUR_MS, since_ms, until_ms + 7 * 24 * HOUR_MS))
        summed: list[PastBar] = []
        for bar in later:
            _add(summed, STOCKS.day_of(bar.start).start_ms, bar)
        return [*found, *(bar for bar in summed if since_ms <= bar.start < until_ms)]

    # ---- since the market began

    def _later(self, number: int, span_ms: int, since_ms: int, until_ms: int) -> Iterator[PastBar]:
        """Yield what was recorded: minutes, or, for bars of an hour and more, hours and the minutes after them."""
        growing = sorted(self._growing.items(), key=lambda item: item[0])
        minutes = list(_unpacked(self._minutes[number]))
        for minute, bars in growing:
            bar = bars.get(number)
            if bar is not None and bar.open and (not minutes or minutes[-1].start < minute * MINUTE_MS):
                minutes.append(_closed(minute, bar))
        if span_ms >= HOUR_MS:
            hours = list(_unpacked(self._hours[number]))
            minutes = list(_summed((*hours, *minutes), HOUR_MS))
        yield from (bar for bar in minutes if since_ms <= bar.start < until_ms)

    def _settle(self, until_minute: int) -> None:
        for minute in sorted(one for one in self._growing if one < until_minute):
            for number, bar in self._growing.pop(minute).items():
                if bar.open:
                    self._keep(number, _closed(minute, bar))

    def _keep(self, number: int, bar: PastBar) -> None:
        minutes, hours = self._minutes[number], self._hours[number]
        minutes.extend(bar)
        if len(minutes) > self._kept_minutes * WIDTH:
            oldest = next(_unpacked(minutes[:WIDTH]))
            del minutes[:WIDTH]
            last = [PastBar(*hours[-WIDTH:])] if hours else []
            del hours[-WIDTH:]
            _add(last, oldest.start - oldest.start % HOUR_MS, oldest)
            for one in last:
                hours.extend(one)
            del hours[: max(0, len(hours) - self._kept_hours * WIDTH)]

    # ---- before it

    def _earlier(self, number: int, since_ms: int, until_ms: int) -> Iterator[PastBar]:
        for start in _days_between(since_ms - 24 * HOUR_MS, until_ms):
            yield from (bar for bar in self._made_up(number, start) if since_ms <= bar.start < until_ms)

    def _make_up(self, number: int, day_ms: int) -> tuple[PastBar, ...]:
        """Return the minutes of a trading day's regular session: a walk from its open to its close within its range."""
        opens_ms, closes_ms = _regular(day_ms)
        day, many = _whole_day(self._listed, number, day_ms), (closes_ms - opens_ms) // MINUTE_MS
        dice = Random(f"minutes {number} {day_ms}")
        path, steps = [0.0], [dice.gauss(0, 1) for _ in range(many)]
        for step in steps:
            path.append(path[-1] + step)
        scale = (day.high - day.low) / (max(path) - min(path) + 1)
        prices = [
            min(day.high, max(day.low, round(day.open + (day.close - day.open) * at / many + (x - path[-1] * at / many) * scale)))
            for at, x in enumerate(path)
        ]
        top, bottom = prices.index(max(prices)), prices.index(min(prices))
        left, made = day.volume, []
        for at, (first, last) in enumerate(pairwise(prices)):
            tick = max(1, day.close // 4000)
            high = day.high if at == min(top, many - 1) else min(day.high, max(first, last) + dice.randrange(3) * tick)
            low = day.low if at == min(bottom, many - 1) else max(day.low, min(first, last) - dice.randrange(3) * tick)
            behind = many - 1 - at  # minutes that are still to come; each gets a share at least
            volume = left if not behind else min(left - behind, max(1, round(left / (behind + 1) * dice.uniform(0.5, 1.5))))
            left -= volume
            value = volume * (first + high + low + last) // 4
            made.append(PastBar(opens_ms + at * MINUTE_MS, first, high, low, last, volume, value, 1 + volume // 100))
        return tuple(made)


def salt_of(on: date) -> int:
    """Return what makes a date's day different from others."""
    return crc32(str(on).encode())


def _whole_day(listed: Universe, number: int, day_ms: int) -> PastBar:
    on = datetime.fromtimestamp(day_ms / 1000, STOCKS.zone).date()
    day = day_before(listed, number, salt_of(on))
    prices = (day.open_cents, day.high_cents, day.low_cents, listed.closes_cents[number])
    return PastBar(day_ms, *prices, day.volume, round(day.volume * day.vwap * 100), 1 + day.volume // 100)


def _regular(day_ms: int) -> tuple[int, int]:
    """Return when the regular session of the trading day that begins at `day_ms` begins and ends."""
    changes = STOCKS.day_of(day_ms).changes
    at = next(place for place, (_, name) in enumerate(changes) if name == "regular")
    return changes[at][0], changes[at + 1][0]


def _days_between(since_ms: int, until_ms: int) -> list[int]:
    """Return the starts of the trading days that begin in [since, until)."""
    found, day_ms = [], STOCKS.day_of(until_ms - 1).start_ms if until_ms > since_ms else since_ms - 1
    while day_ms >= since_ms:
        found.append(day_ms)
        day_ms = STOCKS.day_of(day_ms - 1).start_ms
    return found[::-1]


def _closed(minute: int, bar: Growing) -> PastBar:
    return PastBar(minute * MINUTE_MS, bar.open, bar.high, bar.low, bar.close, bar.volume, bar.value, bar.trades)


def _unpacked(packed: array[int]) -> Iterator[PastBar]:
    rows = packed[:]  # in one go: another thread may let the oldest go
    return (PastBar(*rows[at : at + WIDTH]) for at in range(0, len(rows), WIDTH))


def _summed(bars: Iterable[PastBar], span_ms: int) -> list[PastBar]:
    """Return bars of `span_ms`, of narrower ones in order."""
    made: list[PastBar] = []
    for bar in bars:
        _add(made, bar.start - bar.start % span_ms, bar)
    return made


def _add(made: list[PastBar], start: int, bar: PastBar) -> None:
    """Add a bar, which is later than all before it, to the one that begins at `start`."""
    if not made or made[-1].start != start:
        made.append(bar._replace(start=start))
        return
    one = made[-1]
    made[-1] = PastBar(
        start, one.open, max(one.high, bar.high), min(one.low, bar.low), bar.close, one.volume + bar.volume,
        one.value + bar.value, one.trades + bar.trades,
    )  # fmt: skip
