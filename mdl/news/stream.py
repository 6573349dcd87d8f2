"""Receives articles over a WebSocket: each message is an article, or a list of them, in JSON."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator

from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus, WebSocketException

from mdl.feeds.feed import FeedRefused, Frame
from mdl.news.desk import NewsDesk
from mdl.news.feed import NewsFeed
from service.settings import hide_password

OPEN_S_MAX, PING_S, CLOSE_S_MAX = 10.0, 20.0, 2.0
MESSAGE_BYTES_MAX = 4 * 1024 * 1024
REFUSED = (401, 403)


class StreamNews(NewsFeed):
    """One connection to `url`; `key`, if there is one, goes along as a bearer token. A lost connection is made again."""

    def __init__(self, desk: NewsDesk, url: str, key: str = "") -> None:
        super().__init__(desk, hide_password(url))
        self._url = url
        self._headers = {"Authorization": f"Bearer {key}"} if key else {}

    async def __aiter__(self) -> AsyncIterator[Frame]:
        while not self.closed.is_set():
            why = "the news server closed the connection"
            try:
                async with connect(
                    self._url, additional_headers=self._headers, open_timeout=OPEN_S_MAX, ping_interval=PING_S,
                    ping_timeout=PING_S, close_timeout=CLOSE_S_MAX, max_size=MESSAGE_BYTES_MAX, proxy=None,
                ) as socket:  # fmt: skip
                    self.went_live()
                    async for message in socket:
                        for frame in self.desk.deliver(message):
                            yield Frame(frame, time.time_ns())
                            await asyncio.sleep(0)  # a message may be a list of thousands
            except InvalidStatus as error:
                code = error.response.status_code
                if code in REFUSED:
                    self.state, self._reason = "refused", f"the news server refused us ({code})"
                    raise FeedRefused(self._reason) from None
                why = f"the news server answered {code}"
            except TimeoutError:
                why = f"the news server did not answer within {OPEN_S_MAX:g} s"
            except (OSError, WebSocketException) as error:
                why = f"the news server cannot be reached: {error}"
            if not self.closed.is_set():
                await self.lost(why)
