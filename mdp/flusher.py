"""Writes the partitions' changes to the cache, at a pace that adapts to their cost, and acknowledges what is safe.

Two loops: what is watched (or urgent) of all partitions leaves together every `flush_ms`; everything of a partition leaves every
`flush_all_ms`, one partition after the other, so that none keeps the watched ones waiting for long. Each takes at most a third
of the time: under load flushes become fewer, and more events share a document.

Invariant: a batch is acknowledged only after a flush that holds all of it was applied.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import defaultdict
from collections.abc import Callable, Coroutine, Iterable
from typing import Any

import structlog

from mdc.connect import CacheUnavailable
from mdc.writer import Outcome, Writer
from mdp.leader.status import WorkerStats
from mdp.meters import FENCED, LAG, ROUND
from mdp.owned import Owned
from mdp.settings import MdpSettings
from mdp.tracing import begin_flush
from mdq.broker import BrokerUnavailable
from service.clock import Clock
from service.tracing import Tracer

PAUSE_S = 0.2  # after a flush that the cache did not take
PAUSE_NS = int(PAUSE_S * 1e9)
log = structlog.get_logger()


class Flusher:
    """Flushes what `partitions()` returns. `new_epoch` names a new life of the cache that turns out to be older than we know."""

    def __init__(
        self,
        settings: MdpSettings,
        writer: Writer,
        clock: Clock,
        stats: WorkerStats,
        partitions: Callable[[], Iterable[Owned]],
        on_fault: Callable[[CacheUnavailable], None],
        new_epoch: Callable[[], str],
        tracer: Tracer | None = None,
    ) -> None:
        self._least_s, self._most_s = settings.flush_ms / 1000, settings.flush_ms_max / 1000
        self._all_ns, self._turns = settings.flush_all_ms * 1_000_000, settings.mdq_partitions
        self._writer = writer
        self._clustered = writer.space.clustered
        self._clock = clock
        self._stats = stats
        self._partitions = partitions
        self._on_fault = on_fault
        self._new_epoch = new_epoch
        self._tracer = tracer
        self._due = asyncio.Event()
        self._locks: defaultdict[int, asyncio.Lock] = defaultdict(asyncio.Lock)  # an answer must settle the flush it belongs to

    def press(self, owned: Owned) -> None:
        """Flush everything of a partition as soon as possible."""
        owned.due_ns = 0
        self._due.set()

    async def run_watched(self) -> None:
        """Flush what is watched until cancelled."""
        pause_s = self._least_s
        while True:
            await asyncio.sleep(pause_s)
            started_ns = self._clock.mono_ns()
            await self._try(self.flush_watched())
            took_s = (self._clock.mono_ns() - started_ns) / 1e9
            pause_s = min(self._most_s, max(self._least_s - took_s, 2 * took_s))
            self._stats.interval_ms = pause_s * 1000

    async def run_whole(self) -> None:
        """Flush everything, one partition after the other, until cancelled."""
        while True:
            owned, turns = await self._next()
            started_ns = self._clock.mono_ns()
            await self._try(self._flush_whole(owned))
            took_s = (self._clock.mono_ns() - started_ns) / 1e9
            ROUND.observe(took_s * 1000)
            self._stats.flush_ms = took_s * 1000
            await asyncio.sleep(min(self._most_s / turns, 2 * took_s))

    async def flush(self, many: list[Owned]) -> None:
        """Flush everything of these partitions.  Raises: CacheUnavailable."""
        for owned in many:
            await self._flush_whole(owned)

    async def flush_watched(self) -> None:
        """Flush what is watched of the partitions that are not being flushed.  Raises: CacheUnavailable."""
        now_ms, sent = self._clock.wall_ns() // 1_000_000, []
        async with contextlib.AsyncExitStack() as held:
            for owned in self._partitions():
                if owned.refused or owned.flush is not None or self._lock(owned).locked() or not owned.partition.pressing:
                    continue
                if not owned.partition.hurries:
                    self.press(owned)
                    continue
                await held.enter_async_context(self._lock(owned))
                owned.whole = False
                owned.flush_oldest_ns, owned.partition.oldest_ns = owned.partition.oldest_ns, {}
                owned.flush = owned.partition.collect_watched(now_ms)
                if owned.flush is not None:
                    begin_flush(owned, self._tracer, self._clock)
                    sent.append(owned)
            await self._send(sent)

    def _lock(self, owned: Owned) -> asyncio.Lock:
        return self._locks[owned.partition.number]

    async def _try(self, flush: Coroutine[Any, Any, None]) -> None:
        try:
            await flush
        except CacheUnavailable as error:
            self._on_fault(error)
            if not self._clustered:  # there each partition waits alone
                await asyncio.sleep(PAUSE_S)

    async def _next(self) -> tuple[Owned, int]:
        """Wait until a partition is due; return the one that waits for longest, and how many take turns."""
        while True:
            now_ns = self._clock.mono_ns()
            mine = [owned for owned in self._partitions() if not owned.refused and owned.again_ns <= now_ns]
            first = min(mine, key=_due_ns, default=None)
            if first is not None and first.due_ns <= now_ns:
                return first, len(mine)
            due_s = self._least_s if first is None else (first.due_ns - now_ns) / 1e9
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(min(self._least_s, due_s)):
                    await self._due.wait()
            self._due.clear()

    async def _flush_whole(self, owned: Owned) -> None:
        async with self._lock(owned):
            await self._send([owned])  # whose answer was lost: again, unchanged, before anything else
            if owned.refused:
                return
            now_ns, partition = self._clock.mono_ns(), owned.partition
            # Each partition has its own moment in the interval.
            turn_ns = self._all_ns * (partition.number % self._turns) // self._turns
            owned.due_ns = (now_ns - turn_ns) // self._all_ns * self._all_ns + self._all_ns + turn_ns
            owned.whole, owned.flush_tag = True, owned.tag
            owned.flush_oldest_ns, partition.oldest_ns = partition.oldest_ns, {}
            owned.flush = partition.collect(self._clock.wall_ns() // 1_000_000)
            begin_flush(owned, self._tracer, self._clock)
            owned.positions = partition.positions()
            owned.taken.clear()
            owned.waiting = 0
            if owned.flush is None:
                await self._applied(owned)
            await self._send([owned])

    async def _send(self, many: list[Owned]) -> None:
        """Send the flushes of these partitions and settle them.  Raises: CacheUnavailable (send them again, unchanged)."""
        sent = [(owned, owned.flush) for owned in many if owned.flush is not None]
        if not sent:
            return
        parts = [(owned.partition, flush) for owned, flush in sent]
        flushes = [self._writer.call(flush, part.fence, part.flush_number) for part, flush in parts]
        try:
            outcomes = await self._writer.write(flushes)
        except CacheUnavailable:
            for owned, _ in sent:
                self._failed(owned)
            raise
        fault: CacheUnavailable | None = None  # of one node of a cluster; what the others took is settled first
        for (owned, _), outcome in zip(sent, outcomes, strict=True):
            if isinstance(outcome, CacheUnavailable):
                self._failed(owned)
                fault = outcome
                continue
            owned.failing_ns = 0
            await self._settle(owned, outcome)
        if fault is not None:
            raise fault

    def _failed(self, owned: Owned) -> None:
        now_ns = self._clock.mono_ns()
        owned.failing_ns = owned.failing_ns or now_ns
        if self._clustered:
            owned.again_ns = now_ns + PAUSE_NS

    async def _settle(self, owned: Owned, outcome: Outcome) -> None:
        if outcome is Outcome.APPLIED:
            owned.flush = None
            self._measure(owned)
            if owned.whole:
                await self._applied(owned)
            return
        owned.refused = True
        FENCED.inc()
        log.warning("flush_refused", partition=owned.partition.number, outcome=outcome.name)
        if outcome is Outcome.ROLLED_BACK:
            await self._writer.renew(owned.partition.epoch, self._new_epoch(), owned.partition.number)

    def _measure(self, owned: Owned) -> None:
        if owned.span is not None:
            owned.span.end(self._clock.wall_ns())
            owned.span = None
        worst, now_ns = self._stats.lag_ms, self._clock.wall_ns()
        for source, oldest_ns in owned.flush_oldest_ns.items():
            lag_ms = (now_ns - oldest_ns) / 1e6
            LAG.observe(lag_ms)
            worst[source] = max(worst.get(source, 0), round(lag_ms, 1))

    async def _applied(self, owned: Owned) -> None:
        """Everything up to the flush's positions is in the cache: acknowledge what stood for it."""
        owned.safe = owned.positions
        if owned.flush_tag and owned.subscription is not None and owned.subscription.live:
            with contextlib.suppress(BrokerUnavailable):
                await owned.subscription.ack(owned.flush_tag)
        owned.flush_tag = 0


def _due_ns(owned: Owned) -> int:
    return owned.due_ns
