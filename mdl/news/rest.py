"""Asks the vendor's REST service for news, again and again: the official client in a thread, pages in the order of publication.

What is asked for begins OVERLAP before the newest article known, because articles are also published late; the desk knows those
that come again. Nothing here waits on the event loop, and a server that does not answer holds nothing but its thread.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import threading
import time
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import msgspec
from msgspec import Raw, Struct

from mdl.feeds.feed import FeedClosed, FeedRefused, Frame
from mdl.news.desk import NewsDesk
from mdl.news.feed import NewsFeed

OVERLAP_MS = 10 * 60_000
AHEAD_MS = 60_000  # a server's clock may be so far ahead of ours
PAGE = 1_000  # articles: the most that the vendor gives at once
CONNECT_S_MAX, READ_S_MAX, ANSWER_S_MAX = 5.0, 10.0, 30.0
LIMITED_S = 30.0  # at least so long after "too many requests"
HANGING_MAX = 3  # questions without an answer; while there are so many nothing is asked
VENDOR = "the vendor's REST service"
STATUS = re.compile(r"too many (\d{3}) error")
REFUSALS = {
    401: "the news server refused the API key (401)",
    403: "the plan of this API key does not include news (403)",
}


class Page(Struct):
    """One answer; every article is judged on its own."""

    results: list[Raw] = []
    next_url: str | None = None


class Limited(FeedClosed):
    """The vendor says that we ask too often."""


Fetch = Callable[[dict[str, str]], bytes]  # blocks; raises FeedRefused, FeedClosed


class RestNews(NewsFeed):
    """Polls every `every_s`; begins `back_s` before now. `fetch` asks one question (see `official`)."""

    def __init__(self, desk: NewsDesk, fetch: Fetch, every_s: float, back_s: float, origin: str = VENDOR) -> None:
        super().__init__(desk, origin)
        self._fetch = fetch
        self._every_s = every_s
        self._since_ms = time.time_ns() // 1_000_000 - int(back_s * 1000)
        self._hanging: list[threading.Thread] = []

    async def __aiter__(self) -> AsyncIterator[Frame]:
        cursor: dict[str, str] = {}
        while not self.closed.is_set():
            try:
                page = await self._ask(cursor or self._question())
            except FeedRefused as error:
                self.state, self._reason = "refused", str(error)
                raise
            except FeedClosed as error:
                cursor = {}
                await self.lost(str(error), LIMITED_S if isinstance(error, Limited) else 0.0)
                continue
            self.went_live()
            for frame in self.desk.take(page.results, time.time_ns() // 1_000_000 + AHEAD_MS):
                yield Frame(frame, time.time_ns())
                await asyncio.sleep(0)  # a page is a thousand articles: the sockets have their turn in between
            cursor = _cursor(page)
            if not cursor:
                await self.pause(self._every_s)

    def _question(self) -> dict[str, str]:
        since_ms = max(self._since_ms, self.desk.newest_ms - OVERLAP_MS)
        at = datetime.fromtimestamp(since_ms / 1000, UTC)
        return {"published_utc.gte": f"{at:%Y-%m-%dT%H:%M:%SZ}", "order": "asc", "sort": "published_utc", "limit": str(PAGE)}

    async def _ask(self, question: dict[str, str]) -> Page:
        try:
            return msgspec.json.decode(await self._in_thread(question), type=Page)
        except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
            raise FeedClosed(f"the news server's answer is none: {error}") from None

    async def _in_thread(self, question: dict[str, str]) -> bytes:
        """Ask in a thread of its own, which ends with the process: one of a pool would hold up its end."""
        self._hanging = [thread for thread in self._hanging if thread.is_alive()]
        if len(self._hanging) >= HANGING_MAX:
            raise FeedClosed(f"the news server leaves {HANGING_MAX} questions unanswered")
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[bytes] = loop.create_future()

        def ask() -> None:
            result: bytes | Exception
            try:
                result = self._fetch(question)
            except (FeedClosed, FeedRefused) as error:
                result = error
            except Exception as error:  # whatever the client makes of an answer, it is tried again
                result = FeedClosed(f"the news server's answer cannot be read: {error!r}")
            with contextlib.suppress(RuntimeError):  # the loop has ended meanwhile
                loop.call_soon_threadsafe(_settle, answer, result)

        thread = threading.Thread(target=ask, daemon=True, name="news")
        self._hanging.append(thread)
        thread.start()
        try:
            async with asyncio.timeout(ANSWER_S_MAX):
                return await answer
        except TimeoutError:
            raise FeedClosed(f"the news server did not answer within {ANSWER_S_MAX:g} s") from None


def official(api_key: str, url: str) -> Fetch:
    """Return a question to the vendor, or to a server that speaks like it (`url`), through the official client."""
    made: list[Any] = []

    def fetch(question: dict[str, str]) -> bytes:
        from massive import RESTClient  # it takes 0.3 s to load, and this is not the event loop
        from massive.exceptions import BadResponse
        from urllib3 import Retry
        from urllib3.exceptions import HTTPError, MaxRetryError

        if not api_key:
            raise FeedRefused("no API key")
        if not made:
            # The client tells an answer's status to nobody; urllib3 does of those that it would try again. The pauses are ours.
            once = Retry(total=0, redirect=0, status_forcelist=range(400, 600), respect_retry_after_header=False)
            client: dict[str, Any] = {"base": url.rstrip("/")} if url else {}
            client |= {"connect_timeout": CONNECT_S_MAX, "read_timeout": READ_S_MAX, "connection_pool_kw": {"retries": once}}
            made.append(RESTClient(api_key, **client))
        try:
            return bytes(made[0].list_ticker_news(params=dict(question), raw=True).data)
        except MaxRetryError as error:
            raise _refusal(error.reason) from None
        except BadResponse as error:
            raise FeedClosed(f"the news server answered {str(error)[:200]!r}") from None
        except HTTPError as error:
            raise FeedClosed(f"the news server cannot be read: {error}") from None

    return fetch


def _refusal(reason: BaseException | None) -> Exception:
    found = STATUS.search(str(reason))
    if found is None:
        return FeedClosed(f"the news server cannot be reached: {reason}")
    code = int(found[1])
    if code in REFUSALS:
        return FeedRefused(REFUSALS[code])
    if code == 429:
        return Limited("the news server says that it is asked too often (429)")
    return FeedClosed(f"the news server answered {code}")


def _cursor(page: Page) -> dict[str, str]:
    """Return what the next page is asked for with, {} when there is none. Only the query counts: the key goes nowhere else."""
    query = dict(parse_qsl(urlsplit(page.next_url or "").query))
    return query if page.results else {}


def _settle(answer: asyncio.Future[bytes], result: bytes | Exception) -> None:
    if answer.done():
        return  # nobody waits any more
    if isinstance(result, Exception):
        answer.set_exception(result)
    else:
        answer.set_result(result)
