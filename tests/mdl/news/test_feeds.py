"""Checks news as one source of a listener: which feed is opened, whose key it gets, what becomes of its articles."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from mdl.control import Change, changed
from mdl.feeds.catalogue import open_feed, read_key
from mdl.news.rest import RestNews
from mdl.news.simulated import SimulatedNews
from mdl.news.stream import StreamNews
from mdl.settings import MdlSettings
from mdq.connect import open_broker
from service.errors import OperatorError
from service.partition import partition_of
from service.settings import load
from tests.mdl.rig import PARTITIONS, Processor, Start
from tests.waiting import until


def news_of(**given: Any) -> MdlSettings:
    return MdlSettings(**given).by_source()["news"]


@pytest.mark.parametrize(
    ("given", "kind", "about"),
    [
        ({"feed": "massive+news"}, RestNews, "news massive"),
        ({"feed": "news", "news_url": "https://h.example/x"}, RestNews, "news https://h.example/x"),
        ({"feed": "news", "news_url": "wss://u:p@h.example/x?token=t"}, StreamNews, "news wss://u:***@h.example/x?token=***"),
        ({"feed": "simulator+news", "symbols": 3}, SimulatedNews, "news simulated"),
        ({"feed": "engine+news", "news_url": "simulated", "symbols": 3}, SimulatedNews, "news simulated"),
    ],
)
def test_the_address_says_which_news(given: dict[str, Any], kind: type, about: str) -> None:
    """Without one the vendor's, beside a simulator its own."""
    settings = news_of(**given)
    feed = open_feed(settings, "news")
    assert (type(feed), feed.name, feed.lossless, settings.about) == (kind, "news", False, about)


@pytest.mark.parametrize(
    ("given", "word"),
    [
        ({"news_url": "ftp://h"}, "MDL_NEWS_URL"), ({"news_url": "news"}, "MDL_NEWS_URL"), ({"news_every_s": 0}, "MDL_NEWS_EVERY_S"),
        ({"news_url": "http://h.example", "api_key": "k"}, "would send the news server's key in clear"),
        ({"news_url": "ws://h.example", "news_key": "k"}, "would send the news server's key in clear"),
        ({"feed": "news+news"}, "engine or news"), ({"news_back_h": 200}, "MDL_NEWS_BACK_H"), ({"news_rate": -1}, "MDL_NEWS_RATE"),
    ],
)  # fmt: skip
def test_what_cannot_run_is_refused_in_one_line(given: dict[str, Any], word: str) -> None:
    """And no key crosses a network unencrypted."""
    with pytest.raises(OperatorError, match=re.escape(word)) as caught:
        load(MdlSettings, **given)
    assert "\n" not in str(caught.value)


def test_the_vendors_key_goes_to_no_websocket_server(tmp_path: Path) -> None:
    """Only to a server that speaks as the vendor's REST service does, unless there is a key for the news."""
    file = tmp_path / "key"
    file.write_text("filed\n")
    assert read_key(news_of(feed="massive+news", api_key="k")) == "k"
    assert read_key(news_of(feed="massive+news", api_key_file=file)) == "filed"
    assert read_key(news_of(feed="massive+news", api_key="k", news_url="wss://h.example")) == ""
    assert read_key(news_of(feed="massive+news", api_key="k", news_url="wss://h.example", news_key="n")) == "n"
    assert read_key(news_of(feed="massive+news", api_key="k", news_key_file=file)) == "filed"
    assert read_key(MdlSettings(feed="massive", api_key="k", news_key="n")) == "k"


@pytest.mark.parametrize("own", [{}, {"api_key": "k"}, {"news_key": "n"}, {"api_key": "k", "news_key": "n"}])
def test_what_another_server_brings_is_not_for_the_news(own: dict[str, str]) -> None:
    """They keep the key of the start, or none; a new key of the vendor's is theirs, too."""
    start = MdlSettings(feed="massive+news", **own)
    before = read_key(start.by_source()["news"])
    away = changed(start, Change(massive_url="wss://other.example", api_key="foreign"), start)
    assert read_key(away.by_source()["news"]) == before
    away = changed(away, Change(api_key="foreign too"), start)
    assert read_key(away.by_source()["news"]) == before
    back = changed(away, Change(massive_url="", api_key="new"), start)
    assert read_key(back.by_source()["news"]) == own.get("news_key", "new")


async def test_articles_reach_the_partitions_of_their_symbols(start: Start, name: str) -> None:
    """A listener with simulated news beside a silent market: every copy where it belongs, the list of all once an article."""
    broker = open_broker(f"memory://{name}", "processor")
    await broker.connect()
    processor = Processor(broker)
    listener = await start(
        f"memory://{name}", feed="simulator+news", symbols=30, rate=0, news_rate=60, news_back_h=0.05, mdq_url=f"memory://{name}"
    )
    await processor.start()
    try:
        await until(lambda: processor.count("news") >= 150 and any(s["source"] == "news" for s in processor.statuses()), 10)
    finally:
        await processor.die()
        await broker.close()
    places = {
        (at, json.loads(event).get("sym"), json.loads(event)["id"])
        for (_, at), some in processor.events.items()
        for event in some
        if b'"ev":"news"' in event
    }
    assert all(at == partition_of(symbol or name, PARTITIONS) for at, symbol, name in places)
    common = [name for _, symbol, name in places if symbol is None]
    assert len(common) == len(set(common)) >= 150 / 3
    source = listener.sources["news"]
    assert (source.session.state, source.session.reason, source.unready()) == ("live", "", [])
    (told,) = [status for status in processor.statuses() if status["source"] == "news"][-1:]
    assert (told["feed"], told["state"], told["dropped_events"], told["malformed"]) == ("news", "live", 0, 0)
