"""Checks the polling of the vendor's REST news through the official client: against the vendor's stand-in, and a server that fails."""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

import mdl.news.feed
import mdl.news.rest
from mdl.feeds.feed import FeedRefused
from mdl.feeds.simulator import SimulatorFeed
from mdl.news.desk import NewsDesk
from mdl.news.opening import newsroom
from mdl.news.rest import RestNews, official
from mdl.news.tickers import Companies
from mdl.settings import VendorSettings
from mdl.simulation.market import Simulator
from mdl.vendor.stand_in import VendorServer
from tests.waiting import until

HOUR_S = 3600.0


def feed_of(port: int, key: str = "good", every_s: float = 0.05, back_s: float = HOUR_S) -> RestNews:
    desk = NewsDesk(Companies(), lambda *_: None)
    return RestNews(desk, official(key, f"http://127.0.0.1:{port}"), every_s, back_s)


class Reading:
    """A feed that is read in a task: the articles of the list of all, by their ids."""

    def __init__(self, feed: RestNews) -> None:
        self.feed = feed
        self.ids: list[str] = []
        self.task = asyncio.create_task(self._read())

    async def _read(self) -> None:
        async for frame in self.feed:
            self.ids += [event["id"] for event in json.loads(frame.data) if "sym" not in event]

    async def stop(self) -> None:
        await self.feed.close()
        self.task.cancel()
        with contextlib.suppress(asyncio.CancelledError, FeedRefused):
            await self.task


@pytest.fixture
async def vendor() -> AsyncIterator[VendorServer]:
    made = VendorServer(
        VendorSettings(port=0, keys="good,other:T", news_rate=300, symbols=20), SimulatorFeed(Simulator(20, 7), 0)
    )
    await made.start()
    yield made
    await made.stop()


class Server:
    """Answers each request with what `answer(number)` returns: bytes to send before it hangs up, None = nothing, ever."""

    def __init__(self, answer: Callable[[int], bytes | None]) -> None:
        self.requests: list[str] = []
        self._answer = answer

    async def __aenter__(self) -> Server:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        self.requests.append(head)
        body = self._answer(len(self.requests))
        if body is not None:
            writer.write(body)
            await writer.drain()
            writer.close()


def http(status: int, body: Any, length: int | None = None) -> bytes:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    return b"HTTP/1.1 %d X\r\nContent-Length: %d\r\n\r\n%b" % (status, len(data) if length is None else length, data)


def page(*names: str, **more: Any) -> bytes:
    return http(200, {"results": [{"id": n, "title": n, "published_utc": "2026-01-05T14:30:00Z"} for n in names], **more})


async def test_the_official_client_reads_an_hour_of_news_and_goes_on(
    vendor: VendorServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In pages, oldest first, each article once; those that are published meanwhile follow."""
    monkeypatch.setattr(mdl.news.rest, "PAGE", 50)
    began_ms = time.time_ns() // 1_000_000
    reading = Reading(feed_of(vendor.port, back_s=60))
    room = newsroom(VendorSettings(news_rate=300, symbols=20))
    try:
        await until(lambda: len(reading.ids) >= 310, 15, "the past, and two seconds more")
    finally:
        await reading.stop()
    wanted = [str(one["id"]) for one in room.between(began_ms - 58_000, began_ms + 1_000)]
    assert len(wanted) > 250
    assert set(wanted) <= set(reading.ids)
    assert len(set(reading.ids)) == len(reading.ids)
    assert (reading.feed.state, reading.feed.reason, reading.feed.malformed, reading.feed.reconnects) == ("live", "", 0, 0)


@pytest.mark.parametrize(
    ("key", "said"), [("wrong", "refused the API key (401)"), ("other", "does not include news (403)"), ("", "no API key")]
)
async def test_a_refused_key_ends_the_feed(vendor: VendorServer, key: str, said: str) -> None:
    """It is useless to try it again; what was refused is said."""
    feed = feed_of(vendor.port, key)
    with pytest.raises(FeedRefused) as caught:
        async for _ in feed:
            pass
    assert said in str(caught.value)
    assert (feed.state, said in feed.reason) == ("refused", True)


FAILURES: dict[str, tuple[bytes | None, str]] = {
    "server error": (http(500, {}), "answered 500"),
    "gateway": (http(503, b"<html>"), "answered 503"),
    "asked too often": (http(429, {}), "too often (429)"),
    "redirect": (b"HTTP/1.1 302 X\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n", "cannot be reached"),
    "half an answer": (http(200, b'{"results":[', 500), "Connection broken"),
    "half a document": (http(200, b'{"results":['), "answer is none"),
    "no JSON": (http(200, b"<html>sorry</html>"), "answer is none"),
    "another shape": (http(200, {"results": {"id": "a"}}), "answer is none"),
    "no HTTP": (b"hello\r\n\r\n", "cannot be"),
    "hangs up": (b"", "cannot be reached"),
    "says nothing": (None, "cannot be reached"),
}


@pytest.mark.parametrize("what", FAILURES)
async def test_a_server_that_fails_is_asked_again(what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """One reason in words, then articles as if nothing had happened; the event loop never waits."""
    monkeypatch.setattr(mdl.news.rest, "READ_S_MAX", 0.3)
    monkeypatch.setattr(mdl.news.rest, "LIMITED_S", 0.2)
    monkeypatch.setattr(random, "random", lambda: 0.5)  # a pause of next to nothing would be over before anybody looks
    answer, said = FAILURES[what]
    async with Server(lambda n: answer if n <= 1 else page("a")) as server:
        reading = Reading(feed_of(server.port))
        reasons: set[str] = set()
        try:
            await until(lambda: reasons.add(reading.feed.reason) or reading.ids, 10, what)
        finally:
            await reading.stop()
    assert any(said in reason for reason in reasons), reasons
    assert all("\n" not in reason for reason in reasons)
    assert reading.ids == ["a"]
    assert reading.feed.reconnects == 1


async def test_it_resumes_by_the_time_of_publication(monkeypatch: pytest.MonkeyPatch) -> None:
    """A while before the newest known, because articles are published late; a page's cursor goes to our server alone."""
    answers = {1: http(500, {}), 2: page("a", next_url="https://elsewhere.example/v2/reference/news?cursor=abc"), 3: page("b")}
    async with Server(lambda n: answers.get(n, page("b", "c"))) as server:
        reading = Reading(feed_of(server.port, back_s=2 * 365 * 24 * HOUR_S))
        try:
            await until(lambda: len(server.requests) >= 4 and len(reading.ids) == 3, 10)
        finally:
            await reading.stop()
    targets = [head.split()[1] for head in server.requests]
    assert reading.ids == ["a", "b", "c"]
    assert "cursor=abc" in targets[2]
    assert "published_utc.gte=2026-01-05T14%3A20%3A00Z" in targets[3]
    assert all("authorization: bearer good" in head.lower() for head in server.requests)


async def test_silence_is_no_fault_and_one_bad_article_neither() -> None:
    """An empty page is an answer; what cannot be read is counted, those beside it come."""
    async with Server(
        lambda n: (
            page() if n < 3 else http(200, {"results": [{"id": 1}, 7, {"id": "a", "title": "t", "published_utc": "2026-01-05"}]})
        )
    ) as server:
        reading = Reading(feed_of(server.port))
        try:
            await until(lambda: reading.feed.state == "live" and len(server.requests) >= 5)
        finally:
            await reading.stop()
    assert (reading.feed.state, reading.feed.ailing, reading.feed.malformed) == ("live", "", 3)


async def test_questions_without_an_answer_do_not_pile_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that drips is given up in time, and asked no more while three of them hang; the loop turns all the while."""
    monkeypatch.setattr(mdl.news.rest, "ANSWER_S_MAX", 0.1)
    asked = 0

    def hang(_: dict[str, str]) -> bytes:
        nonlocal asked
        asked += 1
        time.sleep(4)
        return b"{}"

    feed = RestNews(NewsDesk(Companies(), lambda *_: None), hang, 0.05, HOUR_S)
    reading = Reading(feed)
    try:
        await until(lambda: "3 questions unanswered" in feed.reason, 10)
    finally:
        began = time.monotonic()
        await reading.stop()
    assert asked == 3
    assert time.monotonic() - began < 2


async def test_an_article_of_the_future_ends_no_questions() -> None:
    """Dated in 2100 by mistake, it would have every later question begin there: nothing would come, and all look live."""
    late = {"id": "late", "title": "late", "published_utc": "2100-01-01T00:00:00Z"}
    async with Server(lambda _: http(200, {"results": [late]})) as server:
        reading = Reading(feed_of(server.port))
        try:
            await until(lambda: len(server.requests) > 2, 10)
        finally:
            await reading.stop()
    assert reading.ids == ["late"]
    assert not [head for head in server.requests if "gte=2100" in head or "gte=2099" in head]
