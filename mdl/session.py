"""Runs one source's feed: waits for its lease, opens it, watches it, and changes or stops it at runtime.

Invariant: while a lease is required, frames are taken, and anything is published, only while it is certainly ours.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from typing import Any, Protocol

import structlog

from mdl.feeds.catalogue import open_feed, read_key
from mdl.feeds.feed import Feed, FeedRefused, State
from mdl.intake import Intake
from mdl.lease import SourceLease
from mdl.settings import MdlSettings
from mdl.tapes.recorder import Recorder
from service.errors import OperatorError
from service.tasks import Tasks

POLL_S = 0.1  # how soon a lost lease or a changed key file is noticed
STOP_S_MAX = 4.0
NEW_KEY = "Set MDL_API_KEY or MDL_API_KEY_FILE, or POST /feed with an api_key"
NEWS_KEY = "Set MDL_NEWS_KEY or MDL_NEWS_KEY_FILE (empty: the vendor's key is used), or take news out of MDL_FEED"
log = structlog.get_logger()


class Voice(Protocol):
    """Lets a source speak to the queues for one tenure of its lease."""

    async def begin(self, lease: SourceLease | None) -> None:
        """The lease is ours: from now on batches, marks and status may be published."""

    async def end(self) -> None:
        """Publish what is still due if the lease is ours, and fall silent."""


class FeedSession:
    """What the operator wants (`settings`, started or stopped) and what runs. `settings` name one feed."""

    def __init__(
        self,
        settings: MdlSettings,
        intake: Intake,
        recorder: Recorder,
        voice: Voice,
        open_lease: Callable[[MdlSettings], SourceLease | None],
        tasks: Tasks,
    ) -> None:
        self.settings = settings
        self._tasks = tasks
        self.feed: Feed | None = None
        self.lease: SourceLease | None = None
        self.failure: OperatorError | None = None  # why the feed of `settings` cannot even be opened
        self.changed = False  # by an operator at runtime
        self._intake = intake
        self._recorder = recorder
        self._voice = voice
        self._open_lease = open_lease
        self._tenure = 0  # of the lease, in which we are
        self._own_state: State = "connecting"
        self._own_reason = "starting"
        self._reconnects_before = 0
        self._malformed_before = 0
        self._dropped_before = 0
        self._ended = False  # the tape was read to its end: it is not played again by itself
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
        if self.feed is None:
            return self._own_reason
        return f"{self.feed.reason}. {self._new_key}" if self.feed.state == "refused" else self.feed.reason

    @property
    def _new_key(self) -> str:
        return NEWS_KEY if self.settings.feed == "news" else NEW_KEY

    @property
    def ailing(self) -> str:
        """What of the feed's data does not flow although it is live."""
        return self.feed.ailing if self.feed is not None else ""

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
            if not self.running or self._ended:
                await self._stop()
                self._begin()

    async def stop(self) -> None:
        """Stop the feed and give the vendor's connection and the lease back."""
        async with self._changing:
            await self._stop()

    async def change(self, settings: MdlSettings) -> None:
        """Run another feed instead."""
        async with self._changing:
            await self._stop()
            self.settings, self.failure, self.changed = settings, None, True
            self._begin()

    def _begin(self) -> None:
        self._ended = False
        self._say("connecting", "starting")
        self._task = self._tasks.start("feed", self._run(), ends=True)

    async def _stop(self) -> None:
        if self._task is not None:
            self._say("stopped", "stopped by the operator")
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
            while True:
                await self._wait_for_lease()
                await self._serve_tenure()
        except OperatorError as error:
            self.failure = error
            self._say("stopped", str(error))
            log.error("feed_cannot_start", error=str(error))
        finally:
            if self.lease is not None:
                await self.lease.stop()

    async def _serve_tenure(self) -> None:
        """Speak and run the feed until the lease is lost."""
        self._tenure = self.lease.tenure if self.lease is not None else 0
        await self._voice.begin(self.lease)
        try:
            while self._held:
                if self._ended:
                    await self._lease_lost()
                else:
                    await self._run_once()
        finally:
            await self._voice.end()

    async def _run_once(self) -> None:
        """Run the feed until it ends, is refused, or the lease is lost."""
        refused_key = read_key(self.settings)
        self.feed = feed = open_feed(self.settings, self.settings.feed)
        self._intake.lossless = feed.lossless
        try:
            self._ended = await self._receive_while_held(feed)
        except FeedRefused as error:
            self._close_books(feed)
            self._say("refused", f"{error}. {self._new_key}")
            log.error("feed_refused", error=str(error), fix=self._new_key)
            await self._wait_for_key(refused_key)
            return
        finally:
            self._close_books(feed)
        if self._ended:
            self._say("live", "the tape is read; its last events are on their way")
            await self._intake.drained()
            self._say("ended", feed.reason)
            log.info("feed_ended", feed=feed.name)

    async def _receive_while_held(self, feed: Feed) -> bool:
        """Return True when the feed ended by itself, False when the lease was lost."""
        receiving = asyncio.create_task(self._receive(feed))
        losing = asyncio.create_task(self._lease_lost())
        try:
            await asyncio.wait({receiving, losing}, return_when=asyncio.FIRST_COMPLETED)
            if losing.done():
                losing.result()
            return receiving.done() and receiving.result()
        finally:
            losing.cancel()
            receiving.cancel()
            await asyncio.gather(receiving, losing, return_exceptions=True)

    async def _receive(self, feed: Feed) -> bool:
        """Take frames; return True when the feed ended by itself, False when the lease was lost meanwhile."""
        take, recorder = self._intake.take, self._recorder
        frames: Any = aiter(feed)
        try:
            async for frame in frames:
                if not self._held:
                    return False  # a process that was frozen notices here, before it takes anything
                take(frame)
                if recorder.recording:
                    recorder.record(frame)
                if feed.lossless:
                    await self._intake.room()
                if feed.patient:
                    await self._intake.flow()
            return True
        finally:
            await frames.aclose()  # now, not when the collector comes: the vendor's connection must be closed before the next

    @property
    def _held(self) -> bool:
        return self.lease is None or self.lease.holds(self._tenure)

    async def _wait_for_lease(self) -> None:
        while self.lease is not None and not self.lease.held:
            self._say("standby" if not self.lease.mistaken else "refused", self.lease.reason)
            await asyncio.sleep(POLL_S)

    async def _lease_lost(self) -> None:
        while self._held:  # noqa: ASYNC110  # a lease runs out by time, nothing signals it
            await asyncio.sleep(POLL_S)
        assert self.lease is not None
        log.warning("lease_lost", reason=self.lease.reason)

    async def _wait_for_key(self, refused: str) -> None:
        while self._held and read_key(self.settings) == refused:  # noqa: ASYNC110  # a file's change sends no event
            await asyncio.sleep(10 * POLL_S)

    def _close_books(self, feed: Feed) -> None:
        if self.feed is feed:
            self._reconnects_before += feed.reconnects
            self._malformed_before += feed.malformed
            self._dropped_before += feed.dropped_frames
            self.feed = None

    def _say(self, state: State, reason: str) -> None:
        self._own_state, self._own_reason = state, reason
