"""An event's time in, trading day and session out: US equities by New York time, everything else by UTC days."""

from __future__ import annotations

from datetime import UTC, datetime, time, timedelta
from zoneinfo import ZoneInfo

NEW_YORK = ZoneInfo("America/New_York")
STOCK_SESSIONS = (
    (time(0, 0), "closed"),
    (time(4, 0), "pre"),
    (time(9, 30), "regular"),
    (time(16, 0), "post"),
    (time(20, 0), "closed"),
)
FUTURE_MS_MAX = 86_400_000


class Calendar:
    """Where the newest event stands. `change_ms` is when session or day change next; until then nothing is computed."""

    def __init__(self, continuous: bool) -> None:
        self.session = "continuous" if continuous else "closed"
        self.day_start_ms = 0
        self.change_ms = 0
        self._continuous = continuous

    def move(self, ts: int) -> bool:
        """Go to the session of `ts` (ms, at or after `change_ms`); return whether a new trading day began."""
        before = self.day_start_ms
        if self._continuous:
            self.day_start_ms = ts - ts % FUTURE_MS_MAX
            self.change_ms = self.day_start_ms + FUTURE_MS_MAX
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


def _ms(moment: datetime, start: time) -> int:
    return round(datetime.combine(moment.date(), start, NEW_YORK).astimezone(UTC).timestamp() * 1000)
