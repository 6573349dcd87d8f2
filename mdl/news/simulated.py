"""Sends the simulated market's articles as they are published, those of the last while first."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator

from msgspec.json import encode

from mdl.feeds.feed import Frame
from mdl.news.desk import NewsDesk
from mdl.news.feed import NewsFeed
from mdl.simulation.newsroom import NewsRoom

LOOK_S = 0.25
STEP_MS = 60_000
BACK_MS_MAX = 3_600_000  # to write a day's articles takes seconds


class SimulatedNews(NewsFeed):
    """`back_s` = so much of what was published before the start is sent, too; no more than BACK_MS_MAX."""

    def __init__(self, desk: NewsDesk, room: NewsRoom, back_s: float) -> None:
        super().__init__(desk, "simulated")
        self._room = room
        self._back_ms = min(BACK_MS_MAX, int(back_s * 1000))

    async def __aiter__(self) -> AsyncIterator[Frame]:
        self.state = "live"
        since_ms = time.time_ns() // 1_000_000 - self._back_ms
        while not self.closed.is_set():
            until_ms = time.time_ns() // 1_000_000
            if until_ms > since_ms:  # a clock that was put back sends nothing twice
                until_ms = min(until_ms, since_ms + STEP_MS)
                for frame in self.desk.take([encode(article) for article in self._room.between(since_ms, until_ms)]):
                    yield Frame(frame, time.time_ns())
                since_ms = until_ms
                if until_ms < time.time_ns() // 1_000_000 - STEP_MS:
                    await asyncio.sleep(0)
                    continue
            await asyncio.sleep(LOOK_S)
