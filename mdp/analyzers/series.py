"""Keeps and publishes the bars of symbols: the one in the making, and the closed ones as history that can still be corrected."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from mdc.writer import Flush
from mdp.analyzer import Analyzer, Outlet
from mdp.events.exact import number, ratio

NOT_KNOWN = -1  # how many closed bars a new (or rolled back) cache holds


class Bar(msgspec.Struct, array_like=True, gc=False):
    """One bar; `start` in ms (0 = none yet), prices null until a trade may set them, `volume` in units, `notional` in units²."""

    start: int
    open: float | None = None
    high: float | None = None
    low: float | None = None
    close: float | None = None
    volume: int = 0
    notional: int = 0
    trades: int = 0
    close_ts: int = 0
    open_ts: int = 0
    official: bool = False  # the vendor's own minute: nothing is added to it

    def row(self) -> list[float | int | None]:
        """Return [t, open, high, low, close, volume, vwap, trades]."""
        return [
            self.start, self.open, self.high, self.low, self.close, number(self.volume),
            ratio(self.notional, self.volume), self.trades,
        ]  # fmt: skip


class Series(msgspec.Struct, array_like=True, gc=False):
    """The bars of one symbol: `closed` are the newest closed ones, oldest first; the history holds `stored` of them (-1 = ?)."""

    current: Bar
    closed: list[Bar]
    stored: int = 0
    number: int = 0
    revision: int = 0
    from_trades: bool = False
    corrected: bool = False


class BarData(msgspec.Struct, gc=False):
    """The published state; fields in the order of mdc.channels.BAR_FIELDS."""

    t: int
    open: float | None
    high: float | None
    low: float | None
    close: float | None
    volume: int | float
    vwap: float | None
    trades: int
    i: int
    prev: msgspec.Raw | None
    rev: int


class Cell(msgspec.Struct, array_like=True, gc=False):
    """The checkpoint of one symbol, without its closed bars: those are a cell of their own, written only when they change."""

    seq: int
    current: Bar
    stored: int
    number: int
    revision: int
    from_trades: bool


CLOSED = "|closed"  # no symbol contains a bar


class SeriesAnalyzer(Analyzer):
    """The bars of one kind. `retained` = how many closed bars can still be corrected. What fills them is said by subclasses."""

    cells: tuple[str, ...] = ("", CLOSED)

    def __init__(self, kind: str, retained: int) -> None:
        super().__init__()
        self.name = self._kind = kind
        self.followers: list[SeriesAnalyzer] = []  # wider bars that are made of these; they ask for the next two
        self.moved_symbols: set[str] = set()  # symbols whose bars changed; who follows takes them out
        self.gone: dict[str, list[Bar]] = {}  # closed bars that are not kept any more; who follows takes them out
        self.retained = retained
        self._series: dict[str, Series] = {}
        self._prev: dict[str, msgspec.Raw] = {}  # the newest closed bar of a symbol as it is published
        self._encoded: dict[str, list[bytes]] = {}  # its stored closed bars as they are in the checkpoint
        self._changed: set[str] = set()
        self._blank: set[str] = set()  # began anew: to be written into the checkpoint
        self.outlet = self._out = Outlet(kind)
        self._encode = msgspec.json.Encoder().encode
        self._cell = msgspec.json.Decoder(Cell)
        self._closed = msgspec.json.Decoder(list[Bar])

    def collect(self, flush: Flush) -> None:
        if not (self._changed or self._blank or self._out.announce or self._out.late):
            return
        write = self._out.begin(flush)
        encode, checkpoint, kind = self._encode, flush.checkpoint, self._kind
        for symbol in flush.take(self._blank):
            checkpoint += (f"{kind}:{symbol}{CLOSED}", b"[]", f"{kind}:{symbol}", encode(self._to_cell(symbol)))
        changed = flush.take(self._changed)
        if self.followers:
            self.moved_symbols.update(changed)
        due, waits = self._out.due(flush, changed)
        for symbol in due:
            series = self._series[symbol]
            if not series.current.start:
                continue  # it began anew, and nothing came since
            stores = series.corrected or series.stored < len(series.closed)
            if stores:
                self._store(flush, symbol, series)
                self._out.late.discard(symbol)
            if stores or symbol not in waits:  # history and document belong together
                bar = series.current
                data = BarData(
                    bar.start, bar.open, bar.high, bar.low, bar.close, number(bar.volume), ratio(bar.notional, bar.volume),
                    bar.trades, series.number, self._prev.get(symbol), series.revision,
                )  # fmt: skip
                write(symbol, max(bar.close_ts, bar.start), encode(data))
            checkpoint += (f"{kind}:{symbol}", encode(self._to_cell(symbol)))

    def restore(self, cells: Iterable[tuple[str, bytes]]) -> None:
        closed: dict[str, list[Bar]] = {}
        heads: dict[str, Cell] = {}
        for key, body in cells:
            if key.endswith(CLOSED):
                closed[key.removesuffix(CLOSED)] = self._closed.decode(body)
            else:
                heads[key] = self._cell.decode(body)
        for symbol, cell in heads.items():
            bars = closed.get(symbol, [])
            self._series[symbol] = Series(cell.current, bars, cell.stored, cell.number, cell.revision, cell.from_trades)
            self._out.restore(symbol, cell.seq)
            self._remember_prev(symbol, bars)
        if self.followers:  # wider bars may never have been made of these: nothing else would say that there is something
            self.moved_symbols.update(heads)

    def resume(self, symbol: str, seq: int) -> None:
        self._out.restore(symbol, seq)

    def rewrite(self) -> None:
        for symbol, series in self._series.items():
            series.corrected, series.stored = True, NOT_KNOWN
            (self._changed if series.current.start else self._blank).add(symbol)
        self._out.announce = True

    def forget(self, symbol: str) -> None:
        if self._series.pop(symbol, None) is not None:
            self._prev.pop(symbol, None)
            self._encoded.pop(symbol, None)
            self.gone.pop(symbol, None)
            self.moved_symbols.discard(symbol)
            self._changed.discard(symbol)
            self._blank.discard(symbol)

    def restart(self, symbol: str) -> None:
        series = self._series.get(symbol)
        if series is not None:  # the revision tells who follows to ask for the new history
            self._series[symbol] = Series(Bar(0), [], number=series.number + 1, revision=series.revision + 1)
            self._prev.pop(symbol, None)
            self._encoded.pop(symbol, None)
            self.gone.pop(symbol, None)
            self.moved_symbols.discard(symbol)
            self._changed.discard(symbol)
            self._out.late.discard(symbol)
            self._blank.add(symbol)

    def series_of(self, symbol: str) -> Series | None:
        """Return the bars of a symbol, for those who make wider ones of them."""
        return self._series.get(symbol)

    def _bar_at(self, symbol: str, start: int) -> Bar | None:
        series = self._series.get(symbol)
        if series is None:
            series = self._new(symbol, start)
        bar = series.current if start == series.current.start else self._other_bar(symbol, series, start)
        if bar is None:
            self._pass(symbol)
        return bar

    def _pass(self, symbol: str) -> None:
        self.late_bars += 1
        self.passed.add(symbol)

    def _new(self, symbol: str, start: int) -> Series:
        series = self._series[symbol] = Series(Bar(start), [])
        return series

    def _other_bar(self, symbol: str, series: Series, start: int) -> Bar | None:
        """Return the bar at `start`, which is not the current one: a new one, a closed one, or None when that is too old."""
        closed = series.closed
        if not series.current.start:
            series.current.start = start
            return series.current
        if start > series.current.start:
            closed.append(series.current)
            if series.corrected:
                series.revision += 1  # the bar before the new one may be what was corrected: readers know an older value
            elif len(closed) > self.retained and series.stored:
                self._let_go(symbol, series, 1)
                series.stored -= 1
            series.current = Bar(start)
            series.number += 1
            return series.current
        # Closed bars that wait for a flush may be more: when flushes come must not decide what is too late.
        if len(closed) >= self.retained and start < closed[-self.retained].start:
            return None
        return self._late(series, start)

    def _late(self, series: Series, start: int) -> Bar:
        corrected, series.corrected = series.corrected, True
        place = len(series.closed)
        while place and series.closed[place - 1].start > start:
            place -= 1
        found = series.closed[place - 1] if place else None
        if found is None or found.start != start:
            found = Bar(start)
            series.closed.insert(place, found)
            series.number += 1
            series.revision += corrected  # the bar before it may be what was corrected: it is not `prev` any more
        if found is not series.closed[-1]:
            series.revision += 1
        return found

    def _to_cell(self, symbol: str) -> Cell:
        series = self._series[symbol]
        return Cell(self._out.seq(symbol), series.current, series.stored, series.number, series.revision, series.from_trades)

    def _store(self, flush: Flush, symbol: str, series: Series) -> None:
        """Write closed bars to the history: the new ones, or after a correction all that are retained."""
        first = 0 if series.corrected else series.stored
        drop = series.stored if series.corrected else 0
        if series.stored == NOT_KNOWN:
            drop = -(series.closed[0] if series.closed else series.current).start
        first = max(0, first)
        encode, fresh = self._encode, series.closed[first:]
        rows = [encode(bar.row()) for bar in fresh]
        flush.add_history(self._kind, f"{self._kind}:{symbol}", rows, drop)
        # What was stored and not corrected since is not encoded again.
        same = self._encoded.get(symbol, ())
        bars = [*same[len(same) - first :], *map(encode, fresh)] if len(same) >= first else [*map(encode, series.closed)]
        self._let_go(symbol, series, max(0, len(series.closed) - self.retained))
        series.stored = len(series.closed)
        series.corrected = False
        self._encoded[symbol] = bars = bars[len(bars) - series.stored :]
        flush.checkpoint += (f"{self._kind}:{symbol}{CLOSED}", b"[%b]" % b",".join(bars))
        if rows:
            self._prev[symbol] = msgspec.Raw(rows[-1])

    def _let_go(self, symbol: str, series: Series, many: int) -> None:
        if self.followers and many:
            self.gone.setdefault(symbol, []).extend(series.closed[:many])
        del series.closed[:many]

    def _remember_prev(self, symbol: str, closed: list[Bar]) -> None:
        if closed:
            self._prev[symbol] = msgspec.Raw(self._encode(closed[-1].row()))
