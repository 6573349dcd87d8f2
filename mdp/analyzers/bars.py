"""Makes `bars:1s:SYMBOL` and `bars:1m:SYMBOL` from trades: the bar in the making, and the closed ones as history.

Invariant: a bar holds exactly the trades whose time falls into it, however late they came, as long as it is among the
last `retained` ones; later ones are counted, never guessed into another bar.
"""

from __future__ import annotations

from mdp.analyzers.series import Bar, Series, SeriesAnalyzer
from mdp.events.conditions import ALL, HIGH_LOW, LAST, VOLUME
from mdp.events.exact import units
from mdp.events.vendor import AnyBar, AnyTrade, IndexValue


class BarsAnalyzer(SeriesAnalyzer):
    """Builds the bars of one width. `retained` = how many closed bars a late trade can still correct."""

    def __init__(self, kind: str, width_ms: int, retained: int) -> None:
        super().__init__(kind, retained)
        self._width_ms = width_ms

    def on_trade(self, trade: AnyTrade, rule: int, volume: int, notional: int) -> None:
        if not rule & ALL:
            return  # it repeats or takes back another
        symbol, ts, price = trade.symbol, trade.ts, trade.price
        start = ts - ts % self._width_ms
        series = self._series.get(symbol)
        if series is None or not series.from_trades:
            series = self._begin_trades(symbol, start)
        bar = series.current
        if start != bar.start:
            found = self._other_bar(symbol, series, start)
            if found is None:
                self._pass(symbol)
                return
            bar = found
        if rule & VOLUME:
            bar.volume += volume
            bar.notional += notional
            bar.trades += 1
        if rule & HIGH_LOW:
            if bar.high is None or price > bar.high:
                bar.high = price
            if bar.low is None or price < bar.low:
                bar.low = price
        if rule & LAST:
            if ts >= bar.close_ts:
                bar.close_ts = ts
                bar.close = price
                if bar.open is None:
                    bar.open, bar.open_ts = price, ts
            elif ts < bar.open_ts:
                bar.open, bar.open_ts = price, ts
        self._changed.add(symbol)

    def on_second_bar(self, bar: AnyBar) -> None:
        """The vendor's seconds, for a symbol of which no trades come; a wider bar is merged from them."""
        series = self._series.get(bar.symbol)
        if series is not None and series.from_trades:
            return
        mine = self._bar_at(bar.symbol, bar.start - bar.start % self._width_ms)
        if mine is not None and not mine.official:
            _merge(mine, bar)
            self._changed.add(bar.symbol)

    def on_minute_bar(self, bar: AnyBar) -> None:
        """The vendor's minute replaces what was merged from seconds."""
        series = self._series.get(bar.symbol)
        if self._width_ms != 60_000 or (series is not None and series.from_trades):
            return
        mine = self._bar_at(bar.symbol, bar.start)
        if mine is not None:
            mine.official = True
            mine.open = mine.high = mine.low = mine.close = None
            mine.volume = mine.notional = mine.close_ts = 0
            _merge(mine, bar)
            self._changed.add(bar.symbol)

    def on_value(self, value: IndexValue) -> None:
        bar = self._bar_at(value.symbol, value.ts - value.ts % self._width_ms)
        if bar is None:
            return
        _extend(bar, value.value, value.value)
        if bar.open is None:
            bar.open, bar.open_ts = value.value, value.ts
        if value.ts >= bar.close_ts:
            bar.close, bar.close_ts = value.value, value.ts
        self._changed.add(value.symbol)

    def _begin_trades(self, symbol: str, start: int) -> Series:
        """A symbol's first trade: from here on its bars are made of trades, not of the vendor's aggregates."""
        series = self._series.get(symbol)
        if series is None:
            series = self._new(symbol, start)
        elif start > series.current.start:
            self._other_bar(symbol, series, start)
        series.from_trades = True
        return series


def _merge(mine: Bar, bar: AnyBar) -> None:
    _extend(mine, bar.high, bar.low)
    if mine.open is None:
        mine.open = bar.open
    if bar.end >= mine.close_ts:
        mine.close_ts = bar.end
        mine.close = bar.close
    volume = units(bar.volume)
    mine.volume += volume
    mine.notional += volume * units(bar.vwap if bar.vwap is not None else bar.close)


def _extend(bar: Bar, high: float, low: float) -> None:
    if bar.high is None or high > bar.high:
        bar.high = high
    if bar.low is None or low < bar.low:
        bar.low = low
