"""Alerts to unusual volume on `alerts:volume`: the last minute's against the hour's, and the day's against the average day's.

`surge`: the last minute (six slices of ten seconds, as `stats` has them) has `volume_times` the volume of the average of the
hour's minutes with trades, of which there must be ten; told at the very trade, then not for `volume_pause_ms`. `rel_volume`: the
day's volume has crossed a multiple of the average day's, told with the first trade of the next slice, each multiple once a day.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Set
from math import ceil

import msgspec

from mdc.writer import Flush
from mdp.analyzer import Analyzer
from mdp.analyzers.alerts.alert import DEFAULT, Alerts, Thresholds, amount
from mdp.analyzers.quote import QuoteAnalyzer
from mdp.analyzers.stats import NEVER, Activity, StatsAnalyzer
from mdp.events.exact import number, units
from mdp.events.vendor import AnyTrade

MINUTES_LEAST = 10  # of the hour, before anything is unusual


class Told(msgspec.Struct, array_like=True, gc=False):
    """The slice (ms) in which a symbol's surge was told last, and how many multiples of the average its day's volume has."""

    surge_ms: int = 0
    day_ms: int = 0
    multiples: int = 0


class VolumeAnalyzer(Analyzer):
    """Looks at what `stats` sums up: with the first trade of a slice, and with the one that makes it unusual."""

    name = "volume"

    def __init__(
        self, quotes: QuoteAnalyzer, stats: StatsAnalyzer, thresholds: Thresholds = DEFAULT
    ) -> None:  # fmt: skip
        super().__init__()
        stats.on_volume = self._look
        self._quotes = quotes
        self._thresholds = thresholds
        self._alerts = Alerts("alerts:volume", quotes)
        self._told: dict[str, Told] = {}
        self._changed: set[str] = set()
        self._encode = msgspec.json.Encoder().encode
        self._cell = msgspec.json.Decoder(Told)

    def collect(self, flush: Flush) -> None:
        self._alerts.collect(flush)
        for symbol in flush.take(self._changed):
            flush.checkpoint += (f"volume:{symbol}", self._encode(self._told[symbol]))

    @property
    def urgent(self) -> Set[str]:
        return self._alerts.symbols

    def restore(self, cells: Iterable[tuple[str, bytes]]) -> None:
        for symbol, body in cells:
            self._told[symbol] = self._cell.decode(body)

    def rewrite(self) -> None:
        self._alerts.rewrite()
        self._changed.update(self._told)

    def forget(self, symbol: str) -> None:
        self._told.pop(symbol, None)
        self._changed.discard(symbol)

    def restart(self, symbol: str) -> None:
        if symbol in self._told:
            self._told[symbol] = Told()
            self._changed.add(symbol)

    def _look(self, trade: AnyTrade, activity: Activity) -> int:
        symbol = trade.symbol
        if not activity.look_at:
            average = self._quotes.quotes[symbol].avg_volume
            if average:
                self._look_at_day(trade, average)
        times, hour = self._thresholds.volume_times, len(activity.minutes)
        if not times or hour < MINUTES_LEAST:
            return NEVER
        unusual, minute = max(1, ceil(activity.volume_minutes * times / hour)), activity.volume(1)
        if minute < unusual:
            return activity.current.volume + unusual - minute
        told, slice_ms = self._told.get(symbol), activity.current.start
        # By slices: whoever goes on from a checkpoint in the middle of one comes to the same answer.
        if told is None or abs(slice_ms - told.surge_ms) >= max(1, self._thresholds.volume_pause_ms):
            self._told.setdefault(symbol, Told()).surge_ms = slice_ms
            self._tell_surge(trade, minute, activity.volume_minutes / hour)
        return NEVER

    def _tell_surge(self, trade: AnyTrade, minute: int, usual: float) -> None:
        symbol, times = trade.symbol, round(minute / usual, 2)
        note = f"{amount(number(minute))} in a minute, {amount(times)} times the hour's average"
        self._alerts.add(self._alerts.make(symbol, "surge", trade.price, None, trade.ts, note, value=times))
        self._changed.add(symbol)

    def _look_at_day(self, trade: AnyTrade, average: float) -> None:
        """Tell the highest multiple that was crossed since the last look. What the first look of a day finds is no crossing."""
        symbol, day_ms = trade.symbol, self._quotes.day_start(trade.symbol, trade.ts)
        seen, official = self._quotes.volumes(symbol)
        multiples = bisect_right(self._thresholds.rel_volumes, max(seen, official) / units(average))
        told = self._told.get(symbol) or Told()
        begins = day_ms is not None and told.day_ms < day_ms
        if day_ms is None or (not begins and (told.day_ms > day_ms or multiples <= told.multiples)):
            return
        if not begins and 2 * seen >= official:  # else we joined late, and it was crossed before
            crossed = self._thresholds.rel_volumes[multiples - 1]
            note = f"the day's volume is over {crossed:g} times the average day's"
            self._alerts.add(self._alerts.make(symbol, "rel_volume", trade.price, None, trade.ts, note, value=crossed))
        self._told[symbol] = Told(told.surge_ms, day_ms, multiples)
        self._changed.add(symbol)
