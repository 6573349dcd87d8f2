"""Keeps `book:SYMBOL` from depth events: the best levels of both sides, what they say together, and when.

Invariant: a document is always one whole event: bids and asks of the same moment, never of two.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from mdc.writer import Flush
from mdp.analyzer import Analyzer, Outlet
from mdp.analyzers.quote import difference
from mdp.events.vendor import Book, Level


class BookData(msgspec.Struct, gc=False):
    """The published state; fields in the order of mdc.channels.BOOK_FIELDS.

    `bid`, `ask` = best prices, null without a level; `spread` = ask - bid, null unless both are there.
    """

    bids: list[Level] = []
    asks: list[Level] = []
    bid: float | None = None
    ask: float | None = None
    spread: float | None = None
    ts: int = 0


class Cell(msgspec.Struct, array_like=True, gc=False):
    """The checkpoint of one symbol."""

    seq: int
    data: BookData


class BookAnalyzer(Analyzer):
    """Keeps the newest book of every symbol; an older one that comes late changes nothing."""

    name = "book"

    def __init__(self) -> None:
        super().__init__()
        self._books: dict[str, BookData] = {}
        self._changed: set[str] = set()
        self.outlet = self._out = Outlet("book")
        self._encode = msgspec.json.Encoder().encode
        self._cell = msgspec.json.Decoder(Cell)

    def on_book(self, book: Book) -> None:
        symbol, bids, asks, ts = book.symbol, book.bids, book.asks, book.ts
        known = self._books.get(symbol)
        if known is not None and ts < known.ts:
            return
        bid, ask = bids[0][0] if bids else None, asks[0][0] if asks else None
        spread = None if bid is None or ask is None else difference(ask, bid)
        self._books[symbol] = BookData(bids, asks, bid, ask, spread, ts)
        self._changed.add(symbol)

    def collect(self, flush: Flush) -> None:
        if not (self._changed or self._out.announce):
            return
        write = self._out.begin(flush)
        for symbol in flush.take(self._changed):
            data = self._books[symbol]
            body = self._encode(data)
            write(symbol, data.ts, body)
            flush.checkpoint += (f"book:{symbol}", b"[%d,%b]" % (self._out.seq(symbol), body))

    def restore(self, cells: Iterable[tuple[str, bytes]]) -> None:
        for symbol, body in cells:
            cell = self._cell.decode(body)
            self._books[symbol] = cell.data
            self._out.restore(symbol, cell.seq)

    def resume(self, symbol: str, seq: int) -> None:
        self._out.restore(symbol, seq)

    def rewrite(self) -> None:
        self._changed.update(self._books)
        self._out.announce = True

    def forget(self, symbol: str) -> None:
        self._books.pop(symbol, None)
        self._changed.discard(symbol)

    def restart(self, symbol: str) -> None:
        if symbol in self._books:
            self._books[symbol] = BookData()
            self._changed.add(symbol)
