"""Tests that the time of a feed is what all of its streams have reached."""

from __future__ import annotations

from mdp.days.watermark import SETTLE_MS, SILENT_MS, Watermark


def test_the_slowest_stream_tells_the_time() -> None:
    """A stream with a backlog holds it back; it is told once a second of the feed's time."""
    mark = Watermark()
    assert [mark.note("s", stream, 10_000, 0) for stream in ("trades", "quotes")] == [0, 0]  # who else is there?
    assert mark.note("s", "quotes", 90_000, SETTLE_MS) == 10_000
    assert mark.note("s", "trades", 10_500, SETTLE_MS) == 0
    assert mark.note("s", "trades", 89_000, SETTLE_MS) == 89_000
    assert mark.note("s", "trades", 89_900, SETTLE_MS) == 0
    assert mark.note("s", "trades", 90_100, SETTLE_MS) == 90_000


def test_a_stream_that_is_gone_holds_nobody_back() -> None:
    """A listener began anew without it: after five seconds it does not count."""
    mark = Watermark()
    mark.note("s", "books", 5_000, 0)
    mark.note("s", "trades", 5_000, 0)
    assert mark.note("s", "trades", 9_000, SILENT_MS) == 5_000
    assert mark.note("s", "trades", 10_000, SILENT_MS + 1) == 10_000


def test_sources_have_times_of_their_own_and_begin_anew() -> None:
    """A tape of last year beside a live feed; and its second round."""
    mark = Watermark()
    for source, ms in (("live", 900_000), ("tape", 1_000)):
        mark.note(source, "trades", ms, 0)
    assert mark.note("live", "trades", 902_000, SETTLE_MS) == 902_000
    assert mark.note("tape", "trades", 3_000, SETTLE_MS) == 3_000
    mark.restart("tape")
    assert mark.note("tape", "trades", 1_000, SETTLE_MS) == 0
    assert mark.note("tape", "trades", 1_100, 2 * SETTLE_MS) == 1_100


def test_no_number_of_sources_grows_it() -> None:
    """The one that was known first is forgotten."""
    mark = Watermark()
    for n in range(1_000):
        mark.note(f"s{n}", "trades", 1, 0)
    assert len(mark._sources) == 64
