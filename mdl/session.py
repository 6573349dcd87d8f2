"""Settings in, one running feed (or group of feeds) at a time out: opened, leased, watched, changed and stopped at runtime.

Invariant: while a lease is required, frames are taken only while it is certainly ours.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from typing import Any

import structlog

from mdl.feeds.catalogue import open_feeds, read_key
from mdl.feeds.feed import Feed, FeedRefused, State
from mdl.feeds.group import FeedGroup
from mdl.intake import Intake
from mdl.lease import MarketLease
from mdl.settings import MdlSettings
from mdl.tapes.recorder import Recorder
from service.errors import OperatorError
from service.tasks import Tasks

POLL_S = 0.1  # how soon a lost lease or a changed key file is noticed
STOP_S_MAX = 4.0
NEW_KEY = "Set MDL_API_KEY or MDL_API_KEY_FILE, or POST /feed with an api_key"
log = structlog.get_logger()


class FeedSession:
    """What the operator wants (`settings`, started or stopped) and what runs. `open_lease` makes the lease of a market."""

    def __init__(
        self, settings: MdlSettings, intake: Intake, recorder: Recorder,
        open_lease: Callable[[MdlSettings], MarketLease | None], tasks: Tasks,
    ) -> None:  # fmt: skip
        self.settings = settings
        self._tasks = tasks
        self.feed: FeedGroup | None = None
        self.lease: MarketLease | None = None
        self.failure: OperatorError | None = None  # why the feed of `settings` cannot even be opened
        self.changed = False  # by an operator at runtime
        self._intake = intake
        self._recorder = recorder
        self._open_lease = open_lease
        self._own_state: State = "connecting"
        self._own_reason = "starting"
        self._reconnects_before = 0
        self._malformed_before = 0
        self._dropped_before = 0
        self._task: asyncio.Task[None] | None = None
        self._changing = asyncio.Lock()

    @property
    def running(self) -> bool:
        """Whether a feed is wanted and looked after, in whatever state it is."""
        return self._task is not None and not self._task.done()

    @property
    def state(self) -> State:
        return self.feed.state if self.feed is not None else self._own_state

    @property
    def reason(self) -> str:
        return self.feed.reason if self.feed is not None else self._own_reason

    @property
    def ailing(self) -> list[str]:
        """What to tell of feeds that have failed while others of the group go on."""
        return self.feed.ailing if self.feed is not None else []

    @property
    def reconnects(self) -> int:
        return self._reconnects_before + (self.feed.reconnects if self.feed else 0)

    @property
    def malformed(self) -> int:
        """Lines of a tape that were no frames."""
        return self._malformed_before + (self.feed.malformed if self.feed else 0)

    @property
    def dropped_frames(self) -> int:
        """Frames the feed itself had to drop, and holes in what the exchange had kept for it."""
        return self._dropped_before + (self.feed.dropped_frames if self.feed else 0)

    async def start(self) -> None:
        """Start the feed of `settings`; nothing happens when one runs."""
        async with self._changing:
            if not self.running:
                self._say("connecting", "starting")
                self._task = self._tasks.start("feed", self._run(), ends=True)

    async def stop(self) -> None:
        """Stop the feed and give the vendor's connection and the lease back."""
        async with self._changing:
            await self._stop()

    async def change(self, settings: MdlSettings) -> None:
        """Run another feed instead.  Raises: OperatorError when it cannot be opened; then the old one goes on."""
        if "replay" in settings.feeds:
            open_feeds(settings)  # probes the tape; nothing is started
        async with self._changing:
            await self._stop()
            self.settings, self.failure, self.changed = settings, None, True
            self._say("connecting", "starting")
            self._task = self._tasks.start("feed", self._run(), ends=True)

    async def _stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.wait({self._task}, timeout=STOP_S_MAX)
        self._task = None
        self._say("stopped", "stopped by the operator")

    async def _run(self) -> None:
        try:
            self.lease = self._open_lease(self.settings)
            if self.lease is not None:
                self.lease.start()
            while await self._run_once():
                pass
        except OperatorError as error:
            self.failure = error
            self._say("stopped", str(error))
            log.error("feed_cannot_start", error=str(error))
        finally:
            if self.lease is not None:
                await self.lease.stop()

    async def _run_once(self) -> bool:
        """Run the feed until it ends, is refused, or the lease is lost; return whether to run it again."""
        await self._wait_for_lease()
        refused_key = read_key(self.settings)
        self.feed = feed = open_feeds(self.settings)
        self._intake.lossless = feed.lossless
        try:
            ended = await self._receive_while_held(feed)
        except FeedRefused as error:
            self._close_books(feed)
            self._say("refused", f"{error}. {NEW_KEY}")
            log.error("feed_refused", error=str(error), fix=NEW_KEY)
            await self._wait_for_key(refused_key)
            return True
        finally:
            self._close_books(feed)
        if ended:
            self._say("live", "the tape is read; its last events are on their way")
            await self._intake.drained()
            self._say("ended", feed.reason)
            log.info("feed_ended", feed=feed.name)
        return not ended

    async def _receive_while_held(self, feed: FeedGroup) -> bool:
        """Return True when the feed ended by itself, False when the lease was lost."""
        receiving = asyncio.create_task(feed.run(self._receive))
        losing = asyncio.create_task(self._lease_lost())
        try:
            await asyncio.wait({receiving, losing}, return_when=asyncio.FIRST_COMPLETED)
            if receiving.done():
                receiving.result()
            elif losing.done():
                losing.result()
            return receiving.done()
        finally:
            losing.cancel()
            receiving.cancel()
            await asyncio.gather(receiving, losing, return_exceptions=True)

    async def _receive(self, feed: Feed) -> None:
        take, recorder = self._intake.take, self._recorder
        frames: Any = aiter(feed)
        try:
            async for frame in frames:
                take(frame)
                if recorder.recording:
                    recorder.record(frame)
                if feed.lossless:
                    await self._intake.room()
                if feed.patient:
                    await self._intake.flow()
        finally:
            await frames.aclose()  # now, not when the collector comes: the vendor's connection must be closed before the next

    async def _wait_for_lease(self) -> None:
        while self.lease is not None and not self.lease.held:
            self._say("standby", self.lease.reason)
            await asyncio.sleep(POLL_S)

    async def _lease_lost(self) -> None:
        while self.lease is None or self.lease.held:  # noqa: ASYNC110  # a lease runs out by time, nothing signals it
            await asyncio.sleep(POLL_S)
        log.warning("lease_lost", reason=self.lease.reason)

    async def _wait_for_key(self, refused: str) -> None:
        while read_key(self.settings) == refused:  # noqa: ASYNC110  # a file's change sends no event
            await asyncio.sleep(10 * POLL_S)

    def _close_books(self, feed: FeedGroup) -> None:
        if self.feed is feed:
            self._reconnects_before += feed.reconnects
            self._malformed_before += feed.malformed
            self._dropped_before += feed.dropped_frames
            self.feed = None

    def _say(self, state: State, reason: str) -> None:
        self._own_state, self._own_reason = state, reason
