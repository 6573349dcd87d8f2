"""Finds the best bid and offer over the venues that quote a pair: crypto has no consolidated one.

Each venue's newest quote counts, in the order of arrival. A venue that said nothing for `VENUE_SILENT_MS`, while others did,
quotes no more: its feed has stopped, or it left the pair.
"""

from __future__ import annotations

from math import inf

from mdp.events.vendor import AnyQuote

VENUE_SILENT_MS = 300_000  # a live venue quotes a traded pair many times in five minutes
VENUES_MAX = 32  # of a pair; the one that was heard first goes

Number = int | float
Venues = dict[int, tuple[Number, Number, Number, Number, int]]  # venue → bid, its size, ask, its size, ts; the newest comes last


def best(venues: Venues, quote: AnyQuote) -> tuple[Number, Number, Number, Number]:
    """Take a venue's quote; return (bid, its size, ask, its size) over all venues, 0 where nobody quotes a side.

    Of equal prices the larger size counts. Cost: O(venues) when there are several.
    """
    venue = quote.venue
    assert venue is not None, "a quote of one venue"
    venues.pop(venue, None)
    venues[venue] = (quote.bid, quote.bid_size or 0, quote.ask, quote.ask_size or 0, quote.ts)
    if len(venues) == 1:
        return quote.bid, quote.bid_size or 0, quote.ask, quote.ask_size or 0
    silent = [name for name, row in venues.items() if row[4] < quote.ts - VENUE_SILENT_MS]
    for name in silent or list(venues)[: max(0, len(venues) - VENUES_MAX)]:
        del venues[name]
    rows = venues.values()
    bid, bid_size = max((row[0], row[1]) for row in rows)
    ask, ask_size = min((row[2] or inf, -row[3]) for row in rows)
    return bid, bid_size, (0 if ask == inf else ask), -ask_size
