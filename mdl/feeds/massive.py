"""Receives the vendor's frames and stamps them with their arrival time: the official client, our reconnect policy.

The client's callback only stamps and buffers, so the vendor never finds us slow. A refused key ends the feed; every
other failure is tried again, patiently while the market is closed. A live connection that does not give what was asked of
it (a refused subscription, silence while the market trades) says so in `ailing`.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any
from urllib.parse import urlsplit

import structlog
from massive import WebSocketClient
from massive.exceptions import AuthError
from massive.websocket.models import Feed as VendorFeed
from websockets.exceptions import ConnectionClosed

from mdl.feeds.answers import Answers, is_status
from mdl.feeds.feed import FeedClosed, FeedRefused, Frame, State
from mdl.feeds.reconnect import Reconnect
from mdl.feeds.silence import Silence

FRAMES_MAX = 50_000  # between the callback and the listener, which takes them at every turn of the loop
FRAME_BYTES_MAX = 32 * 1024 * 1024
CLOSE_S_MAX = 2.0
logging.getLogger("WebSocketClient").handlers.clear()  # the client prints to stdout besides; our logs go one way
log = structlog.get_logger()


class _CannotConnect(ConnectionError):
    """Raised inside the websockets library's retry loop to end it: the pauses are ours."""


class MassiveFeed:
    """One connection to one asset class of the vendor, or of a server that speaks like it (`url`)."""

    lossless = patient = False

    def __init__(
        self,
        api_key: str,
        market: str,
        subscriptions: tuple[str, ...],
        delayed: bool = False,
        url: str = "",
        open_timeout_s: float = 10,
        dice: Callable[[], float] = random.random,
        silence_s: float = 0,
    ) -> None:
        self.name = "massive"
        self.market = market
        self.subscriptions = subscriptions
        self.state: State = "connecting"
        self._reason = "not connected yet"  # of a connection that is not live
        self.reconnects = 0
        self.malformed = 0
        self.dropped_frames = 0
        self._api_key = api_key
        self._host, self._secure = _address(url, delayed)
        self._open_timeout_s = open_timeout_s
        self._dice = dice
        self._reconnect = Reconnect(market)
        self._answers = Answers(subscriptions)
        self._silence = Silence(market, subscriptions, silence_s, delayed)
        self._heard_s = 0.0  # when data came last, or the connection began
        self._told_ailing = ""  # of the last log line
        self._arrived: deque[Frame] = deque()
        self._wake = asyncio.Event()
        self._closed = False

    async def __aiter__(self) -> AsyncIterator[Frame]:
        if not self._api_key:
            self.state = "refused"
            raise FeedRefused("no API key")
        task = asyncio.create_task(self._stay_connected())
        task.add_done_callback(lambda _: self._wake.set())
        try:
            while not self._closed:
                while self._arrived:
                    yield self._arrived.popleft()
                if task.done():
                    task.result()  # raises FeedRefused; nothing else ends the task
                self._wake.clear()
                if not self._arrived and not task.done():
                    await self._wake.wait()
        finally:
            self._closed = True
            # Python 3.11's wait_for, which the client uses, swallows a cancellation that meets a frame: so again and again.
            while not task.done():
                task.cancel()
                await asyncio.wait({task}, timeout=0.1)

    async def close(self) -> None:
        self._closed = True
        self._wake.set()

    @property
    def reason(self) -> str:
        return self.ailing if self.state == "live" else self._reason

    @property
    def ailing(self) -> str:
        if self.state != "live":
            return ""
        silence = self._silence.reason(time.monotonic() - self._heard_s, time.time_ns())
        self._tell(bool(silence), self._answers.reason)
        return "; ".join(filter(None, (self._answers.reason, silence)))

    def _tell(self, silent: bool, refusal: str) -> None:
        """Log what ails the connection when it changes."""
        ailing = f"{refusal}; no data".removeprefix("; ") if silent else refusal
        if ailing != self._told_ailing:
            self._told_ailing = ailing
            log.warning("feed_ailing" if ailing else "feed_well", market=self.market, host=self._host, reason=ailing)

    async def _stay_connected(self) -> None:
        while not self._closed:
            self.state = "connecting"
            try:
                await self._connect_once()
            except FeedRefused as error:
                self.state, self._reason = "refused", str(error)
                raise
            except FeedClosed as error:
                if self._closed:
                    return
                pause_s = self._reconnect.lost(time.monotonic(), time.time_ns(), self._dice())
                self.state, self._reason = "connecting", f"{error}; next try in {pause_s:.1f} s"
                log.warning("feed_disconnected", market=self.market, error=str(error), pause_s=round(pause_s, 2))
            self.reconnects += 1
            await asyncio.sleep(pause_s)

    async def _connect_once(self) -> None:
        """Stay connected as long as it lasts.  Raises: FeedRefused, FeedClosed; never returns."""
        self._answers = Answers(self.subscriptions)
        client = WebSocketClient(
            api_key=self._api_key, feed=self._host, market=self.market, raw=True,
            subscriptions=list(self.subscriptions), max_reconnects=0, secure=self._secure,
        )  # fmt: skip
        try:
            await self._receive(client)
        except AuthError as error:
            raise FeedRefused(f"the vendor refused the API key: {error}") from None
        except ConnectionClosed as error:
            raise FeedClosed(f"the connection was lost: {error}") from None
        except _CannotConnect as error:
            raise FeedClosed(f"cannot connect to {self._host}: {error.__context__ or error}") from None
        except TimeoutError:
            raise FeedClosed(f"{self._host} did not let us in within {self._open_timeout_s:g} s") from None
        except FeedClosed:
            raise
        except Exception as error:  # whatever a vendor answers at the handshake, we try again
            raise FeedClosed(f"unexpected answer: {error!r}") from None
        finally:
            await _hang_up(client)
        raise FeedClosed("the vendor closed the connection")

    async def _receive(self, client: WebSocketClient) -> None:
        async with asyncio.timeout(self._open_timeout_s) as limit:

            async def stamp(data: bytes | str) -> None:
                if self._closed:
                    raise FeedClosed("closed by us")
                self._arrived.append(Frame(data, time.time_ns()))
                if is_status(data):
                    self._answers.hear(data)
                else:
                    self._heard_s = time.monotonic()
                if len(self._arrived) > FRAMES_MAX:
                    self._arrived.popleft()
                    self.dropped_frames += 1
                self._wake.set()
                if self.state != "live":
                    limit.reschedule(None)
                    self._let_in()

            # Deflate would cost a tenth of a core at full rate; the wire is the cheaper resource here.
            options: dict[str, Any] = {"compression": None, "max_size": FRAME_BYTES_MAX, "max_queue": 1024}
            await client.connect(stamp, reconnect_delays=_give_up, open_timeout=self._open_timeout_s, **options)

    def _let_in(self) -> None:
        """The first frame after the key was accepted: the vendor's answer to our subscriptions."""
        self.state, self._heard_s = "live", time.monotonic()
        self._reconnect.connected(self._heard_s)
        log.info("feed_connected", market=self.market, host=self._host, subscriptions=",".join(self.subscriptions))


async def _hang_up(client: WebSocketClient) -> None:
    """Close the socket now: the vendor allows one connection, and the next one must not meet this one."""
    socket = client.websocket
    if socket is not None:
        with contextlib.suppress(Exception):
            async with asyncio.timeout(CLOSE_S_MAX):
                await socket.close()


def _give_up() -> Iterator[float]:
    raise _CannotConnect
    yield 0.0


def _address(url: str, delayed: bool) -> tuple[str, bool]:
    if not url:
        return str((VendorFeed.Delayed if delayed else VendorFeed.RealTime).value), True
    parts = urlsplit(url)
    return parts.netloc + parts.path.rstrip("/"), parts.scheme == "wss"
