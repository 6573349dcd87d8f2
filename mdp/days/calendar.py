"""Keeps where each market of each source stands: its trading day, its session, and when either changes next.

Invariant: a day lasts until the next one opens, by the time of the events or of the feed itself, whichever comes first.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import pairwise

from service.days.markets import Day, Market, Markets

SEEN_MS = 60_000  # who hears something of the market so soon after a session has begun has seen its beginning


class Calendar:
    """Where the newest event of a market stands. Nothing is computed before `change_ms`, when session or day change next."""

    def __init__(self, name: str, market: Market) -> None:
        self.name = name
        self.symbols: set[str] = set()  # those that live by it
        self.session = market.sessions[-1][1]
        self.day_start_ms = 0
        self.change_ms = 0
        self.day_end_ms = 0
        self.newest_ms = 0  # the event that moved it last
        self.since_ms = 0  # the first that we, or who had it before us, heard of this trading day
        self.moved = False  # since its checkpoint was written
        self.market = market.name
        self._market = market
        self._asked = Day(0, 0, [])
        self.official = (0, 0)  # from when to when the day's official values are made

    @property
    def extended_hours(self) -> bool:
        """Whether official values are made in the regular session alone."""
        return self._market.extended_hours

    @property
    def session_start_ms(self) -> int:
        """Return when the session began whose official values are made now, or the day where they are made all day."""
        return self.official[0] if self._market.extended_hours else self.day_start_ms

    def move(self, ts: int) -> bool:
        """Go to the session of `ts` (ms, at or after `change_ms`); return whether a trading day ended."""
        before = self.day_start_ms
        self.newest_ms, self.moved = ts, True
        day = self._market.day_of(ts)
        if day.start_ms != before:
            self.since_ms = ts
        self.day_start_ms, self.day_end_ms = day.start_ms, day.end_ms
        for (start, name), (end, _) in pairwise([*day.changes, (day.end_ms, "")]):
            if name == "regular":
                self.official = start, end
            if start <= ts < end:
                self.session, self.change_ms = name, end
        return 0 < before != self.day_start_ms

    def day_start_of(self, ts: int) -> int:
        """Return the start of the trading day that holds `ts`; the last one asked for is remembered."""
        if not self._asked.start_ms <= ts < self._asked.end_ms:
            self._asked = self._market.day_of(ts)
        return self._asked.start_ms

    def extended(self, ts: int) -> bool:
        """Whether `ts` is outside the regular session of a market whose official values are made in it alone."""
        return self._market.extended_hours and not self.official[0] <= ts < self.official[1]

    def ahead(self, ts: int) -> tuple[int, bool]:
        """Return of a moment after this trading day when its own begins, and whether it is in the session of official values."""
        start_ms = self.day_start_of(ts)
        session = next(name for begins_ms, name in reversed(self._asked.changes) if begins_ms <= ts)
        return start_ms, not self._market.extended_hours or session == "regular"

    def restart(self) -> None:
        """Stand nowhere again: the next event, whatever its time, begins a day."""
        self.day_start_ms = self.day_end_ms = self.change_ms = self.newest_ms = self.since_ms = 0
        self.moved = True


class Calendars:
    """The calendars of one analyzer, one for each market of each source, kept in its checkpoint (no symbol begins with @).

    A source has its own because its time is its own: a tape of last year beside a live feed must not be of an earlier day.
    """

    def __init__(self, markets: Markets | None = None) -> None:
        self.source = ""  # of the events that come now
        self.market = ""  # what that source says of it: the name of a market, empty = nothing
        self._markets = markets or Markets()
        self.of: dict[str, Calendar] = {}  # symbol → the one it lives by
        self._named: dict[str, Calendar] = {}

    def join(self, symbol: str, continuous: bool, listed: bool = False, queue: str = "") -> Calendar:
        """Let a new symbol live by the calendar of its market and of the source that sends it, or of a `queue` of that.

        `listed` = its event has what only those of stocks and options have.
        """
        market = self._markets.of(symbol, continuous, self.market or ("stocks" if listed else ""))
        return self.rejoin(symbol, f"{queue or self.source}|{market.name}")

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

    def due(self, source: str, feed_ms: int) -> list[Calendar]:
        """Return the calendars of a source whose session is over at `feed_ms`, a time that all its streams have reached."""
        return [
            calendar
            for name, calendar in self._named.items()
            if 0 < calendar.change_ms <= feed_ms and name.partition("|")[0] == source
        ]

    def days_of(self, market: str) -> set[int]:
        """Return the trading days (starts, ms) on which the calendars of a market stand."""
        return {one.day_start_ms for one in self._named.values() if one.market == market and one.day_start_ms}

    @property
    def moved(self) -> bool:
        """Whether one has moved since `cells` was called last."""
        return any(calendar.moved for calendar in self._named.values())

    def cells(self) -> Iterator[tuple[str, bytes]]:
        """Yield (name, checkpoint cell) of the calendars that moved since the last call."""
        for name, calendar in self._named.items():
            if calendar.moved:
                calendar.moved = False
                # The sign says that the day was heard from its beginning; who knows no sign reads the same number.
                sign = b"+" if calendar.since_ms <= calendar.day_start_ms + SEEN_MS else b""
                yield f"@{name}", b"%b%d" % (sign, calendar.newest_ms)

    def restore(self, name: str, body: bytes) -> bool:
        """Take a cell back; return False when `name` is none of ours."""
        if not name.startswith("@"):
            return False
        calendar = self._calendar(name[1:])
        if int(body):
            calendar.move(int(body))
            if body.startswith(b"+"):
                calendar.since_ms = calendar.day_start_ms
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
            found = self._named[name] = Calendar(name, self._markets.named(name.rpartition("|")[2]))
        return found
