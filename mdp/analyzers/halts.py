"""Keeps `halts:SYMBOL` from limit up/limit down events: price bands and whether the symbol trades; alerts on `alerts:halts`."""

from __future__ import annotations

from collections.abc import Iterable, Set

import msgspec

from mdc.writer import Flush
from mdp.analyzer import Analyzer, Outlet
from mdp.analyzers.alerts.alert import Alerts, decimal
from mdp.analyzers.quote import QuoteAnalyzer
from mdp.events.vendor import LimitBands

# The vendor publishes the indicators as numbers of its conditions list; only these change whether a symbol trades.
HALTED = frozenset({17})
RESUMED = frozenset({18})


class HaltData(msgspec.Struct, gc=False):
    """The published state; fields in the order of mdc.channels.HALT_FIELDS; `state` is trading or halted."""

    state: str = "trading"
    high_band: float | None = None
    low_band: float | None = None
    indicators: list[int] = []
    ts: int = 0


class Cell(msgspec.Struct, array_like=True, gc=False):
    """The checkpoint of one symbol."""

    seq: int
    data: HaltData
    since: int = 0  # when it was halted


class HaltsAnalyzer(Analyzer):
    """Keeps bands and trading state by symbol; the newest event wins, an older one that comes late changes nothing."""

    name = "halts"

    def __init__(self, quotes: QuoteAnalyzer | None = None) -> None:
        """`quotes` knows the prices that alerts tell, None = they tell none."""
        super().__init__()
        self._alerts = Alerts("alerts:halts", quotes)
        self._quotes = {} if quotes is None else quotes.quotes
        self.unranked: set[str] = set()  # halted or traded again; who ranks them takes them out
        self._halts: dict[str, HaltData] = {}
        self._since: dict[str, int] = {}  # symbol → when it was halted
        self._changed: set[str] = set()
        self._turned: set[str] = set()  # halted or traded again since they were written
        self.outlet = self._out = Outlet("halts")
        self._encode = msgspec.json.Encoder().encode
        self._cell = msgspec.json.Decoder(Cell)

    def on_bands(self, bands: LimitBands) -> None:
        data = self._halts.get(bands.symbol)
        if data is None:
            data = self._halts[bands.symbol] = HaltData()
        if bands.ts < data.ts:
            return
        indicators, before = set(bands.indicators or ()), data.state
        if indicators & HALTED:
            data.state = "halted"
        elif indicators & RESUMED:
            data.state = "trading"
        data.high_band, data.low_band = bands.high or None, bands.low or None
        data.indicators, data.ts = sorted(indicators), bands.ts
        if data.state != before:
            self._turned.add(bands.symbol)
            self._alert(bands.symbol, data, self._since.get(bands.symbol, 0))
            self._turn(bands.symbol, bands.ts if data.state == "halted" else 0)
        self._changed.add(bands.symbol)

    def collect(self, flush: Flush) -> None:
        self._alerts.collect(flush)
        if not (self._changed or self._out.announce):
            return
        write = self._out.begin(flush)
        flush.take(self._turned)
        for symbol in flush.take(self._changed):
            data = self._halts[symbol]
            body = self._encode(data)
            write(symbol, data.ts, body)
            flush.checkpoint += (f"halts:{symbol}", b"[%d,%b,%d]" % (self._out.seq(symbol), body, self.halted_ms(symbol)))

    def restore(self, cells: Iterable[tuple[str, bytes]]) -> None:
        for symbol, body in cells:
            cell = self._cell.decode(body)
            self._halts[symbol] = cell.data
            if cell.data.state == "halted":
                self._turn(symbol, cell.since or cell.data.ts)
            self._out.restore(symbol, cell.seq)

    def resume(self, symbol: str, seq: int) -> None:
        self._out.restore(symbol, seq)

    def rewrite(self) -> None:
        self._alerts.rewrite()
        self._changed.update(self._halts)
        self._out.announce = True

    def forget(self, symbol: str) -> None:
        self._halts.pop(symbol, None)
        self._turn(symbol, 0)
        self._changed.discard(symbol)
        self._turned.discard(symbol)

    @property
    def urgent(self) -> Set[str]:
        return self._turned | self._alerts.symbols

    def restart(self, symbol: str) -> None:
        if symbol in self._halts:
            self._halts[symbol] = HaltData()
            self._turn(symbol, 0)
            self._changed.add(symbol)

    def halted_ms(self, symbol: str) -> int:
        """Return since when a symbol is halted, 0 when it is not."""
        return self._since.get(symbol, 0)

    def _alert(self, symbol: str, data: HaltData, since_ms: int) -> None:
        quote = self._quotes.get(symbol)
        price = None if quote is None else quote.last
        kind, note = ("halted", "trading is halted") if data.state == "halted" else ("resumed", "trading resumes")
        if data.state != "halted" and since_ms:
            minutes, seconds = divmod((data.ts - since_ms) // 1000, 60)
            note += f" after {minutes} min {seconds} s"
        if data.low_band is not None and data.high_band is not None:
            note += f", bands {decimal(data.low_band)} to {decimal(data.high_band)}"
        alert = self._alerts.make(symbol, kind, price, None, data.ts, note, "", None, data.high_band, data.low_band)
        self._alerts.add(alert)

    def _turn(self, symbol: str, since_ms: int) -> None:
        if since_ms:
            self._since[symbol] = since_ms
        else:
            self._since.pop(symbol, None)
        self.unranked.add(symbol)
