"""An event's time in, trading day and session out: US equities by New York time, everything else by UTC days."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, time, timedelta
from zoneinfo import ZoneInfo

from mdp.events import BadEvent

NEW_YORK = ZoneInfo("America/New_York")
STOCK_SESSIONS = (
    (time(0, 0), "closed"),
    (time(4, 0), "pre"),
    (time(9, 30), "regular"),
    (time(16, 0), "post"),
    (time(20, 0), "closed"),
)
DAY_MS = 86_400_000
FUTURE_MS_MAX = DAY_MS  # a clock of ours may be hours off; what is a day ahead is no time


class Calendar:
    """Where the newest event stands. `change_ms` is when session or day change next; until then nothing is computed."""

    def __init__(self, continuous: bool) -> None:
        self.session = "continuous" if continuous else "closed"
        self.day_start_ms = 0
        self.change_ms = 0
        self.newest_ms = 0  # the event that moved it last
        self.moved = False  # since its checkpoint was written
        self._continuous = continuous

    def move(self, ts: int) -> bool:
        """Go to the session of `ts` (ms, at or after `change_ms`); return whether a new trading day began."""
        before = self.day_start_ms
        self.newest_ms, self.moved = ts, True
        if self._continuous:
            self.day_start_ms = ts - ts % DAY_MS
            self.change_ms = self.day_start_ms + DAY_MS
        else:
            self._move_stocks(ts)
        return self.day_start_ms != before

    def _move_stocks(self, ts: int) -> None:
        moment = datetime.fromtimestamp(ts / 1000, NEW_YORK)
        starts = [(_ms(moment, start), name) for start, name in STOCK_SESSIONS]
        self.day_start_ms = starts[0][0]
        midnight = datetime.combine(moment.date() + timedelta(days=1), time(0, 0), NEW_YORK)
        ends = [start for start, _ in starts[1:]] + [round(midnight.timestamp() * 1000)]
        for (_, name), end in zip(starts, ends, strict=True):
            if ts < end:
                self.session, self.change_ms = name, end
                return


class Calendars:
    """The calendars of one analyzer, kept in its checkpoint beside its symbols (no symbol begins with @)."""

    def __init__(self) -> None:
        self.stocks = Calendar(continuous=False)
        self.always = Calendar(continuous=True)
        self.now_ms = 0  # wall clock, 0 = not known yet
        self._named = {"@stocks": self.stocks, "@always": self.always}

    def move(self, calendar: Calendar, ts: int) -> bool:
        """Move one of the two to `ts`; return whether a day ended.  Raises: BadEvent for a time that cannot be."""
        if self.now_ms and ts > self.now_ms + FUTURE_MS_MAX:
            raise BadEvent(f"timestamp {ts} is more than a day ahead")
        first = calendar.day_start_ms == 0
        return calendar.move(ts) and not first

    @property
    def moved(self) -> bool:
        """Whether one has moved since `cells` was called last."""
        return any(calendar.moved for calendar in self._named.values())

    def cells(self) -> Iterator[tuple[str, bytes]]:
        """Yield (name, checkpoint cell) of the calendars that moved since the last call."""
        for name, calendar in self._named.items():
            if calendar.moved:
                calendar.moved = False
                yield name, b"%d" % calendar.newest_ms

    def restore(self, name: str, body: bytes) -> bool:
        """Take a cell back; return False when `name` is none of ours."""
        calendar = self._named.get(name)
        if calendar is not None:
            calendar.move(int(body))
            calendar.moved = False
        return calendar is not None

    def rewrite(self) -> None:
        """Have all cells written again."""
        for calendar in self._named.values():
            calendar.moved = calendar.day_start_ms > 0


def _ms(moment: datetime, start: time) -> int:
    return round(datetime.combine(moment.date(), start, NEW_YORK).astimezone(UTC).timestamp() * 1000)
