"""Checks that simulated news are the same for everybody, at any time."""

from __future__ import annotations

import json
from itertools import pairwise

import pytest

from mdl.news.article import read
from mdl.news.tickers import Companies
from mdl.simulation.newsroom import NewsRoom
from mdl.simulation.universe import universe

NOW_MS = 1_790_000_000_000
HOUR_MS = 3_600_000


@pytest.mark.parametrize("per_minute", [0.5, 6, 600])
def test_any_way_to_cut_time_gives_the_same_articles(per_minute: float) -> None:
    """A span is the sum of its parts; in order of publication; the rate is kept."""
    room = NewsRoom(universe(50, 7), 7, per_minute)
    whole = room.between(NOW_MS, NOW_MS + HOUR_MS)
    cuts = [NOW_MS, NOW_MS + 1, NOW_MS + 999, NOW_MS + 60_000, NOW_MS + 61_001, NOW_MS + HOUR_MS]
    parts = [article for since, until in pairwise(cuts) for article in room.between(since, until)]
    assert parts == whole
    assert abs(len(whole) - 60 * per_minute) <= 2
    times = [str(article["published_utc"]) for article in whole]
    assert times == sorted(times)
    assert NewsRoom(universe(50, 7), 7, 0).between(NOW_MS, NOW_MS + HOUR_MS) == []


def test_articles_are_plausible() -> None:
    """Of symbols of the universe; some name two, some none, and of some only the text says whom they are about."""
    listed = universe(500, 7)
    articles = [read(json.dumps(one).encode()) for one in NewsRoom(listed, 7, 60).between(NOW_MS, NOW_MS + 10 * HOUR_MS)]
    assert {ticker for article in articles for ticker in article.tickers} <= set(listed.symbols)
    assert {len(article.tickers) for article in articles} == {0, 1, 2}
    found = [Companies().find(article.title, article.summary) for article in articles if not article.tickers]
    assert {len(symbols) for symbols in found} == {0, 1}
    assert {symbol for symbols in found for symbol in symbols} <= set(listed.symbols)
    assert all("{" not in article.title + article.summary for article in articles)
    assert len({article.id for article in articles}) == len(articles)
