"""Pushes paper accounts to their owners' pages as soon as the exchange has done something to them.

One connection to the exchange's private stream an account, however many pages look at it: each of its updates has the account
read anew, and whoever looks gets the whole of it. So a page that missed something has nothing to put together: after any gap the
next event is everything. What the private stream does not tell (marks move, trading is suspended) is looked at every second.

Invariant: a page gets only the account of its own session, and no longer than that session may trade.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import threading
import time
from collections import Counter
from collections.abc import Callable
from typing import Any, Protocol
from urllib.parse import urlsplit

import msgspec
import structlog
from websockets.asyncio.client import connect
from websockets.exceptions import WebSocketException

from scp.fleet.fleet import Fleet
from scp.fleet.paper import Paper
from scp.problems import Problem
from scp.store.database import StoreUnavailable
from service import metrics
from service.run import backoff_s

PER_PERSON_MAX = 6  # pages that are looked at; one that is hidden lets go of its stream
PAGES_MAX = 200
ACCOUNTS_MAX = 48  # the exchange gives one key 64 WebSockets (ENGINE_SOCKETS_MAX)
GAP_S = 0.05  # between two looks at an account that changes all the time
LOOK_S = 1.0
LOOK_S_MAX = 3.0  # how long the exchange may take to answer one
LINGER_S = 3.0  # a feed without pages: somebody loads the page anew
CHECK_S = 0.8  # how often it is asked whether sessions may still trade
BLIND_S = 10.0  # without an answer of the database to that, all streams end
ALIVE_S = 2.0  # a page that hears nothing for three times as long calls what it shows stale
AGAIN_S_MAX = 1.0
BROKEN = (OSError, TimeoutError, WebSocketException, msgspec.DecodeError, LookupError, TypeError, ValueError)
log = structlog.get_logger()
Rightful = Callable[[set[str]], set[str]]


class Page(Protocol):
    """Somebody's page: where events go."""

    session: str

    def send(self, event: bytes) -> None: ...

    def end(self, event: bytes) -> None: ...


class Feed:
    """One account: who looks at it, what they were told last, and up to which command of the exchange it is known."""

    def __init__(self, account: int) -> None:
        self.account = account
        self.pages: set[Page] = set()
        self.changed = asyncio.Event()
        self.desk = b""
        self.away = ""
        self.seq: int | None = None
        self.task: asyncio.Task[None] | None = None

    def tell(self, event: bytes) -> None:
        """Send an event to all pages."""
        for page in list(self.pages):
            page.send(event)

    def now(self) -> bytes:
        """Return what a page that comes now is told first; nothing while nothing is known."""
        return (self._desk_event() if self.desk else b"") + (_event("away", _detail(self.away)) if self.away else b"")

    def looked(self, desk: bytes) -> None:
        """Tell what the account is now, if that is news."""
        news, self.desk, self.away = desk != self.desk or bool(self.away), desk, ""
        if news:
            self.tell(self._desk_event())

    def lost(self, why: str) -> None:
        """Tell that what is shown may be old."""
        if why != self.away:
            self.away = why
            self.tell(_event("away", _detail(why)))

    def _desk_event(self) -> bytes:
        return _event("desk", self.desk, self.seq)


class PaperStreams:
    """All streams; everything but `enter` and `leave` runs on the loop of the calls out.

    `rightful` returns which of some sessions may trade now; it runs in a thread.
    """

    def __init__(self, fleet: Fleet, deposit: int, rightful: Rightful) -> None:
        self._fleet = fleet
        self._paper = Paper(fleet, deposit)
        self._rightful = rightful
        self._feeds: dict[int, Feed] = {}
        self._persons: Counter[int] = Counter()
        self._counting = threading.Lock()
        self._checking: asyncio.Task[None] | None = None
        metrics.gauge("scp", "paper_pages", "Pages that a paper account is pushed to").set_function(self._persons.total)
        metrics.gauge("scp", "paper_feeds", "Paper accounts that are followed on the exchange").set_function(self._feeds.__len__)

    def enter(self, person: int, account: int) -> None:
        """Take a place; `leave` gives it back.  Raises: Problem 429, 503 when there is none: the page asks once a second then."""
        with self._counting:
            if self._persons[person] >= PER_PERSON_MAX:
                words = f"{PER_PERSON_MAX} pages of yours are pushed the account already; GET /api/v1/paper tells the same"
                raise Problem(429, "too_many_streams", words, [("Retry-After", "10")])
            full = len(self._feeds) >= ACCOUNTS_MAX and account not in self._feeds
            if full or self._persons.total() >= PAGES_MAX:
                words = "Too many pages are pushed their accounts already; GET /api/v1/paper tells the same"
                raise Problem(503, "streams_full", words, [("Retry-After", "10")])
            self._persons[person] += 1

    def leave(self, person: int) -> None:
        """Give a place back."""
        with self._counting:
            self._persons[person] -= 1
            if self._persons[person] <= 0:
                del self._persons[person]

    def join(self, page: Page, account: int) -> None:
        """Let a page hear of its account from now on."""
        feed = self._feeds.get(account)
        if feed is None:
            feed = self._feeds[account] = Feed(account)
            feed.task = asyncio.create_task(self._serve(feed))
            feed.task.add_done_callback(lambda done: self._over(feed, done))
        feed.pages.add(page)
        if known := feed.now():
            page.send(known)
        if self._checking is None or self._checking.done():
            self._checking = asyncio.create_task(self._check())

    def part(self, page: Page, account: int) -> None:
        """Hear that a page is gone."""
        if (feed := self._feeds.get(account)) is not None:
            feed.pages.discard(page)

    # One account

    async def _serve(self, feed: Feed) -> None:
        """Follow an account while somebody looks at it."""
        following = asyncio.create_task(self._follow(feed))
        try:
            idle_s = 0.0
            while idle_s < LINGER_S:
                began_s = time.monotonic()
                await self._look(feed)
                await asyncio.sleep(GAP_S)
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(LOOK_S):
                        await feed.changed.wait()
                idle_s = 0.0 if feed.pages else idle_s + time.monotonic() - began_s
        finally:
            following.cancel()
            await asyncio.gather(following, return_exceptions=True)

    def _over(self, feed: Feed, done: asyncio.Task[None]) -> None:
        """Forget a feed. One that somebody joined at the last moment, or that broke, ends for its pages: they come again."""
        if not done.cancelled() and (error := done.exception()) is not None:
            log.error("paper_stream_broke", account=feed.account, error=repr(error))
        self._feeds.pop(feed.account, None)
        for page in list(feed.pages):
            page.end(_event("end", b"{}"))

    async def _look(self, feed: Feed) -> None:
        feed.changed.clear()
        try:
            async with asyncio.timeout(LOOK_S_MAX):
                desk = await self._paper.look(feed.account)
        except Problem as problem:
            feed.lost(problem.detail)
        except TimeoutError:
            feed.lost("The exchange does not answer.")
        else:
            feed.looked(msgspec.json.encode(desk))

    async def _follow(self, feed: Feed) -> None:
        """Hear of everything the exchange does to an account, over restarts of it, from the command on that was heard last."""
        url, token = self._fleet.exchange
        parts = urlsplit(url)
        address = parts._replace(scheme="wss" if parts.scheme == "https" else "ws", path=f"{parts.path.rstrip('/')}/v1/trade")
        attempt = 0
        while True:
            with contextlib.suppress(*BROKEN):
                async with connect(
                    address.geturl(), additional_headers={"Authorization": f"Bearer {token}"}, open_timeout=LOOK_S_MAX,
                    ping_interval=2, ping_timeout=3, close_timeout=1, compression=None, proxy=None,
                ) as socket:  # fmt: skip
                    asked: dict[str, Any] = {"op": "subscribe", "accounts": [feed.account]}
                    await socket.send(msgspec.json.encode(asked | ({} if feed.seq is None else {"lastSeq": feed.seq})).decode())
                    async for text in socket:
                        said = msgspec.json.decode(text)
                        feed.seq = None if said["type"] == "problem" else int(said["seq"])
                        if feed.seq is None:  # what follows is not kept any more: the account is read whole, and from now on
                            break
                        attempt = 0
                        feed.changed.set()
            feed.changed.set()
            await asyncio.sleep(backoff_s(attempt, random.random(), most_s=AGAIN_S_MAX))
            attempt += 1

    # Whose session may still trade

    async def _check(self) -> None:
        """End the streams of sessions that have ended or may not trade any more; let the others hear that we live."""
        told_s = known_s = time.monotonic()
        while self._feeds:
            await asyncio.sleep(CHECK_S)
            pages = [page for feed in self._feeds.values() for page in feed.pages]
            now_s = time.monotonic()
            try:
                good = await asyncio.to_thread(self._rightful, {page.session for page in pages})
                known_s = now_s
            except StoreUnavailable:
                good = {page.session for page in pages} if now_s < known_s + BLIND_S else set()
            for page in pages:
                if page.session not in good:
                    page.end(_event("end", b"{}"))
                elif now_s >= told_s + ALIVE_S:
                    page.send(_event("alive", b"{}"))
            if now_s >= told_s + ALIVE_S:
                told_s = now_s


class Place:
    """A person's place among the streams, from the request on; given back exactly once."""

    def __init__(self, streams: PaperStreams, person: int, session: str, account: int) -> None:
        """Raises: Problem when there is none."""
        streams.enter(person, account)
        self.session = session
        self.account = account
        self.streams = streams
        self._person = person
        self._left = False

    def leave(self) -> None:
        """Give it back."""
        if not self._left:
            self._left = True
            self.streams.leave(self._person)


def _event(kind: str, data: bytes, seq: int | None = None) -> bytes:
    """Return a server-sent event; JSON has no line breaks."""
    name = b"" if seq is None else b"id: %d\n" % seq
    return b"event: " + kind.encode() + b"\n" + name + b"data: " + data + b"\n\n"


def _detail(words: str) -> bytes:
    return msgspec.json.encode({"detail": words})
