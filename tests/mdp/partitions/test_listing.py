"""Tests which symbols a partition remembers, and which it lets go."""

from __future__ import annotations

import pytest

from mdp.events.vendor import BadEvent
from mdp.partitions.listing import LEAVING_MAX, SILENT_DAYS, Listing
from tests.mdp.feed import START_MS, Desk, quote

DAY_MS = 86_400_000


def hear(listing: Listing, day: float, *symbols: str, source: str = "s") -> None:
    for symbol in symbols:
        listing.note(symbol, listing.mark(source, round(day * DAY_MS)))


def hand_over(listing: Listing, cells: dict[str, bytes]) -> Listing:
    """Return what a new owner knows; `cells` is the checkpoint."""
    cells |= dict(listing.cells())
    made = Listing()
    for symbol, body in cells.items():
        if symbol in listing.marks:
            made.restore(symbol, body)
    made.sort()
    return made


@pytest.mark.parametrize("handed_over", [False, True])
def test_a_symbol_leaves_after_eight_silent_days(handed_over: bool) -> None:
    """Of its source's clock, counted in whole days; one that is heard again stays."""
    listing, cells = Listing(), {}
    hear(listing, 0.9, "GONE", "QUIET")
    for day in range(1, SILENT_DAYS + 3):
        hear(listing, day, "BUSY", *(["QUIET"] if day == 5 else []))
        if handed_over:
            listing = hand_over(listing, cells)
        assert listing.leave() == (["GONE"] if day == SILENT_DAYS + 1 else []), day
    assert set(listing.marks) == {"QUIET", "BUSY"}


def test_a_silent_source_loses_nothing() -> None:
    """Its clock stands still, whatever the others do."""
    listing = Listing()
    hear(listing, 0, "A", source="stocks")
    hear(listing, 0, "B", source="crypto")
    for day in range(100):
        hear(listing, day, "B", source="crypto")
        assert listing.leave() == []
    hear(listing, 100, "C", source="stocks")
    assert listing.leave() == ["A"]


def test_a_clock_that_jumped_ahead_empties_nothing() -> None:
    """A mark that no believed event bears moves nothing."""
    listing = Listing()
    hear(listing, 0, "A")
    listing.mark("s", 365 * DAY_MS)
    hear(listing, 0.1, "B")
    assert (listing.leave(), set(listing.marks)) == ([], {"A", "B"})


def test_only_the_first_event_of_a_day_is_written() -> None:
    """The checkpoint holds days: a symbol that is heard a thousand times a day costs one cell."""
    listing, written = Listing(), []
    for minute in range(3 * 1_440):
        hear(listing, minute / 1_440, "A")
        written += list(listing.cells())
    assert written == [("A", b"0 s"), ("A", b"1 s"), ("A", b"2 s")]
    hear(listing, 2.9999, "A", source="other")
    assert list(listing.cells()) == [("A", b"2 other")]
    listing.rewrite()
    assert list(listing.cells()) == [("A", b"2 other")]


def test_within_a_minute_a_mark_is_the_same() -> None:
    """What comes between costs a look-up; a batch of the minute before changes nothing."""
    listing = Listing()
    first = listing.mark("s", 60_000)
    listing.note("A", first)
    assert listing.mark("s", 119_999) is first
    assert listing.mark("s", 0) is first
    assert listing.mark("s", 120_000) is not first


def test_the_longest_silent_go_when_there_are_too_many(monkeypatch: pytest.MonkeyPatch) -> None:
    """A new symbol is not refused; the one not heard for longest makes room."""
    monkeypatch.setattr("mdp.partitions.listing.SYMBOLS_MAX", 3)
    listing = Listing()
    hear(listing, 0, "A", "B", "C")
    hear(listing, 0.1, "A")
    hear(listing, 0.2, "D", "E")
    assert listing.leave() == ["B", "C"]
    assert set(listing.marks) == {"A", "D", "E"}


def test_a_flood_of_symbols_is_refused_until_others_have_left(monkeypatch: pytest.MonkeyPatch) -> None:
    """The map is bounded between two flushes too; those known go on."""
    monkeypatch.setattr("mdp.partitions.listing.SYMBOLS_MAX", 3)
    monkeypatch.setattr("mdp.partitions.listing.SURPLUS_MAX", 2)
    listing = Listing()
    hear(listing, 0, *"ABCDE")
    with pytest.raises(BadEvent, match="more than 3 symbols") as refused:
        hear(listing, 0, "F")
    assert refused.value.why == "no_room"
    hear(listing, 1, "A")
    assert listing.leave() == ["B", "C"]
    hear(listing, 1, "F")


def test_a_flush_lets_a_bounded_number_go() -> None:
    """The rest follows in the next ones; who is heard meanwhile stays."""
    listing = Listing()
    symbols = [f"S{n}" for n in range(2 * LEAVING_MAX + 10)]
    hear(listing, 0, *symbols)
    hear(listing, 20, "NEW")
    assert listing.leave() == symbols[:LEAVING_MAX]
    hear(listing, 20, symbols[-1])
    assert listing.leave() == symbols[LEAVING_MAX : 2 * LEAVING_MAX]
    assert listing.leave() == symbols[2 * LEAVING_MAX : -1]
    assert (listing.leave(), set(listing.marks)) == ([], {"NEW", symbols[-1]})


def test_a_restarted_tape_is_heard_by_its_new_clock() -> None:
    """At its beginning again, the symbols of its end are not silent, and those of other sources are none of its."""
    listing = Listing()
    hear(listing, 20, "A")
    hear(listing, 20, "B", source="live")
    assert listing.of_source("s") == ["A"]
    listing.restart("s")
    hear(listing, 0, "C")
    assert listing.leave() == []
    hear(listing, 1, "A", "C")
    assert list(dict(listing.cells())["A"].split()) == [b"1", b"s"]


@pytest.mark.parametrize("name", ["A\n", 'A"', "-A", " A", "A B", "Ä", "A\x00", "../A", "*", "{A}"])
def test_a_name_that_no_symbol_has_is_refused_every_time(name: str) -> None:
    """It would become part of a key, of a channel and of JSON: nothing remembers it."""
    listing = Listing()
    for _ in range(2):
        with pytest.raises(BadEvent, match="no symbol has the name"):
            hear(listing, 1, name)
    assert not listing.marks
    hear(listing, 1, "BRK.B", "O:SPY251219C00650000", "C:EUR/USD", "I:SPX", "X^A", "A+", "A_B", "BTC-PERP", "7203.T")
    assert len(listing.marks) == 9


def test_the_longest_silent_symbols_make_room(monkeypatch: pytest.MonkeyPatch) -> None:
    """Above the bound a new symbol is taken and the one not heard for longest goes."""
    monkeypatch.setattr("mdp.partitions.listing.SYMBOLS_MAX", 3)
    desk = Desk()
    for n in range(5):
        desk.feed(quote(f"S{n}", t=START_MS + 60_000 * n))
        desk.flush()
    cache = desk.flush()
    assert sorted(cache.channels("quote")) == ["S2", "S3", "S4"]
    assert (desk.partition.counts.forgotten, desk.partition.counts.bad) == (2, 0)


def test_a_flood_of_invented_symbols_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Between two flushes the rest is refused and counted; those known go on."""
    monkeypatch.setattr("mdp.partitions.listing.SYMBOLS_MAX", 3)
    monkeypatch.setattr("mdp.partitions.listing.SURPLUS_MAX", 0)
    desk = Desk()
    desk.feed(*[quote(f"S{n}") for n in range(5)], quote("S0", 5))
    cache = desk.flush()
    assert sorted(cache.channels("quote")) == ["S0", "S1", "S2"]
    assert (cache.data("quote:S0")["bid"], desk.partition.counts.discarded) == (5, {"no_room": 2})
