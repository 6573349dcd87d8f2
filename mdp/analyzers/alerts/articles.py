"""Alerts to news and a breakout together on `alerts:news`: a new high or low soon after an article, an article soon after one.

A breakout is what `alerts:range` tells, in the moment in which it is told. Of an article each side is told once; a newer article
begins anew. Articles come on a queue of their own: which of the two was first is what was known in that moment.
"""

from __future__ import annotations

from collections.abc import Iterable, Set

import msgspec

from mdc.writer import Flush
from mdp.analyzer import Analyzer
from mdp.analyzers.alerts.alert import DEFAULT, Alert, Alerts, Thresholds, decimal
from mdp.analyzers.alerts.ranges import RangeAnalyzer
from mdp.analyzers.quote import QuoteAnalyzer
from mdp.events.vendor import Article

TITLE_MAX = 160  # characters of a headline in a note
SIDES = {"new_high": ("news_high", "a new high"), "new_low": ("news_low", "a new low")}


class Told(msgspec.Struct, array_like=True, gc=False):
    """A symbol's newest article, which sides it was told for, and the last breakout; times in ms, 0 = none yet."""

    article: str = ""
    title: str = ""
    article_ms: int = 0
    sides: list[str] = []
    broke: str = ""  # new_high or new_low
    price: float = 0.0
    prev: float = 0.0
    session: str = ""
    broke_ms: int = 0


class ArticleAlertAnalyzer(Analyzer):
    """Hears of breakouts from `ranges`, and of articles like the analyzers of news."""

    name = "news_alerts"

    def __init__(self, quotes: QuoteAnalyzer, ranges: RangeAnalyzer, thresholds: Thresholds = DEFAULT) -> None:
        super().__init__()
        self._window_ms = thresholds.news_ms
        if self._window_ms:
            ranges.on_alert = self._break
        self._alerts = Alerts("alerts:news", quotes)
        self._told: dict[str, Told] = {}
        self._changed: set[str] = set()
        self._encode = msgspec.json.Encoder().encode
        self._cell = msgspec.json.Decoder(Told)

    def on_article(self, article: Article, source: str) -> None:
        symbol = article.symbol
        if not symbol or not self._window_ms:
            return
        told = self._told.setdefault(symbol, Told())
        if (article.ts, article.id) <= (told.article_ms, told.article):
            return  # it was told already, or is news no more
        told.article, told.title, told.article_ms, told.sides = article.id, article.title[:TITLE_MAX], article.ts, []
        self._changed.add(symbol)
        if told.broke and abs(article.ts - told.broke_ms) <= self._window_ms:
            told.sides.append(told.broke)
            when = _when(article.ts - told.broke_ms)
            note = f"{told.title}: {when} {SIDES[told.broke][1]} of {decimal(told.price)}"
            self._add(symbol, "news", told.price, told.prev, max(article.ts, told.broke_ms), note, told.session)

    def collect(self, flush: Flush) -> None:
        self._alerts.collect(flush)
        for symbol in flush.take(self._changed):
            flush.checkpoint += (f"{self.name}:{symbol}", self._encode(self._told[symbol]))

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

    def _break(self, alert: Alert) -> None:
        told = self._told.get(alert.sym)
        if told is None:
            told = self._told[alert.sym] = Told()
        price, prev = alert.price, alert.prev
        assert price is not None
        assert prev is not None, "a range alert has both"
        told.broke, told.price, told.prev = alert.kind, price, prev
        told.session, told.broke_ms = alert.session, alert.ts
        self._changed.add(alert.sym)
        age_ms = alert.ts - told.article_ms
        if told.article_ms and 0 <= age_ms <= self._window_ms and alert.kind not in told.sides:
            told.sides.append(alert.kind)
            note = f"{alert.note}, {_when(age_ms)} {told.title}"
            self._add(alert.sym, SIDES[alert.kind][0], price, prev, alert.ts, note, alert.session)

    def _add(self, symbol: str, kind: str, price: float, prev: float, ts: int, note: str, session: str) -> None:
        self._alerts.add(self._alerts.make(symbol, kind, price, prev, ts, note, session))


def _when(later_ms: int) -> str:
    """Return how much later something was than what the next words name."""
    minutes, seconds = divmod(abs(later_ms) // 1_000, 60)
    return f"{minutes} min {seconds} s {'after' if later_ms >= 0 else 'before'}"
