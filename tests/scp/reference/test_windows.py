"""Checks how the past is cut into windows, and that their bars are whole."""

from __future__ import annotations

from itertools import islice, pairwise

import pytest

from scp.reference.answers import BadAnswer, BarRow
from scp.reference.windows import DAY_MS, MINUTE_MS, SPANS, Window, fresh_until, pack, rows_before, trading_day, windows
from service.days.markets import STOCKS

NOW_MS = 1_790_000_000_000  # a Monday, 10:13 in New York


def bar(t: int) -> BarRow:
    return BarRow(t, 1.0, 2.0, 1.0, 1.5, 100.0)


def test_windows_lie_side_by_side() -> None:
    """Back from the time asked for, or from now."""
    span = SPANS["1m"]
    found = list(islice(windows(span, NOW_MS, NOW_MS), 5))
    assert found == list(islice(windows(span, NOW_MS + DAY_MS, NOW_MS), 5))
    assert found[0].since_ms < NOW_MS <= found[0].until_ms
    assert all(one.since_ms == other.until_ms for one, other in pairwise(found))
    assert next(windows(span, found[1].until_ms, NOW_MS)) == found[1]


def test_a_bar_in_the_making_is_none() -> None:
    """Nor is one of the last quarter of an hour, when the vendor says that it is late."""
    minute = NOW_MS // MINUTE_MS * MINUTE_MS
    window, rows = Window(minute - DAY_MS, minute + DAY_MS), [bar(minute - 30 * MINUTE_MS), bar(minute - MINUTE_MS), bar(minute)]
    assert [row[0] for row in rows_before(pack(rows, SPANS["1m"], window, NOW_MS, False), NOW_MS)] == [rows[0].t, rows[1].t]
    assert [row[0] for row in rows_before(pack(rows, SPANS["1m"], window, NOW_MS, True), NOW_MS)] == [rows[0].t]
    for wrong in ([rows[1], rows[0]], [rows[0], rows[0]], [bar(window.since_ms - 1)]):
        with pytest.raises(BadAnswer):
            pack(wrong, SPANS["1m"], window, NOW_MS, False)


def test_days_are_called_by_their_trading_day() -> None:
    """The vendor's begin at midnight in New York, in summer and winter; what is not known stays null."""
    for midnight_ms in (1_789_963_200_000, 1_768_194_000_000):
        assert trading_day(midnight_ms) == STOCKS.day_of(midnight_ms + DAY_MS // 2).start_ms
    window = Window(0, 2 * NOW_MS)
    (row,) = rows_before(pack([bar(1_768_194_000_000)], SPANS["1d"], window, NOW_MS, False), NOW_MS)
    assert row == [1_768_208_400_000, 1.0, 2.0, 1.0, 1.5, 100, None, None]


def test_what_is_old_is_kept_until_the_next_trading_day() -> None:
    """A split works all of the past over; what is new may still change."""
    old = Window(NOW_MS - 9 * DAY_MS, NOW_MS - 5 * DAY_MS)
    assert fresh_until("1m", old, NOW_MS) == STOCKS.day_of(NOW_MS).end_ms
    assert fresh_until("1m", Window(NOW_MS - DAY_MS, NOW_MS), NOW_MS) == NOW_MS + MINUTE_MS
