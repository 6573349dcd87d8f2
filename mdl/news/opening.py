"""Opens the feed of news that the settings describe."""

from __future__ import annotations

from mdl.news.desk import NewsDesk
from mdl.news.feed import Complaints, NewsFeed
from mdl.news.rest import VENDOR, RestNews, official
from mdl.news.simulated import SimulatedNews
from mdl.news.stream import StreamNews
from mdl.news.tickers import Companies, read_names
from mdl.settings import SIMULATED, MdlSettings
from mdl.simulation.newsroom import NewsRoom
from mdl.simulation.universe import universe
from service.settings import hide_password


def open_news(settings: MdlSettings, key: str) -> NewsFeed:
    """Return the feed, not yet started.  Raises: OperatorError for a table of names that cannot be read."""
    desk = NewsDesk(Companies(read_names(settings.news_names)), Complaints())
    url, back_s = settings.news_origin, settings.news_back_h * 3600
    if url == SIMULATED:
        return SimulatedNews(desk, newsroom(settings), back_s)
    if url.startswith("ws"):
        return StreamNews(desk, url, key)
    return RestNews(desk, official(key, url), settings.news_every_s, back_s, hide_password(url) if url else VENDOR)


def newsroom(settings: MdlSettings) -> NewsRoom:
    """Return who writes the news of the simulated market."""
    return NewsRoom(universe(settings.symbols, settings.seed), settings.seed, settings.news_rate)
