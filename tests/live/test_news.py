"""News over real servers: the official client, a vendor's stand-in, listeners and processors that are killed, and lists without a flaw."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable
from typing import Any

import pytest

from mdl.news.article import read
from mdl.news.tickers import Companies
from mdl.settings import MdlSettings
from mdl.simulation.newsroom import NewsRoom
from mdl.simulation.universe import universe
from tests.servers import free_port
from tests.stack import Stack

pytestmark = pytest.mark.live

SYMBOLS, RATE, BACK_H = 30, 60, 0.01  # an article a second; the whole test has fewer than a list keeps


def documents(running: Stack, channel: str) -> list[dict[str, Any]]:
    return [json.loads(body) for body in running.redis.lrange(f"ch:{channel}", 0, -1)]


def test_kills_and_repeats_leave_every_list_as_the_news_were(running: Stack) -> None:
    """A worker and two listeners are killed; each article is once on the list of all and once on that of each symbol, none is missing."""
    port = free_port()
    running.start(
        "vendor", "mdl vendor-server", MDL_FEED="simulator", MDL_SYMBOLS=SYMBOLS, MDL_NEWS_RATE=RATE, MDL_VENDOR_PORT=port,
        MDL_VENDOR_ADMIN_PORT=free_port(), MDL_VENDOR_KEYS="k",
    )  # fmt: skip
    for name in ("w0", "w1"):
        running.start(name, "mdp", MDP_WORKER=name)
    running.wait("both to own partitions", lambda: len(o := running.owners()) == 8 and len(set(o.values())) == 2)
    news = {
        "MDL_FEED": "news", "MDL_NEWS_URL": f"http://127.0.0.1:{port}", "MDL_API_KEY": "k", "MDL_NEWS_EVERY_S": 1,
        "MDL_NEWS_BACK_H": BACK_H, "MDL_LEASE_TTL_MS": 600,
    }  # fmt: skip

    def seen() -> int:
        return len(documents(running, "news:latest"))

    def further(articles: int) -> Callable[[], bool]:
        wanted = seen() + articles
        return lambda: seen() >= wanted

    running.start("first", "mdl", **news)
    running.wait("the past minute", lambda: seen() >= 30)
    running.stop("w0", signal.SIGKILL)
    running.wait("news after a worker was killed", further(3))
    for name in ("first", "second"):
        running.stop(name, signal.SIGKILL)
        following = "second" if name == "first" else "third"
        running.start(following, "mdl", **news)
        running.wait(f"news of the {following} listener", further(3))
    running.stop("third")
    running.wait("its last word", lambda: _source(running)["listener"]["state"] == "stopped")
    running.stop("w1")
    latest = documents(running, "news:latest")
    assert [doc["seq"] for doc in latest] == list(range(1, len(latest) + 1))
    times = [doc["data"]["ts"] for doc in latest]
    room = NewsRoom(universe(SYMBOLS, MdlSettings().seed), MdlSettings().seed, RATE)
    wanted = [read(json.dumps(one).encode()) for one in room.between(min(times), max(times) + 1)]
    for article in wanted:
        article.tickers = article.tickers or Companies().find(article.title, article.summary)
    assert sorted(doc["data"]["id"] for doc in latest) == sorted(article.id for article in wanted)
    for symbol in {ticker for article in wanted for ticker in article.tickers}:
        own = documents(running, f"news:{symbol}")
        assert sorted(doc["data"]["id"] for doc in own) == sorted(one.id for one in wanted if symbol in one.tickers), symbol
        assert {doc["src"] for doc in own} == {"news"}
        assert len({doc["seq"] for doc in own}) == len(own)
    source = _source(running)
    assert (source["listener"]["feed"], source["expired_events"], source["dropped_events"]) == ("news", 0, 0)
    assert running.counts()["bad"] == 0


def _source(running: Stack) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(running.redis.get("ch:status:pipeline"))["data"]["sources"]["news"]
    return found
