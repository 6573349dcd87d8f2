"""Checks the WebSocket source of news: whatever the server does, what it says in between is published once."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from http import HTTPStatus
from typing import Any

import pytest
from websockets.asyncio.server import ServerConnection, serve

from mdl.feeds.feed import FeedRefused
from mdl.news.desk import NewsDesk
from mdl.news.stream import StreamNews
from mdl.news.tickers import Companies
from tests.waiting import until


def article(name: str) -> dict[str, Any]:
    return {"id": name, "title": f"Title of {name}", "published_utc": "2026-01-05T14:30:00Z", "tickers": ["AAPL"]}


def feed_of(port: int, key: str = "") -> StreamNews:
    return StreamNews(NewsDesk(Companies(), lambda *_: None), f"ws://127.0.0.1:{port}/articles?token=hidden", key)


Talk = Callable[[ServerConnection, int], Awaitable[None]]


async def read(talk: Talk, wanted: int) -> tuple[StreamNews, list[str]]:
    """Return the feed and the ids it has published once `wanted` of them are there; `talk(socket, n)` is the n-th connection."""
    connections, ids = 0, list[str]()

    async def handle(socket: ServerConnection) -> None:
        nonlocal connections
        connections += 1
        await talk(socket, connections)

    async with serve(handle, "127.0.0.1", 0) as server:
        feed = feed_of(server.sockets[0].getsockname()[1])

        async def take() -> None:
            async for frame in feed:
                ids.extend(event["id"] for event in json.loads(frame.data) if "sym" not in event)

        task = asyncio.create_task(take())
        try:
            await until(lambda: len(ids) >= wanted, 10)
        finally:
            await feed.close()
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
    return feed, ids


async def test_what_is_no_article_spoils_nothing() -> None:
    """Text and bytes, one and several; no JSON, another shape and an article that comes again are passed over, counted."""

    async def talk(socket: ServerConnection, _: int) -> None:
        for message in (article("a"), [article("b"), {"id": 1}, article("a")], "hello", ["x"], article("c")):
            await socket.send(json.dumps(message))
        await socket.send(b"\xff not JSON")
        await socket.send(json.dumps(article("d")).encode())
        await socket.wait_closed()

    feed, ids = await read(talk, 4)
    assert ids == ["a", "b", "c", "d"]
    assert feed.malformed == 4
    assert (feed.state, feed.reason, feed.reconnects) == ("live", "", 0)


async def test_a_lost_connection_is_made_again() -> None:
    """Closed in order, cut in a message, or too much in one: the next connection goes on, repeats are known."""

    async def talk(socket: ServerConnection, n: int) -> None:
        for name in [f"a{one}" for one in range(n)]:
            await socket.send(json.dumps(article(name)))
        if n == 1:
            await socket.close()
        elif n == 2:
            await asyncio.sleep(0.05)
            socket.transport.abort()
        elif n == 3:
            await socket.send("x" * (5 * 1024 * 1024))
        await socket.wait_closed()

    feed, ids = await read(talk, 4)
    assert ids == ["a0", "a1", "a2", "a3"]
    assert feed.reconnects == 3


@pytest.mark.parametrize("status", [HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN])
async def test_a_refused_key_ends_the_feed(status: HTTPStatus) -> None:
    """The key goes along as a bearer token and is in no reason; neither is one in the address."""
    asked: list[str] = []

    def refuse(socket: ServerConnection, request: Any) -> Any:
        asked.append(request.headers["Authorization"])
        return socket.respond(status, "no\n")

    async with serve(lambda _: asyncio.sleep(0), "127.0.0.1", 0, process_request=refuse) as server:
        feed = feed_of(server.sockets[0].getsockname()[1], "secret")
        with pytest.raises(FeedRefused, match=str(int(status))):
            async for _ in feed:
                pass
    assert asked == ["Bearer secret"]
    assert "secret" not in feed.reason
    assert "hidden" not in feed.subscriptions[0]


async def test_a_server_that_is_not_there_or_says_no_is_tried_again() -> None:
    """With a reason in words; a fault of the server is not a refusal."""
    answers = iter([HTTPStatus.BAD_GATEWAY, HTTPStatus.NOT_FOUND])
    reasons: set[str] = set()

    def answer(socket: ServerConnection, _: Any) -> Any:
        status = next(answers, None)
        return socket.respond(status, "no\n") if status is not None else None

    async with serve(lambda socket: socket.wait_closed(), "127.0.0.1", 0, process_request=answer) as server:
        feed = feed_of(server.sockets[0].getsockname()[1])
        task = asyncio.create_task(anext(aiter(feed)))  # type: ignore[arg-type]
        await until(lambda: reasons.add(feed.reason) or feed.state == "live", 10)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    assert {reason.partition(";")[0] for reason in reasons} >= {"the news server answered 502", "the news server answered 404"}
