"""Tells the trading day and the session that a time belongs to: US stocks, futures, and markets that never close.

Invariant: a day lasts until the first event after the next opening. No clock ends it: the hours before the opening, and the
weekends and holidays on which nothing happens, belong to the last session.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta, tzinfo
from itertools import pairwise
from zoneinfo import ZoneInfo

DAY_MS = 86_400_000


@dataclass(frozen=True, slots=True)
class Market:
    """When a market is open. `sessions` = (local time, name of what begins then); the first one begins the trading day."""

    name: str
    zone: tzinfo
    sessions: tuple[tuple[time, str], ...]


STOCKS = Market(
    "stocks", ZoneInfo("America/New_York"),
    ((time(4, 0), "pre"), (time(9, 30), "regular"), (time(16, 0), "post"), (time(20, 0), "closed")),
)  # fmt: skip
FUTURES = Market("futures", ZoneInfo("America/Chicago"), ((time(17, 0), "regular"), (time(16, 0), "closed")))  # CME Globex
ALWAYS = Market("always", UTC, ((time(0, 0), "continuous"),))
MARKETS = {market.name: market for market in (STOCKS, FUTURES, ALWAYS)}
FUTURE = re.compile(r"[A-Z0-9]{1,4}[FGHJKMNQUVXZ][0-9]{1,2}(-.*)?")  # ESZ6, 6EH27, ESZ6-ESH7: no stock's ticker ends so


def market_of(symbol: str, continuous: bool) -> Market:
    """Return the market of a symbol; `continuous` = its events say that it never closes (crypto, forex)."""
    if continuous:
        return ALWAYS
    return FUTURES if FUTURE.fullmatch(symbol) else STOCKS


class Calendar:
    """Where the newest event of a market stands. Nothing is computed before `change_ms`, when session or day change next."""

    def __init__(self, name: str, market: Market) -> None:
        self.name = name
        self.symbols: set[str] = set()  # those that live by it
        self.session = market.sessions[-1][1]
        self.day_start_ms = 0
        self.change_ms = 0
        self.newest_ms = 0  # the event that moved it last
        self.moved = False  # since its checkpoint was written
        self._market = market
        self.official = (0, 0)  # from when to when the day's official values are made

    def move(self, ts: int) -> bool:
        """Go to the session of `ts` (ms, at or after `change_ms`); return whether a trading day ended."""
        before = self.day_start_ms
        self.newest_ms, self.moved = ts, True
        bounds = _bounds(self._market, ts)
        self.day_start_ms = bounds[0][0]
        for (start, name), (end, _) in pairwise(bounds):
            if name == "regular":
                self.official = start, end
            if start <= ts < end:
                self.session, self.change_ms = name, end
        return 0 < before != self.day_start_ms

    def extended(self, ts: int) -> bool:
        """Whether `ts` is outside the regular session of a market whose official values are made in it alone."""
        return self._market is STOCKS and not self.official[0] <= ts < self.official[1]

    def restart(self) -> None:
        """Stand nowhere again: the next event, whatever its time, begins a day."""
        self.day_start_ms = self.change_ms = self.newest_ms = 0
        self.moved = True


class Calendars:
    """The calendars of one analyzer, one for each market of each source, kept in its checkpoint (no symbol begins with @).

    A source has its own because its time is its own: a tape of last year beside a live feed must not be of an earlier day.
    """

    def __init__(self) -> None:
        self.source = ""  # of the events that come now
        self.of: dict[str, Calendar] = {}  # symbol → the one it lives by
        self._named: dict[str, Calendar] = {}

    def join(self, symbol: str, continuous: bool) -> Calendar:
        """Let a new symbol live by the calendar of its market and of the source that sends it."""
        return self.rejoin(symbol, f"{self.source}|{market_of(symbol, continuous).name}")

    def rejoin(self, symbol: str, name: str) -> Calendar:
        """Let a symbol live by the calendar of that name, as its checkpoint says."""
        calendar = self.of[symbol] = self._calendar(name)
        calendar.symbols.add(symbol)
        return calendar

    def leave(self, symbol: str) -> None:
        """Forget a symbol."""
        calendar = self.of.pop(symbol, None)
        if calendar is not None:
            calendar.symbols.discard(symbol)

    def restart(self, source: str) -> None:
        """The source's time begins anew."""
        for name, calendar in self._named.items():
            if name.partition("|")[0] == source:
                calendar.restart()

    @property
    def moved(self) -> bool:
        """Whether one has moved since `cells` was called last."""
        return any(calendar.moved for calendar in self._named.values())

    def cells(self) -> Iterator[tuple[str, bytes]]:
        """Yield (name, checkpoint cell) of the calendars that moved since the last call."""
        for name, calendar in self._named.items():
            if calendar.moved:
                calendar.moved = False
                yield f"@{name}", b"%d" % calendar.newest_ms

    def restore(self, name: str, body: bytes) -> bool:
        """Take a cell back; return False when `name` is none of ours."""
        if not name.startswith("@"):
            return False
        calendar = self._calendar(name[1:])
        if int(body):
            calendar.move(int(body))
        calendar.moved = False
        return True

    def behind(self, days: Mapping[str, int]) -> list[tuple[Calendar, int]]:
        """Return the calendars whose session or day is over by what `days` says (name → newest event, ms), with that time."""
        return [(one, ts) for name, ts in days.items() if (one := self._named.get(name)) is not None and ts >= one.change_ms]

    def rewrite(self) -> None:
        """Have all cells written again."""
        for calendar in self._named.values():
            calendar.moved = True

    def _calendar(self, name: str) -> Calendar:
        found = self._named.get(name)
        if found is None:
            found = self._named[name] = Calendar(name, MARKETS[name.rpartition("|")[2]])
        return found


def _bounds(market: Market, ts: int) -> list[tuple[int, str]]:
    """Return (start ms, session) of the trading day that holds `ts`, and the start of the next day."""
    first = market.sessions[0][0]
    moment = datetime.fromtimestamp(ts / 1000, market.zone)
    day = moment.date() if moment.time() >= first else moment.date() - timedelta(days=1)
    next_day = day + timedelta(days=1)
    starts = [(_ms(next_day if start < first else day, start, market.zone), name) for start, name in market.sessions]
    return [*starts, (_ms(next_day, first, market.zone), "")]


def _ms(day: date, start: time, zone: tzinfo) -> int:
    return round(datetime.combine(day, start, zone).astimezone(UTC).timestamp() * 1000)
