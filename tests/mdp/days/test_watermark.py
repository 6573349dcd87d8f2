"""Tests that the time of a feed is what all of its streams have reached, and never a clock's word alone."""

from __future__ import annotations

import pytest

from mdp.days.watermark import JUMP_MS, SETTLE_MS, SILENT_MS, Watermark

DAY_MS = 86_400_000
T = 1_700_000_000_000


class Feed:
    """A source with two streams, its clock and its events."""

    def __init__(self, ahead_ms: int = 0, epoch: str = "e", mark: Watermark | None = None, now_ms: int = 0) -> None:
        self.mark = mark or Watermark()
        self.now_ms = now_ms
        self.ahead_ms = ahead_ms  # of its clock
        self.epoch = epoch

    def says(self, stream: str, true_ms: int, event: bool = True, lag_ms: int = 0) -> int:
        """Publish at a true time; the event is as old as `lag_ms`."""
        event_ms = true_ms - lag_ms if event else 0
        return self.mark.note("s", self.epoch, stream, true_ms + self.ahead_ms, self.now_ms, event_ms)


def settled(**more: int) -> Feed:
    feed = Feed(**more)
    assert [feed.says(stream, T) for stream in ("trades", "quotes")] == [0, 0]  # who else is there?
    feed.now_ms += SETTLE_MS
    return feed


def test_the_slowest_stream_tells_the_time() -> None:
    """A stream with a backlog holds it back; it is told once a second of the feed's time."""
    feed = settled()
    assert feed.says("quotes", T + 40_000) == T
    assert feed.says("trades", T + 500) == 0
    assert feed.says("trades", T + 39_000) == T + 39_000
    assert feed.says("trades", T + 39_900) == 0
    assert feed.says("trades", T + 40_100) == T + 40_000


def test_marks_alone_move_it_once_events_have_come() -> None:
    """A quiet night: nothing is traded, and the day ends all the same."""
    feed = settled()
    for second in range(1, 4):
        feed.now_ms += 1_000
        told = [feed.says(stream, T + second * 1_000, event=False) for stream in ("trades", "quotes")]
    assert told == [0, T + 3_000]


def test_a_stream_that_is_gone_holds_nobody_back() -> None:
    """A listener began anew without it: after five seconds it does not count."""
    feed = settled()
    feed.now_ms = SILENT_MS
    assert feed.says("quotes", T + 4_000) == T
    feed.now_ms = SILENT_MS + 1
    assert feed.says("quotes", T + 5_000) == T + 5_000


@pytest.mark.parametrize("ahead_ms", [DAY_MS, 3_600_000, -DAY_MS, 900_000])
def test_a_clock_that_is_wrong_ends_no_day(ahead_ms: int) -> None:
    """A listener a day ahead: the time is that of its events; one that is behind tells no more than it knows."""
    feed = settled(ahead_ms=ahead_ms)
    feed.says("quotes", T + 2_000)
    reached = feed.says("trades", T + 2_000)
    assert reached == T + 2_000 + min(0, ahead_ms)


def test_a_clock_that_jumps_is_not_believed_before_events_confirm_it() -> None:
    """Marks come first; then events say how far off it is."""
    feed = settled()
    feed.says("quotes", T + 1_000)
    assert feed.says("trades", T + 1_000) == T + 1_000
    feed.ahead_ms = DAY_MS
    assert [feed.says(stream, T + 3_000, event=False) for stream in ("trades", "quotes", "trades", "quotes")] == [0] * 4
    told = [feed.says(stream, T + 4_000) for stream in ("trades", "quotes")]
    assert set(told) <= {0, T + 3_000, T + 4_000}
    assert T + 4_000 in told


def test_another_listener_s_clock_is_another_clock() -> None:
    """A standby took over: what the clock before was worth says nothing of this one."""
    feed = settled()
    feed.says("quotes", T + 1_000)
    feed.says("trades", T + 1_000)
    second = Feed(DAY_MS, "e2", feed.mark, feed.now_ms)
    for _ in range(4):
        second.now_ms += SETTLE_MS
        assert [second.says(stream, T + 3_000, event=False) for stream in ("trades", "quotes")] == [0, 0]


def test_the_vendor_s_delayed_feed_ends_its_day_later() -> None:
    """Fifteen minutes: its events of before midnight come after it, and belong to the day before."""
    feed = settled()
    delay_ms = 900_000
    for _ in range(3):
        told = [feed.says(stream, T + 20_000, lag_ms=delay_ms) for stream in ("trades", "quotes")]
    assert told == [0, 0]  # what was told before the delay was known stays


def test_one_late_report_is_no_clock() -> None:
    """A trade of an hour ago among others holds nothing back."""
    feed = settled()
    feed.says("quotes", T + 2_000)
    assert feed.says("trades", T + 2_000, lag_ms=3_600_000) == T + 2_000


def test_sources_have_times_of_their_own_and_begin_anew() -> None:
    """A tape of last year beside a live feed; and its second round."""
    mark = Watermark()
    for source, ms in (("live", T), ("tape", T - 365 * DAY_MS)):
        mark.note(source, "e", "trades", ms, 0, ms)
    assert mark.note("live", "e", "trades", T + 2_000, SETTLE_MS) == T + 2_000
    assert mark.note("tape", "e", "trades", T - 365 * DAY_MS + 2_000, SETTLE_MS) == T - 365 * DAY_MS + 2_000
    mark.restart("tape")
    assert mark.note("tape", "e", "trades", T - 365 * DAY_MS, SETTLE_MS, T - 365 * DAY_MS) == 0
    assert mark.note("tape", "e", "trades", T - 365 * DAY_MS + 100, 2 * SETTLE_MS) == T - 365 * DAY_MS + 100


def test_a_tape_that_skips_a_pause_is_confirmed_by_its_next_event() -> None:
    """Its time goes on by hours at once, and so do its events."""
    feed = settled()
    assert feed.says("quotes", T + 10 * JUMP_MS) == T
    assert feed.says("trades", T + 10 * JUMP_MS) == T + 10 * JUMP_MS


def test_the_end_of_a_tape_is_told_though_one_queue_was_hours_behind() -> None:
    """At full speed the last event may be an old one of a slow queue; only marks follow, and no event says the lag anew."""
    mark, streams, end = Watermark(), ("quotes", "trades", "halts"), T + 100 * JUMP_MS
    for stream in streams:
        mark.note("tape", "e", stream, T, 0, T, tape=True)
    for stream, ms in (("quotes", end), ("trades", end - 20_000), ("halts", T + 1_000)):
        mark.note("tape", "e", stream, ms, SETTLE_MS, ms, tape=True)
    told = [mark.note("tape", "e", stream, end, SETTLE_MS + 1_000, tape=True) for stream in streams]
    assert max(told) == end


def test_at_full_speed_a_tape_s_smallest_lag_counts() -> None:
    """Batches carry the time of the last of many frames; some end in that very frame."""
    mark = Watermark()
    for lag_ms in (0, 500_000, 400_000, 600_000):
        mark.note("tape", "e", "trades", T, 0, T - lag_ms, tape=True)
    assert mark.note("tape", "e", "trades", T + 1_000, SETTLE_MS, tape=True) == T + 1_000


def test_who_takes_a_partition_over_tells_the_time_without_an_event() -> None:
    """The lag of the same listener is in the checkpoint; of another one it says nothing."""
    feed = settled()
    feed.says("trades", T + 1_000, lag_ms=700)
    for epoch, reached in (("e", T + 60_000), ("e2", 0)):
        after = Watermark()
        after.restore(feed.mark.lags(), 0)
        heir = Feed(0, epoch, after)
        heir.says("trades", T + 50_000, event=False)
        heir.now_ms = SETTLE_MS
        assert heir.says("trades", T + 60_000, event=False) == reached


def test_no_number_of_sources_grows_it() -> None:
    """The one that was known first is forgotten."""
    mark = Watermark()
    for n in range(1_000):
        mark.note(f"s{n}", "e", "trades", 1, 0)
    assert len(mark._sources) == 64
