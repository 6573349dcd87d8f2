"""Publishes a source's events in confirmed batches: the shell around `Batcher` that knows the broker, clock and timer.

Invariant: a batch is published again, with the same `seq`, until it is confirmed or too old: at least once, and the
consumer skips what it has seen. Nothing, no mark either, leaves while `permit` says no. `add` never waits; a source that
must not lose anything asks `full` or `await room()`.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial

import structlog

from mdq.batch import new_epoch
from mdq.batcher import Batcher, Limits, Sent
from mdq.broker import Broker, BrokerUnavailable
from mdq.topology import PARTITIONED, SINGLE, Queue, all_queues
from service.clock import Clock, SystemClock
from service.tasks import Tasks

MARK_NS = 1_000_000_000
TELL_NS = 5_000_000_000  # one line about losses in so long
TICK_S = 0.1  # how soon a reconnect is noticed and age is looked at; confirmations and linger do not wait for it

log = structlog.get_logger()


class Publisher:
    """Batches events per (stream, partition) and publishes them to a connected broker; one a source and epoch.

    `permit()` is asked before anything is handed to the broker: a source whose lease has run out may not speak.
    """

    def __init__(
        self,
        broker: Broker,
        partitions: int,
        source: str,
        epoch: str | None = None,
        clock: Clock | None = None,
        limits: Limits | None = None,
        lossless: bool = False,
        permit: Callable[[], bool] = lambda: True,
        market: str = "",
    ) -> None:
        self.broker = broker
        self.source = source
        self.feed_ns: int | None = 0  # a tape's clock now; None = the wall clock, 0 = nothing has come yet that could say
        self._permit = permit
        self.partitions = partitions
        self.clock = clock or SystemClock()
        self.epoch = epoch or new_epoch(self.clock.wall_ns(), random.random())
        self.batcher = Batcher(source, self.epoch, limits, lossless, market)
        self._valid = {(stream, p) for stream in PARTITIONED for p in range(partitions)} | {(stream, 0) for stream in SINGLE}
        self.batcher.announce(sorted(self._valid))
        self._linger: asyncio.TimerHandle | None = None
        self._tasks = Tasks("publisher")
        self._room = asyncio.Event()
        self._marked_ns = 0
        self._online = False
        self._told_events = 0  # dropped events that the log knows of
        self._tell_ns = 0

    @property
    def full(self) -> bool:
        """Whether the source should hold its events back for now (`add` still takes them, up to its own bound)."""
        return self.batcher.full

    @property
    def lossless(self) -> bool:
        """Whether nothing may be dropped by age or bytes; then `full` is the only brake. May be changed at any time."""
        return self.batcher.lossless

    @lossless.setter
    def lossless(self, value: bool) -> None:
        self.batcher.lossless = value

    @property
    def published(self) -> Counter[str]:
        """Confirmed events by stream."""
        return self.batcher.published

    @property
    def dropped(self) -> Counter[str]:
        """Events by stream given up here: too old, or too many bytes while the broker was away."""
        return self.batcher.dropped

    @property
    def pending_events(self) -> int:
        """Events taken in and neither confirmed nor dropped.  Cost: a walk over at most 64 batches and the open ones."""
        return self.batcher.pending_events

    @property
    def queues(self) -> list[Queue]:
        """The queues used so far."""
        return self.batcher.queues

    async def start(self) -> None:
        """Declare every queue of the deployment and begin.  Raises: OperatorError, BrokerUnavailable."""
        await self.broker.declare(all_queues(self.partitions))
        self._tasks.start("ticker", self._tick())

    def add(self, stream: str, partition: int, events: Sequence[bytes], first_ns: int, feed_ns: int | None = None) -> None:
        """Take bytes-like events of one (stream, partition), received at wall clock `first_ns` or later; never waits.

        `feed_ns` is a tape's time of the last of them; None = they are live.
        """
        assert (stream, partition) in self._valid, f"no queue for stream {stream!r} partition {partition}"
        if self.batcher.add(stream, partition, events, first_ns, self.clock.mono_ns(), feed_ns):
            self._pump()
        elif self._linger is None:
            self._arm()

    def begin_run(self, run: int) -> None:
        """A tape begins: what follows is another run, never in one batch with what came before."""
        self.batcher.begin_run(run, self.clock.wall_ns())
        self._pump()

    async def room(self) -> None:
        """Wait until the publisher is not `full`."""
        while self.full:
            self._room.clear()
            await self._room.wait()

    async def drain(self, seconds: float = 2.0) -> bool:
        """Publish what is open and wait for the confirmations; return whether all arrived in time."""
        deadline_ns = self.clock.mono_ns() + int(seconds * 1e9)
        while self.batcher.pending_events and self.clock.mono_ns() < deadline_ns:
            self._pump(flush=True)
            await asyncio.sleep(0.002)
        return not self.batcher.pending_events

    async def close(self, seconds: float = 2.0) -> None:
        """Drain for at most `seconds`, send a last mark so that consumers see the end, stop. The broker stays open."""
        await self.drain(seconds)
        await self._tasks.close()
        if self._online_now:
            self._mark()
        if self._linger is not None:
            self._linger.cancel()
        if lost := self.batcher.abandon():
            log.warning("publisher_closed_with_events", lost_events=lost)

    # --- the loop's side

    @property
    def _online_now(self) -> bool:
        return self.broker.ready and self._permit()

    def _pump(self, flush: bool = False) -> None:
        now_ns, wall_ns, online = self.clock.mono_ns(), self.clock.wall_ns(), self._online_now
        self.batcher.close_due(now_ns, wall_ns, online, flush)
        if online:
            if not self._online:
                self.batcher.expire(now_ns)  # back after an outage: what has become too old meanwhile stays here
            for sent in self.batcher.take():
                self.broker.publish(sent.batch).add_done_callback(partial(self._done, sent))
        self._online = online
        if not self.batcher.full:
            self._room.set()
        self._arm()

    def _done(self, sent: Sent, future: asyncio.Future[None]) -> None:
        if future.cancelled() or future.exception() is not None:
            self.batcher.failed(sent)  # the next tick publishes it again, when the broker is there
            return
        had_room = self.batcher.room
        self.batcher.confirmed(sent)
        if not had_room:  # what became due meanwhile has waited for this
            self._pump()

    def _arm(self) -> None:
        due_ns = self.batcher.due_ns if self._online_now else None
        if due_ns is None or self._linger is not None:
            return
        delay_s = max(0, due_ns - self.clock.mono_ns()) / 1e9
        self._linger = asyncio.get_running_loop().call_later(delay_s, self._on_linger)

    def _on_linger(self) -> None:
        self._linger = None
        self._pump()

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(TICK_S)
            now_ns = self.clock.mono_ns()
            self.batcher.expire(now_ns, self._online_now)
            self._tell_losses(now_ns)
            self._pump()
            if self._online_now and now_ns - self._marked_ns >= MARK_NS:
                self._marked_ns = now_ns
                self._mark()

    def _tell_losses(self, now_ns: int) -> None:
        lost = self.dropped.total() - self._told_events
        if lost and now_ns >= self._tell_ns:
            log.warning("publisher_dropped_events", lost_events=lost, reason=self.broker.fault or "not confirmed in time")
            self._told_events += lost
            self._tell_ns = now_ns + TELL_NS

    def _mark(self) -> None:
        for batch in self.batcher.marks(self.clock.wall_ns(), self.feed_ns):
            self.broker.publish(batch).add_done_callback(_ignore)


def _ignore(future: asyncio.Future[None]) -> None:
    # A lost mark is made good by the next one; asking for the exception keeps asyncio from reporting it as forgotten.
    if not future.cancelled():
        future.exception()


__all__ = ["BrokerUnavailable", "Limits", "Publisher"]
