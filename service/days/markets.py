"""Tells when a market is open: US stocks, futures, forex and what never closes; holidays and half days come from `holidays.py`.

A trading day begins with its first session and lasts until the next one opens: nights, weekends and holidays belong to the day
before them. Futures and forex open on the evening before the date that their day is called by.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, time, timedelta, tzinfo
from fnmatch import fnmatchcase
from typing import NamedTuple
from zoneinfo import ZoneInfo

from service.days.holidays import FUTURES_CLOSED, FUTURES_SHORT, STOCKS_CLOSED, STOCKS_SHORT

SATURDAY = 5
CLOSED_DAYS_MAX = 14  # in a row: no market has as many, but what an operator closes is bounded, too
CLOSED = "closed"
Sessions = tuple[tuple[time, str], ...]  # (local time, name of what begins then); the first one begins the trading day


class Day(NamedTuple):
    """A trading day: `changes` are (start ms, session) in order; the last one lasts until `end_ms`, when the next day opens."""

    start_ms: int
    end_ms: int
    changes: list[tuple[int, str]]


@dataclass(frozen=True, slots=True)
class Market:
    """When a market is open.

    `short` days have `short_sessions`; `eve` = a day opens on the evening before its date; `always` = it knows no weekend.
    `extended_hours` = official values are made in the session `regular` alone, not before and after it.
    """

    name: str
    zone: tzinfo
    sessions: Sessions
    closed: frozenset[date] = frozenset()
    short: frozenset[date] = frozenset()
    short_sessions: Sessions = ()
    eve: bool = False
    always: bool = False
    extended_hours: bool = False

    def day_of(self, ts: int) -> Day:
        """Return the trading day that holds `ts` (ms)."""
        moment = datetime.fromtimestamp(ts / 1000, self.zone)
        opens = moment.date() if moment.time() >= self.sessions[0][0] else moment.date() - timedelta(days=1)
        for _ in range(CLOSED_DAYS_MAX):
            if self._open(opens):
                break
            opens -= timedelta(days=1)
        following = opens + timedelta(days=1)
        for _ in range(CLOSED_DAYS_MAX):
            if self._open(following):
                break
            following += timedelta(days=1)
        return self._day(opens, following)

    def session_of(self, ts: int) -> str:
        """Return the session at `ts` (ms)."""
        return next(name for start, name in reversed(self.day_of(ts).changes) if start <= ts)

    def _open(self, opens: date) -> bool:
        """Whether a trading day begins on this date."""
        called = opens + timedelta(days=1) if self.eve else opens
        return self.always or (called.weekday() < SATURDAY and called not in self.closed)

    def _day(self, opens: date, following: date) -> Day:
        first, called = self.sessions[0][0], opens + timedelta(days=1) if self.eve else opens
        next_date = opens + timedelta(days=1)
        sessions = self.short_sessions if called in self.short else self.sessions
        changes = [(_ms(next_date if start < first else opens, start, self.zone), name) for start, name in sessions]
        if following != next_date and changes[-1][1] != CLOSED:
            changes.append((_ms(next_date, first, self.zone), CLOSED))
        return Day(changes[0][0], _ms(following, first, self.zone), changes)


STOCKS = Market(
    "stocks", ZoneInfo("America/New_York"),
    ((time(4, 0), "pre"), (time(9, 30), "regular"), (time(16, 0), "post"), (time(20, 0), CLOSED)),
    STOCKS_CLOSED, STOCKS_SHORT,
    ((time(4, 0), "pre"), (time(9, 30), "regular"), (time(13, 0), "post"), (time(17, 0), CLOSED)),
    extended_hours=True,
)  # fmt: skip
FUTURES = Market(  # CME Globex
    "futures", ZoneInfo("America/Chicago"), ((time(17, 0), "regular"), (time(16, 0), CLOSED)),
    FUTURES_CLOSED, FUTURES_SHORT, ((time(17, 0), "regular"), (time(12, 0), CLOSED)), eve=True,
)  # fmt: skip
FOREX = Market("forex", ZoneInfo("America/New_York"), ((time(17, 0), "regular"),), eve=True)
ALWAYS = Market("always", UTC, ((time(0, 0), "continuous"),), always=True)
KNOWN = {market.name: market for market in (STOCKS, FUTURES, FOREX, ALWAYS)}
FUTURE = re.compile(r"[A-Z0-9]{1,4}[FGHJKMNQUVXZ][0-9]{1,2}(-.*)?")  # ESZ6, 6EH27, ESZ6-ESH7; hardly a stock's ticker ends so


class Markets:
    """Which market a symbol belongs to. `patterns` = (shell pattern, market), the first that fits wins.

    `closed` = further dates on which a market stays closed.
    """

    def __init__(self, patterns: Iterable[tuple[str, str]] = (), closed: Mapping[str, Iterable[date]] | None = None) -> None:
        """Raises: KeyError for a market that is not known."""
        self._named = dict(KNOWN)
        for name, dates in (closed or {}).items():
            self._named[name] = replace(KNOWN[name], closed=KNOWN[name].closed.union(dates))
        self._patterns = [(pattern, self._named[name]) for pattern, name in patterns]

    def named(self, name: str) -> Market:
        """Raises: KeyError."""
        return self._named[name]

    def of(self, symbol: str, continuous: bool, said: str = "") -> Market:
        """Return the market of a symbol; `continuous` = its events are a currency pair's or a coin's.

        `said` = the market's name where its source or its events say it; only without it a ticker speaks for itself.
        """
        for pattern, market in self._patterns:
            if fnmatchcase(symbol, pattern):
                return market
        if continuous:
            return self._named["forex" if "/" in symbol else "always"]
        return self._named[said or ("futures" if FUTURE.fullmatch(symbol) else "stocks")]


def calendar_of(market: str) -> str:
    """Return the name of the market by which what a vendor's feed sends lives, empty when that does not follow from the feed.

    Pairs and coins are known by the types of their events.
    """
    if market in ("stocks", "options", "indices"):
        return STOCKS.name
    return FUTURES.name if market.partition("/")[0] == "futures" else ""


def _ms(day: date, start: time, zone: tzinfo) -> int:
    return round(datetime.combine(day, start, zone).astimezone(UTC).timestamp() * 1000)
