"""Publishes every print on `trades:SYMBOL`, in the order of the feed, none conflated."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from itertools import islice

import msgspec

from mdc.writer import Flush
from mdp.analyzer import Analyzer, Outlet
from mdp.events.vendor import AnyTrade

KEEP = 50  # in memory; the cache keeps more, for clients that resume


class PrintData(msgspec.Struct, gc=False):
    """One print; fields in the order of mdc.channels.PRINT_FIELDS; sizes as the feed gives them."""

    price: float
    size: int | float
    ts: int
    exchange: int
    conditions: list[int] | None
    id: str


class TradesAnalyzer(Analyzer):
    """Publishes prints. The last ones are kept in memory too, to fill a cache that was emptied."""

    name = "trades"

    def __init__(self) -> None:
        super().__init__()
        self._recent: dict[str, deque[AnyTrade]] = {}
        self._fresh: dict[str, int] = {}  # symbol → how many of its newest prints are not in a flush yet
        self._overrun: dict[str, list[AnyTrade]] = {}  # more fresh prints than are kept: they are published all the same
        self.outlet = self._out = Outlet("trades")
        self._encode = msgspec.json.Encoder().encode

    def on_trade(self, trade: AnyTrade, rule: int, volume: int, notional: int) -> None:
        symbol = trade.symbol
        recent = self._recent.get(symbol)
        if recent is None:
            recent = self._recent[symbol] = deque(maxlen=KEEP)
        fresh = self._fresh.get(symbol, 0)
        if fresh >= KEEP:
            self._overrun.setdefault(symbol, []).append(recent[0])
            fresh -= 1
        recent.append(trade)
        self._fresh[symbol] = fresh + 1

    def collect(self, flush: Flush) -> None:
        if not (self._fresh or self._out.announce):
            return
        write, encode = self._out.begin(flush), self._encode
        for symbol in flush.chosen(self._fresh.keys()):
            fresh = self._fresh.pop(symbol)
            recent = self._recent[symbol]
            for trade in [*self._overrun.pop(symbol, ()), *islice(recent, len(recent) - fresh, None)]:
                data = PrintData(trade.price, trade.size, trade.ts, trade.exchange, trade.conditions, trade.id)
                write(symbol, trade.ts, encode(data))
            flush.checkpoint += (f"trades:{symbol}", self._out.seq(symbol))

    def restore(self, cells: Iterable[tuple[str, bytes]]) -> None:
        for symbol, seq in cells:
            self._out.restore(symbol, int(seq))

    def resume(self, symbol: str, seq: int) -> None:
        self._out.restore(symbol, seq)

    def rewrite(self) -> None:
        self._fresh = {symbol: len(recent) for symbol, recent in self._recent.items() if recent}
        self._out.announce = True

    def forget(self, symbol: str) -> None:
        for known in (self._recent, self._fresh, self._overrun):
            known.pop(symbol, None)

    def restart(self, symbol: str) -> None:
        self.forget(symbol)
