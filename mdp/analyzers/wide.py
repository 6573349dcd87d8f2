"""Makes bars of 5 seconds, 5 minutes, an hour and a trading day of narrower ones, on `bars:5s:SYMBOL` and so on.

Invariant: a wide bar is exactly the sum of the narrow bars whose start falls into it, corrected ones included. What the narrow
analyzer does not keep any more is summed up here (`base`); what it still may correct is added anew each time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Set
from copy import copy
from itertools import islice

import msgspec

from mdc.writer import Flush
from mdp.analyzers.quote import QuoteAnalyzer
from mdp.analyzers.series import CLOSED, Bar, SeriesAnalyzer

BASE = "|base"
BEHIND_MS = 10_000  # how old the wide bars of what nobody watches may be
Bucket = Callable[[str, int], int | None]  # (symbol, start of a narrow bar) → start of the wide one; None = not known yet


class WideBars(SeriesAnalyzer):
    """Bars made of those of `narrow`, whatever their width: `bucket` says which wide bar a narrow one falls into.

    As many closed ones are kept as corrections of narrow ones can reach: each of these may fall into a wide one of its own.
    """

    cells = ("", CLOSED, BASE)

    def __init__(self, kind: str, narrow: SeriesAnalyzer, bucket: Bucket) -> None:
        super().__init__(kind, narrow.retained + 1)
        narrow.followers.append(self)
        self._narrow = narrow
        self._bucket = bucket
        self._base: dict[str, list[Bar]] = {}
        self._behind: dict[str, None] = {}  # symbols whose narrow bars moved since they were added up, the longest first
        self._again: set[str] = set()  # symbols whose base is to be written
        self._now_ms = self._looked_ms = 0
        self._bars = msgspec.json.Decoder(list[Bar])

    def on_time(self, now_ms: int) -> None:
        self._now_ms = now_ms

    def collect(self, flush: Flush) -> None:
        behind, moved = self._behind, sorted(flush.take(self._narrow.moved_symbols))  # in an order that no hash decides
        behind.update(dict.fromkeys(moved))
        watched = None if flush.only is None else self._watched(flush)
        due = list(islice(behind, self._share())) if watched is None else sorted(behind.keys() & watched)
        for symbol in due:
            behind.pop(symbol, None)
        for symbol in moved:
            if symbol in self._narrow.gone:
                self._sum_up_gone(symbol)
                self._again.add(symbol)
        for symbol in flush.take(self._again):
            flush.checkpoint += (f"{self.name}:{symbol}{BASE}", self._encode(self._base[symbol]))
        for symbol in due:
            self._add_up(symbol)
        super().collect(flush)

    def _watched(self, flush: Flush) -> Set[str]:
        """Return the symbols of which somebody looks at these bars, or at wider ones that are made of them."""
        names, more = [self.name], list(self.followers)
        for one in more:
            names.append(one.name)
            more += one.followers
        return frozenset().union(*(flush.watched.get(name, ()) for name in names))

    def _share(self) -> int:
        """Return how many of those behind are due, the longest first, so that each is after `BEHIND_MS` at the latest."""
        elapsed_ms, self._looked_ms = self._now_ms - self._looked_ms, self._now_ms
        if not 0 <= elapsed_ms < BEHIND_MS:
            return len(self._behind)
        return -(-len(self._behind) * elapsed_ms // BEHIND_MS)

    def restore(self, cells: Iterable[tuple[str, bytes]]) -> None:
        own: list[tuple[str, bytes]] = []
        for key, body in cells:
            if key.endswith(BASE):
                self._base[key.removesuffix(BASE)] = self._bars.decode(body)
            else:
                own.append((key, body))
        super().restore(own)
        self._behind.update(dict.fromkeys(key for key, _ in own))  # some may not have been added up yet

    def rewrite(self) -> None:
        super().rewrite()
        self._again.update(self._base)

    def forget(self, symbol: str) -> None:
        super().forget(symbol)
        self._base.pop(symbol, None)
        self._again.discard(symbol)
        self._behind.pop(symbol, None)

    def restart(self, symbol: str) -> None:
        super().restart(symbol)
        self._base.pop(symbol, None)
        self._again.discard(symbol)
        self._behind.pop(symbol, None)

    def _sum_up_gone(self, symbol: str) -> None:
        """Add what the narrow analyzer has let go of to what is summed up here, and drop what no bar of its can still reach."""
        base = self._base.setdefault(symbol, [])
        for bar in self._narrow.gone.pop(symbol):
            start = self._bucket(symbol, bar.start)
            if start is not None:
                _sum_into(base, start, bar)
        narrow = self._narrow.series_of(symbol)
        oldest = None if narrow is None else self._bucket(symbol, (narrow.closed[0] if narrow.closed else narrow.current).start)
        if oldest is not None:
            for bar in base:
                if bar.start < oldest:
                    self._put(symbol, bar)  # as it stays
            base[:] = [bar for bar in base if bar.start >= oldest]

    def _add_up(self, symbol: str) -> None:
        narrow = self._narrow.series_of(symbol)
        if narrow is None:
            return
        made = [copy(bar) for bar in self._base.get(symbol, ())]
        for bar in (*narrow.closed, narrow.current):
            start = self._bucket(symbol, bar.start) if bar.start else None
            if start is not None:
                _sum_into(made, start, bar)
        for bar in made:
            self._put(symbol, bar)

    def _put(self, symbol: str, bar: Bar) -> None:
        """Let a wide bar be as it was added up now."""
        series = self._series.get(symbol)
        if series is not None:
            known = next((one for one in (series.current, *reversed(series.closed)) if one.start == bar.start), None)
            if known == bar:
                return
        mine = self._bar_at(symbol, bar.start)
        if mine is not None:
            mine.open, mine.high, mine.low, mine.close = bar.open, bar.high, bar.low, bar.close
            mine.volume, mine.notional, mine.trades = bar.volume, bar.notional, bar.trades
            mine.close_ts, mine.open_ts, mine.official = bar.close_ts, bar.open_ts, bar.official
            self._changed.add(symbol)


def _sum_into(bars: list[Bar], start: int, bar: Bar) -> None:
    """Add a bar, which is later than all before it, to the wide one at `start`."""
    wide = bars[-1] if bars and bars[-1].start == start else None
    if wide is None:
        wide = Bar(start)
        bars.append(wide)
    if wide.open is None:
        wide.open, wide.open_ts = bar.open, bar.open_ts
    if bar.high is not None and (wide.high is None or bar.high > wide.high):
        wide.high = bar.high
    if bar.low is not None and (wide.low is None or bar.low < wide.low):
        wide.low = bar.low
    if bar.close is not None:
        wide.close = bar.close
    wide.close_ts = max(wide.close_ts, bar.close_ts)
    wide.volume += bar.volume
    wide.notional += bar.notional
    wide.trades += bar.trades


def whole(width_ms: int) -> Bucket:
    """Return the bucket of bars of a fixed width."""
    return lambda _, start: start - start % width_ms


def trading_day(quotes: QuoteAnalyzer) -> Bucket:
    """Return the bucket of a trading day, by the calendar that a symbol's quote lives by."""
    return quotes.day_start
