"""Builds the analyzers of one partition from their names. To add one, write it under analyzers/ and name it here."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from mdp.analyzer import Analyzer
from mdp.analyzers.alerts.alert import DEFAULT as USUAL
from mdp.analyzers.alerts.alert import Thresholds
from mdp.analyzers.alerts.articles import ArticleAlertAnalyzer
from mdp.analyzers.alerts.gaps import GapAnalyzer
from mdp.analyzers.alerts.ranges import RangeAnalyzer
from mdp.analyzers.alerts.volume import VolumeAnalyzer
from mdp.analyzers.bars import BarsAnalyzer
from mdp.analyzers.boards import BoardsAnalyzer
from mdp.analyzers.book import BookAnalyzer
from mdp.analyzers.halts import HaltsAnalyzer
from mdp.analyzers.news import HeadlinesAnalyzer, NewsAnalyzer
from mdp.analyzers.quote import QuoteAnalyzer
from mdp.analyzers.ranks import BUILT_IN, Board
from mdp.analyzers.stats import StatsAnalyzer
from mdp.analyzers.trades import TradesAnalyzer
from mdp.analyzers.wide import WideBars, trading_day, whole
from mdp.reference import Reference
from service.days.markets import Markets

ANALYZERS = (
    "quote",
    "bars",
    "trades",
    "stats",
    "halts",
    "news",
    "boards",
    "range",
    "gap",
    "volume",
    "news_alerts",
    "book",
)  # `pipeline` is the worker's own: see status.py
DEFAULT = ",".join(ANALYZERS)
SECOND_MS, MINUTE_MS, HOUR_MS = 1_000, 60_000, 3_600_000
SECONDS_RETAINED, MINUTES_RETAINED = 10, 5  # how late a trade may come and still correct its bar


def _bars(quotes: QuoteAnalyzer) -> list[Analyzer]:
    seconds = BarsAnalyzer("bars:1s", SECOND_MS, SECONDS_RETAINED)
    minutes = BarsAnalyzer("bars:1m", MINUTE_MS, MINUTES_RETAINED)
    fives = WideBars("bars:5m", minutes, whole(5 * MINUTE_MS))
    hours = WideBars("bars:1h", fives, whole(HOUR_MS))
    days = WideBars("bars:1d", hours, trading_day(quotes))
    return [seconds, WideBars("bars:5s", seconds, whole(5 * SECOND_MS)), minutes, fives, hours, days]


def build(
    names: Sequence[str], reference: Reference, board_rows: int, markets: Markets | None = None,
    boards: Sequence[Board] = BUILT_IN, thresholds: Thresholds = USUAL,
    more: Callable[[QuoteAnalyzer, NewsAnalyzer], Sequence[Analyzer]] | None = None,
) -> list[Analyzer]:  # fmt: skip
    """Return new analyzers for one partition, in the order in which they see an event (`boards` ranks what others know).

    `more` makes those that come last, may read the quotes and hear of articles: plug-ins.
    """
    quotes = QuoteAnalyzer(reference, markets)
    stats, halts, news = StatsAnalyzer(quotes), HaltsAnalyzer(quotes), NewsAnalyzer()
    ranges = RangeAnalyzer(quotes, markets, thresholds)
    made: dict[str, list[Analyzer]] = {
        "quote": [quotes],
        "bars": _bars(quotes),
        "trades": [TradesAnalyzer()],
        "stats": [stats],
        "halts": [halts],
        "news": [news, HeadlinesAnalyzer()],
        "boards": [BoardsAnalyzer(quotes, stats, halts, board_rows, boards, news)],
        "range": [ranges],
        "book": [BookAnalyzer()],
    }
    wanted = set(names)
    if "gap" in wanted:
        made["gap"] = [GapAnalyzer(quotes, thresholds)]
    if "volume" in wanted:  # what it is told by stats it must also give away
        made["volume"] = [VolumeAnalyzer(quotes, stats, thresholds)]
        wanted.add("stats")
    if "news_alerts" in wanted:
        made["news_alerts"] = [ArticleAlertAnalyzer(quotes, ranges, thresholds)]
        wanted.add("range")
    last = more(quotes, news) if more is not None else ()
    if news.heard_by:
        wanted.add("news")
    if last or {"boards", "stats", "range", "gap"} & wanted:
        wanted.add("quote")
    return [*(analyzer for name in ANALYZERS if name in wanted for analyzer in made[name]), *last]
