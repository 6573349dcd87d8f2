"""Asks the stand-in about single stocks with the vendor's own client: the shapes are those that it reads."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest
from massive import RESTClient

from mdl.feeds.simulator import SimulatorFeed
from mdl.settings import VendorSettings
from mdl.simulation.market import Simulator
from mdl.vendor.stand_in import VendorServer
from service.days.markets import STOCKS

SYMBOL, SPLIT, RENAMED = "NVDA", "AMZN", "AMD"  # the first three of every fourth, fifth and seventh stock
DAY_MS = 86_400_000


@pytest.fixture
async def asked() -> AsyncIterator[tuple[Simulator, Any]]:
    """A market that has traded some seconds, and who asks its server with the vendor's client."""
    market = Simulator(20, 7)
    server = VendorServer(VendorSettings(port=0, keys="good", symbols=20), SimulatorFeed(market, 0))
    await server.start()
    for n in range(40):
        market.frame(time.time_ns() // 1_000_000 - 4_000 + 100 * n, 100)
    client = RESTClient("good", base=f"http://127.0.0.1:{server.port}")

    def ask(name: str, *args: Any, **more: Any) -> Any:
        found = getattr(client, name)(*args, **more)
        return found if hasattr(found, "from_dict") or isinstance(found, list) or not hasattr(found, "__next__") else list(found)

    yield market, lambda *args, **more: asyncio.to_thread(ask, *args, **more)
    await server.stop()


async def test_the_vendors_client_reads_what_is_known_of_a_company(asked: tuple[Simulator, Any]) -> None:
    """Overview, events, short interest and volume, filings, splits; the value of the company follows its price."""
    market, ask = asked
    overview = await ask("get_ticker_details", SYMBOL)
    assert (overview.ticker, overview.active, overview.type) == (SYMBOL, True, "CS")
    last = market.day(0)["c"]
    assert overview.market_cap == pytest.approx(overview.share_class_shares_outstanding * last)
    events = await ask("get_ticker_events", RENAMED)
    assert [event["ticker_change"]["ticker"] for event in events.events] == ["AMD", "AMDQ"]
    interest = await ask("list_short_interest", ticker=SYMBOL, limit=2, sort="settlement_date.desc")
    assert len(interest) == 2
    assert interest[0].settlement_date > interest[1].settlement_date
    assert 0 < interest[0].short_interest < overview.share_class_shares_outstanding
    volume = await ask("list_short_volume", ticker=SYMBOL, limit=3, sort="date.desc")
    assert [0 < day.short_volume < day.total_volume for day in volume] == [True] * 3
    filings = await ask("list_stocks_filings_index", ticker=SYMBOL, limit=5)
    assert len({one.accession_number for one in filings}) == 5
    splits = await ask("list_splits", ticker=SPLIT, limit=10)
    assert [one.ticker for one in splits] == [SPLIT] * len(splits)
    assert splits


async def test_the_logo_is_a_picture(asked: tuple[Simulator, Any]) -> None:
    """Of its own host, and for who has a key."""
    _, ask = asked
    url = (await ask("get_ticker_details", SYMBOL)).branding.icon_url
    async with httpx.AsyncClient() as http:
        assert (await http.get(url)).status_code == 401
        answer = await http.get(url, headers={"Authorization": "Bearer good"})
    assert (answer.status_code, answer.headers["content-type"], answer.content[:4]) == (200, "image/png", b"\x89PNG")


async def test_bars_are_those_of_the_market(asked: tuple[Simulator, Any]) -> None:
    """The day so far is the snapshot's, pages follow each other, prices of before a split are in today's shares or their own."""
    market, ask = asked
    now_ms = time.time_ns() // 1_000_000
    days = await ask("list_aggs", SPLIT, 1, "day", now_ms - 700 * DAY_MS, now_ms, limit=50_000)
    assert market.past is not None
    today = market.past.days(4, STOCKS.day_of(now_ms).start_ms, now_ms, now_ms)
    assert days[-1].volume == today[-1].volume
    assert all(datetime.fromtimestamp(day.timestamp / 1000, STOCKS.zone).hour == 0 for day in days)
    split = (await ask("list_splits", ticker=SPLIT, limit=1))[0]
    own = await ask("list_aggs", SPLIT, 1, "day", now_ms - 700 * DAY_MS, now_ms, adjusted=False, limit=50_000)
    on = datetime.fromisoformat(split.execution_date).replace(tzinfo=UTC).timestamp() * 1000
    before = next(at for at, day in reversed(list(enumerate(days))) if day.timestamp < on - DAY_MS)
    assert own[before].close == pytest.approx(days[before].close * split.split_to / split.split_from)
    assert own[-1].close == days[-1].close
    minutes = await ask("list_aggs", SYMBOL, 1, "minute", now_ms - 8 * DAY_MS, now_ms, limit=50_000)
    paged = await ask("list_aggs", SYMBOL, 1, "minute", now_ms - 8 * DAY_MS, now_ms, limit=300)
    assert len(minutes) > 1_000
    assert [one.timestamp for one in paged] == [one.timestamp for one in minutes]
    assert await ask("list_aggs", "NOSUCH", 1, "minute", now_ms - DAY_MS, now_ms) == []
