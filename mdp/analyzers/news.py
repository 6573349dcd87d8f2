"""Publishes news articles: those of a symbol on `news:SYMBOL`, each article once on `news:latest`.

Listeners send a copy of an article for each of its symbols, and one for the list of all, whose partition is that of the article's
id. Copies come again: with every new listener, after a lost connection. So both lists know the newest `KEEP` articles by id.

Invariant: while an article is among the newest `KEEP` of a list, it is on it once. One that is older than `KEEP` known ones is
passed over: whether it had been there nobody knows, and nobody would see it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable

import msgspec

from mdc.channels import KINDS
from mdc.writer import Flush
from mdp.analyzer import Analyzer, Outlet
from mdp.events.vendor import Article

KEEP = KINDS["news"].keep
RECENT = 20  # articles of a symbol in memory, to fill a cache that was emptied


class NewsData(msgspec.Struct, gc=False):
    """One article; fields in the order of mdc.channels.NEWS_FIELDS. `more` = tickers that it names beside `tickers`."""

    id: str
    title: str
    url: str
    source: str
    summary: str
    tickers: list[str]
    more: int
    ts: int


class Known:
    """The newest `KEEP` articles of one list: id → when it was published, ms."""

    def __init__(self, times: Iterable[tuple[str, int]] = ()) -> None:
        self.times = dict(sorted(times, key=lambda item: item[1])[-KEEP:])

    def admit(self, name: str, ts: int) -> str | None:
        """Return whom a new article pushes out ("" = nobody); None when it is known already or older than all that are."""
        times = self.times
        if name in times:
            return None
        gone = ""
        if len(times) >= KEEP:
            gone = min(times, key=lambda known: (times[known], known))
            if (ts, name) < (times[gone], gone):
                return None
            del times[gone]
        times[name] = ts
        return gone


class Cell(msgspec.Struct, array_like=True):
    """A symbol's checkpoint: the channel's number, whose its news are, what is known."""

    seq: int
    source: str
    times: dict[str, int]


class _Encoded:
    """Encodes an article once for all symbols of the partition that it names: they share the bytes."""

    def __init__(self) -> None:
        self._last: tuple[NewsData | None, bytes] = (None, b"")
        self._encode = msgspec.json.Encoder().encode

    def of(self, article: Article) -> bytes:
        data = NewsData(
            article.id, article.title, article.url, article.source, article.summary, article.tickers, article.more, article.ts
        )
        if self._last[0] != data:
            self._last = (data, self._encode(data))
        return self._last[1]


class NewsAnalyzer(Analyzer):
    """Publishes the articles of each symbol.

    `newest_ms` = symbol → when its newest was published; `unranked` = where that changed; who ranks them takes them out.
    `heard_by` are told of each article once.
    """

    name = "news"

    def __init__(self) -> None:
        super().__init__()
        self.newest_ms: dict[str, int] = {}
        self.unranked: set[str] = set()
        self.heard_by: list[Callable[[Article], None]] = []
        self._known: dict[str, Known] = {}
        self._recent: dict[str, deque[tuple[int, bytes]]] = {}
        self._fresh: dict[str, list[tuple[int, bytes]]] = {}  # symbol → what is not in a flush yet; [] = only its cell
        self._sources: dict[str, str] = {}
        self.outlet = self._out = Outlet("news")
        self._out.sources = self._sources
        self._encoded = _Encoded()
        self._encode = msgspec.json.Encoder().encode
        self._cell = msgspec.json.Decoder(Cell)

    def on_article(self, article: Article, source: str) -> None:
        symbol = article.symbol
        if not symbol:
            return
        known = self._known.get(symbol)
        if known is None:
            known = self._known[symbol] = Known()
        if known.admit(article.id, article.ts) is None:
            self.repeated += 1
            self.passed.add(symbol)
            return
        if self._sources.get(symbol) != source:
            self._sources[symbol] = source
            self._out.note_moved({symbol})
        item = article.ts, self._encoded.of(article)
        self._recent.setdefault(symbol, deque(maxlen=RECENT)).append(item)
        self._fresh.setdefault(symbol, []).append(item)
        if article.ts > self.newest_ms.get(symbol, 0):
            self.newest_ms[symbol] = article.ts
            self.unranked.add(symbol)
        for hear in self.heard_by:
            hear(article)

    def collect(self, flush: Flush) -> None:
        if not (self._fresh or self._out.announce):
            return
        write = self._out.begin(flush)
        for symbol in flush.chosen(self._fresh.keys()):
            for ts, data in self._fresh.pop(symbol)[-KEEP:]:
                write(symbol, ts, data)
            known = self._known.get(symbol)
            cell = Cell(self._out.seq(symbol), self._sources.get(symbol, ""), known.times if known is not None else {})
            flush.checkpoint += (f"news:{symbol}", self._encode(cell))

    def restore(self, cells: Iterable[tuple[str, bytes]]) -> None:
        for symbol, body in cells:
            cell = self._cell.decode(body)
            self._known[symbol] = Known(cell.times.items())
            self._sources[symbol] = cell.source
            if cell.times:
                self.newest_ms[symbol] = max(cell.times.values())
                self.unranked.add(symbol)
            if cell.seq:
                self._out.restore(symbol, cell.seq)

    def resume(self, symbol: str, seq: int) -> None:
        self._out.restore(symbol, seq)

    def rewrite(self) -> None:
        for symbol in self._known:
            recent = list(self._recent.get(symbol, ()))
            self._fresh[symbol] = max(recent, self._fresh.get(symbol, []), key=len)
        self._out.announce = True

    def forget(self, symbol: str) -> None:
        for known in (self._known, self._recent, self._fresh, self._sources, self.newest_ms):
            known.pop(symbol, None)
        self.unranked.add(symbol)

    def restart(self, symbol: str) -> None:
        if symbol in self._known:
            source = self._sources.get(symbol, "")
            self.forget(symbol)
            self._known[symbol], self._sources[symbol], self._fresh[symbol] = Known(), source, []


class HeadlinesAnalyzer(Analyzer):
    """Publishes each article once on `news:latest`. A cell is an article's, by its id: so another layout can deal them out."""

    name = "headlines"

    def __init__(self) -> None:
        super().__init__()
        self._known = Known()
        self._sources: dict[str, str] = {}  # article → who brought it
        self._recent: deque[tuple[int, bytes]] = deque(maxlen=KEEP)
        self._fresh: list[tuple[int, bytes]] = []
        self._changed: set[str] = set()  # articles whose cells are to be written
        self._gone: set[str] = set()  # and to be deleted
        self._encoded = _Encoded()
        self._announce = True

    def on_article(self, article: Article, source: str) -> None:
        if article.symbol:
            return
        gone = self._known.admit(article.id, article.ts)
        if gone is None:
            self.repeated += 1
            return
        if gone:
            self._drop(gone)
        item = article.ts, self._encoded.of(article)
        self._sources[article.id] = source
        self._recent.append(item)
        self._fresh.append(item)
        self._changed.add(article.id)
        self._gone.discard(article.id)

    def collect(self, flush: Flush) -> None:
        if flush.only is not None or not (self._fresh or self._changed or self._gone):
            return
        if self._announce:
            self._announce = False
            flush.add_channel("news", "latest")
        for ts, data in self._fresh[-KEEP:]:
            flush.add_shared("news", "news:latest", ts, data)
        flush.remove_cells([f"headlines:{name}" for name in self._gone])
        for name in self._changed:
            flush.checkpoint += (f"headlines:{name}", f"{self._known.times[name]} {self._sources[name]}".encode())
        self._fresh.clear()
        self._gone.clear()
        self._changed.clear()

    def restore(self, cells: Iterable[tuple[str, bytes]]) -> None:
        for name, body in cells:
            ts, _, source = body.decode().partition(" ")
            gone = self._known.admit(name, int(ts))
            if gone is not None:
                self._sources[name] = source
            if gone != "":
                self._drop(name if gone is None else gone)

    def rewrite(self) -> None:
        self._fresh = list(self._recent)
        self._changed.update(self._known.times)
        self._announce = True

    def restart_source(self, source: str) -> None:
        for name in [name for name, known in self._sources.items() if known == source]:
            self._known.times.pop(name, None)
            self._drop(name)

    def _drop(self, name: str) -> None:
        self._sources.pop(name, None)
        self._changed.discard(name)
        self._gone.add(name)
