"""What the feeds of news have in common: what a listener asks of any feed, and how a lost source is tried again."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator

import structlog

from mdl.feeds.feed import Frame, State
from mdl.feeds.reconnect import Reconnect
from mdl.news.desk import NewsDesk

SAMPLES_S_MAX = 5
ALWAYS_OPEN = "crypto"  # news keep no hours: a lost source is asked again as soon at night
log = structlog.get_logger()


class NewsFeed:
    """Base of the feeds of news. That nothing is published is no fault: a live source may be silent for as long as it likes."""

    lossless = patient = False
    market = "news"
    ailing = ""

    def __init__(self, desk: NewsDesk, origin: str) -> None:
        self.name = "news"
        self.subscriptions: tuple[str, ...] = (origin,)
        self.state: State = "connecting"
        self.reconnects = 0
        self.dropped_frames = 0
        self.desk = desk
        self.closed = asyncio.Event()
        self._reason = "not connected yet"
        self._reconnect = Reconnect(ALWAYS_OPEN)

    @property
    def reason(self) -> str:
        return "" if self.state == "live" else self._reason

    @property
    def malformed(self) -> int:
        return self.desk.malformed

    def __aiter__(self) -> AsyncIterator[Frame]:
        raise NotImplementedError

    async def close(self) -> None:
        self.closed.set()

    def went_live(self) -> None:
        """The source answers."""
        if self.state != "live":
            self.state = "live"
            self._reconnect.connected(time.monotonic())
            log.info("news_connected", origin=self.subscriptions[0])

    async def lost(self, why: str, least_s: float = 0.0) -> None:
        """Say why the source is gone, and wait until it is to be tried again, `least_s` at the least."""
        self.reconnects += 1
        pause_s = max(least_s, self._reconnect.lost(time.monotonic(), time.time_ns(), random.random()))
        self.state, self._reason = "connecting", f"{why}; next try in {pause_s:.1f} s"
        log.warning("news_disconnected", origin=self.subscriptions[0], error=why, pause_s=round(pause_s, 2))
        await self.pause(pause_s)

    async def pause(self, seconds: float) -> None:
        """Wait, but not for longer than until somebody closes the feed."""
        try:
            async with asyncio.timeout(seconds):
                await self.closed.wait()
        except TimeoutError:
            return


class Complaints:
    """Logs articles that were none, at most SAMPLES_S_MAX a second: the count is in the source's status."""

    def __init__(self) -> None:
        self._second, self._told = 0, 0

    def __call__(self, why: str, sample: str) -> None:
        second = int(time.monotonic())
        self._told = self._told + 1 if second == self._second else 1
        self._second = second
        if self._told <= SAMPLES_S_MAX:
            log.warning("malformed_article", error=why, sample=sample)
