"""Tests the best bid and offer over venues."""

from __future__ import annotations

from typing import Any

from mdp.events.bbo import VENUE_SILENT_MS, Venues, best
from mdp.events.vendor import CryptoQuote


def said(venues: Venues, venue: int, bid: float, ask: float, ts: int = 0, **sizes: Any) -> tuple[float, float, float, float]:
    return best(venues, CryptoQuote("X:BTC-USD", ts, bid, ask, venue=venue, **sizes))


def test_one_venue_alone_is_shown_as_it_is() -> None:
    """Also a side that it does not quote, with what it says of its size."""
    venues: Venues = {}
    assert said(venues, 1, 9, 0, bid_size=2, ask_size=3) == (9, 2, 0, 3)


def test_bid_and_ask_may_be_of_different_venues() -> None:
    """The highest bid and the lowest ask, each with its own size; of equal prices the larger size."""
    venues: Venues = {}
    said(venues, 1, 9, 12, bid_size=1, ask_size=1)
    assert said(venues, 2, 8, 11, bid_size=5, ask_size=6) == (9, 1, 11, 6)
    assert said(venues, 3, 9, 11, bid_size=4, ask_size=2) == (9, 4, 11, 6)


def test_a_worse_quote_of_the_best_venue_replaces_its_own() -> None:
    """Each venue counts with its newest quote alone."""
    venues: Venues = {}
    said(venues, 1, 9, 10)
    said(venues, 2, 8, 11)
    assert said(venues, 1, 7, 12)[::2] == (8, 11)


def test_a_side_that_nobody_quotes_is_empty() -> None:
    """No bid and no ask are 0, not the best of nothing."""
    venues: Venues = {}
    said(venues, 1, 0, 0)
    assert said(venues, 2, 0, 0)[::2] == (0, 0)
    assert said(venues, 2, 5, 0)[::2] == (5, 0)


def test_a_venue_that_went_silent_is_left_out() -> None:
    """Five minutes after its last quote, while another goes on; when it speaks again it counts."""
    venues: Venues = {}
    said(venues, 1, 9, 10)
    assert said(venues, 2, 8, 11, VENUE_SILENT_MS)[::2] == (9, 10)
    assert said(venues, 2, 8, 11, VENUE_SILENT_MS + 1)[::2] == (8, 11)
    assert said(venues, 1, 9, 12, VENUE_SILENT_MS + 2)[::2] == (9, 11)
