"""Follows the built-in exchange's message store and passes its trades, quotes and depth on as vendor-shaped frames.

What is guaranteed. The exchange keeps every message until we purge it, and we purge only what the listener has taken, no
sooner than `SETTLE_TICKS` × `PURGE_S` later: by then the broker has confirmed it, unless it is slow or away.
- The exchange dies, restarts, or cuts us: we resume after the last message applied. No trade is lost, none is doubled.
- The listener stops in order, or is given another feed, while the exchange is there: what it has taken is purged, the rest comes
  again. The same.
- The listener is killed: what it took in the last 0.4 s is not purged and comes again, doubled. Nothing is lost, unless the
  broker had not confirmed within 0.2 s.
- The broker is away: we hand nothing over until it is back, the store keeps it. What was under way is lost, and counted, if
  that takes longer than the queues' 5 s; so is what waits for longer than the listener's own bounds.
- Messages purged by somebody else, or a position that the exchange does not know, are a hole: logged and counted in
  `dropped_frames`; the books are read anew and we go on with what the store holds.
Prints that waited in the store are published with their own time, however old.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any, NamedTuple

import structlog
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, WebSocketException

from mdl.feeds.exchange_gateway import Gateway
from mdl.feeds.exchange_market import BadFrame, Cursor, Market, Message, read_frame
from mdl.feeds.feed import FeedClosed, Frame, State
from mdl.feeds.reconnect import Reconnect

PURGE_S = 0.1
SETTLE_TICKS = 2  # purges wait so many of them after the hand-over
PURGE_S_MAX = 1.0  # the last one, when the feed is closed
EVENTS_MAX = 2_000  # between the connection and the listener; then the exchange waits: its journal holds the rest
OPEN_S_MAX = 10.0
PING_S = 5.0  # a connection that is silent for twice as long is dead
MESSAGES_GONE = 4410  # the exchange's close code: what follows our position was purged, or our position is not of this exchange
FRAME_BYTES_MAX = 64 * 1024 * 1024
SAMPLES_MAX = 10
log = structlog.get_logger()


class _Mark(NamedTuple):
    """How far we are: the last message applied, in that life of the cursor."""

    life: int
    message: int | None


class EngineFeed:
    """One message store of one exchange; nobody else may read or purge it. `depth` is in levels a side."""

    lossless = False
    patient = True
    ailing = ""  # an exchange without orders is rightly silent; its connection is pinged, its holes are counted

    def __init__(self, gateway: Gateway, store: str = "mdl", depth: int = 20, dice: Callable[[], float] = random.random) -> None:
        self.name = "engine"
        self.market = "crypto"  # it never closes
        self.subscriptions: tuple[str, ...] = ("*",)
        self.state: State = "connecting"
        self.reason = "not connected yet"
        self.reconnects = 0
        self.dropped_frames = 0
        self._store = store
        self._gateway = gateway
        self._dice = dice
        self._reconnect = Reconnect(self.market)
        self._market = Market(depth)
        self._cursor = Cursor()
        self._bad_frames = 0
        self._strange: set[str] = set()  # symbols that messages name and the exchange does not list
        self._events: list[bytes] = []
        self._first_ns = 0  # when the oldest of them arrived
        self._taken = _Mark(0, None)
        self._purged = _Mark(0, None)
        self._wake, self._room = asyncio.Event(), asyncio.Event()
        self._closed = False

    @property
    def malformed(self) -> int:
        """Frames, trades and levels that could not be used."""
        return self._bad_frames + self._market.malformed

    async def __aiter__(self) -> AsyncIterator[Frame]:
        tasks = [self._task(self._stay_connected()), self._task(self._purge_on_and_on())]
        try:
            while not self._closed:
                for task in tasks:
                    if task.done():
                        task.result()  # neither ends by itself: this raises
                mark = self._mark
                if events := self._collect():
                    yield Frame(b"[" + b",".join(events) + b"]", self._first_ns)
                self._taken = mark  # who asks for the next frame has taken this one
                await self._news()
        finally:
            self._closed = True
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await self._purge_last()

    async def close(self) -> None:
        self._closed = True
        self._wake.set()

    # --- towards the listener

    @property
    def _mark(self) -> _Mark:
        return _Mark(self._cursor.life, self._cursor.index)

    def _collect(self) -> list[bytes]:
        """Return what is to be handed over now."""
        depth = self._market.depth(time.monotonic_ns())
        if not self._events:
            self._first_ns = time.time_ns()
        events, self._events = self._events + depth, []
        self._room.set()
        return events

    async def _news(self) -> None:
        """Wait until there are events, a depth is due, or the feed ends."""
        if not self._events and not self._closed:
            due_ns = self._market.due_ns
            self._wake.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(None if due_ns is None else (due_ns - time.monotonic_ns()) / 1e9):
                    await self._wake.wait()

    def _hand(self, events: list[bytes]) -> None:
        if not self._events:
            self._first_ns = time.time_ns()
        self._events += events
        self._wake.set()

    # --- towards the exchange

    async def _stay_connected(self) -> None:
        while True:
            self.state = "connecting"
            try:
                await self._connect_once()
            except FeedClosed as error:
                pause_s = self._reconnect.lost(time.monotonic(), time.time_ns(), self._dice())
                self.state, self.reason = "connecting", f"{error}; next try in {pause_s:.1f} s"
                log.warning("feed_disconnected", feed=self.name, error=str(error), pause_s=round(pause_s, 2))
            self.reconnects += 1
            await asyncio.sleep(pause_s)

    async def _connect_once(self) -> None:
        """Stay connected as long as it lasts.  Raises: FeedClosed; never returns."""
        await self._gateway.create_store(self._store)
        self._strange.clear()
        await self._read_books()
        url = self._gateway.joined_url(self._store, self._cursor.index)
        try:
            async with connect(
                url, additional_headers=self._gateway.headers, compression=None, proxy=None, open_timeout=OPEN_S_MAX,
                ping_interval=PING_S, ping_timeout=PING_S, close_timeout=1, max_size=FRAME_BYTES_MAX, max_queue=64,
            ) as socket:  # fmt: skip
                self.state, self.reason = "live", ""
                self._reconnect.connected(time.monotonic())
                log.info("feed_connected", feed=self.name, url=url, symbols=len(self._market.symbols))
                await self._receive(socket)
        except (OSError, TimeoutError, WebSocketException) as error:
            raise FeedClosed(f"cannot connect to {url}: {str(error) or type(error).__name__}") from None

    async def _receive(self, socket: ClientConnection) -> None:
        """Take what arrives.  Raises: FeedClosed; never returns."""
        told = ""
        try:
            while True:
                told = await self._take(await socket.recv(decode=False)) or told
        except ConnectionClosed as error:
            if socket.close_code == MESSAGES_GONE:
                self._lost(told)
                self._cursor.restart()
            raise FeedClosed(told or f"the connection was lost: {error}") from None

    async def _take(self, data: bytes) -> str | None:
        """Apply a message; return what the exchange says instead of one."""
        try:
            frame = read_frame(data)
        except BadFrame as error:
            self._bad_frames += 1
            if self._bad_frames <= SAMPLES_MAX:
                log.warning("malformed_frame", feed=self.name, error=str(error), sample=data[:200].decode(errors="replace"))
            return None
        if isinstance(frame, str):
            return frame
        if (verdict := self._cursor.judge(frame)) != "seen":
            if verdict == "hole":
                self._lost(f"message {frame.index} follows {frame.previous}, we were given {self._cursor.index}")
                await self._read_books()
            await self._follow(frame)
        return None

    async def _follow(self, message: Message) -> None:
        if new := self._market.unknown(message) - self._strange:
            await self._learn()
            self._strange |= new - set(self._market.symbols)
        self._hand(self._market.apply(message))
        self._cursor.index = message.index
        while len(self._events) >= EVENTS_MAX:
            self._room.clear()
            await self._room.wait()

    async def _learn(self) -> None:
        """Take symbols in that are new."""
        known = set(self._market.symbols)
        self._market.learn(await self._gateway.instruments())
        for symbol in self._market.symbols:
            if symbol not in known:
                self._hand(self._market.seed(await self._gateway.book(symbol)))

    async def _read_books(self) -> None:
        """Take every book as it is now, and notice when it is not the exchange that we knew."""
        self._market.learn(await self._gateway.instruments())
        newest = -1
        for symbol in self._market.symbols:
            snapshot = await self._gateway.book(symbol)
            newest = max(newest, snapshot.index)
            self._hand(self._market.seed(snapshot))
        if newest >= 0 and self._cursor.meet(newest):
            self._lost(f"the exchange begins anew: its newest command is {newest}")

    def _lost(self, why: str) -> None:
        self.dropped_frames += 1
        log.error("exchange_messages_lost", store=self._store, reason=why[:500], fix="nobody else may purge this store")

    # --- purging

    async def _purge_on_and_on(self) -> None:
        marks: deque[_Mark] = deque(maxlen=SETTLE_TICKS + 1)
        while True:
            await asyncio.sleep(PURGE_S)
            marks.append(self._taken)
            if len(marks) > SETTLE_TICKS and self.state == "live":
                await self._purge(marks[0])

    async def _purge(self, mark: _Mark) -> None:
        if mark.message is None or mark.life != self._cursor.life or mark == self._purged:
            return
        try:
            await self._gateway.purge(self._store, mark.message)
            self._purged = mark
        except FeedClosed as error:
            log.info("purge_failed", feed=self.name, error=str(error))  # the next one purges this, too

    async def _purge_last(self) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(PURGE_S_MAX):
                await self._purge(self._taken)

    def _task(self, body: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(body)
        task.add_done_callback(lambda _: self._wake.set())
        return task
