"""Writes the partitions' changes to the cache, at a pace that adapts to their cost, and acknowledges what is safe.

What is watched leaves every `flush_ms`; everything leaves every `flush_all_ms`, each partition at its own moment.

Invariant: a batch is acknowledged only after a flush that holds all of it was applied.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterable

import structlog

from mdc.connect import CacheUnavailable
from mdc.writer import Outcome, Writer
from mdp.meters import FENCED, LAG, ROUND
from mdp.owned import Owned
from mdp.settings import MdpSettings
from mdp.status import WorkerStats
from mdq.broker import BrokerUnavailable
from service.clock import Clock

PAUSE_S = 0.2  # after a round that the cache did not take
log = structlog.get_logger()


class Flusher:
    """Flushes what `partitions()` returns. `renew` is called when the cache turns out to be older than we know it."""

    def __init__(
        self,
        settings: MdpSettings,
        writer: Writer,
        clock: Clock,
        stats: WorkerStats,
        partitions: Callable[[], Iterable[Owned]],
        on_fault: Callable[[CacheUnavailable], None],
        new_epoch: Callable[[], str],
    ) -> None:
        self.now = asyncio.Event()  # set it, and the next round begins at once
        self._least_s, self._most_s = settings.flush_ms / 1000, settings.flush_ms_max / 1000
        self._all_ns, self._turns = settings.flush_all_ms * 1_000_000, settings.mdq_partitions
        self._writer = writer
        self._clock = clock
        self._stats = stats
        self._partitions = partitions
        self._on_fault = on_fault
        self._new_epoch = new_epoch
        self._flushing = asyncio.Lock()  # an answer must settle the flush that it belongs to

    async def run(self) -> None:
        """Flush until cancelled."""
        pause_s = self._least_s
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause_s):
                    await self.now.wait()
            self.now.clear()
            started_ns = self._clock.mono_ns()
            try:
                await self.flush([owned for owned in self._partitions() if not owned.refused], whole=False)
            except CacheUnavailable as error:
                self._on_fault(error)
                await asyncio.sleep(PAUSE_S)
            took_s = (self._clock.mono_ns() - started_ns) / 1e9
            ROUND.observe(took_s * 1000)
            self._stats.flush_ms = took_s * 1000
            # Under load flush less often, so that flushing takes at most a third of the time: more events share a document.
            pause_s = min(self._most_s, max(self._least_s - took_s, 2 * took_s))
            self._stats.interval_ms = pause_s * 1000

    async def flush(self, many: list[Owned], whole: bool = True) -> None:
        """Flush these partitions; not `whole`: only what is watched of those that are not due.  Raises: CacheUnavailable."""
        async with self._flushing:
            now_ns = self._clock.mono_ns()
            for owned in many:
                self._choose(owned, now_ns, whole)
            await self._flush_all([owned for owned in many if owned.flush or owned.whole or owned.partition.pressing])

    def _choose(self, owned: Owned, now_ns: int, whole: bool) -> None:
        """Decide what the next flush of a partition holds."""
        if owned.flush is not None:
            return  # it is sent again as it is
        hurries = not owned.partition.pressing or owned.partition.hurries
        owned.whole = whole or now_ns >= owned.due_ns or not hurries
        if owned.whole:
            # Each partition has its own moment in the interval: together they would keep the watched ones waiting.
            turn_ns = self._all_ns * (owned.partition.number % self._turns) // self._turns
            owned.due_ns = (now_ns - turn_ns) // self._all_ns * self._all_ns + self._all_ns + turn_ns

    async def _flush_all(self, many: list[Owned]) -> None:
        """Flush each on its own: the cache writes one partition while the next is collected, and none waits for the last."""
        now_ms = self._clock.wall_ns() // 1_000_000
        flushes: list[asyncio.Task[None]] = []
        try:
            for owned in sorted(many, key=_wholeness):  # what is watched goes first
                flushes.append(asyncio.create_task(self._flush_one(owned, now_ms)))
                await asyncio.sleep(0)  # its command leaves, and batches of other partitions come in between
        finally:  # also when we are cancelled: a flush under way must be settled before anybody begins the next
            faults = await asyncio.gather(*flushes, return_exceptions=True)
        for fault in faults:
            if fault is not None:
                raise fault

    async def _flush_one(self, owned: Owned, now_ms: int) -> None:
        partition = owned.partition
        if owned.flush is None:
            owned.flush_oldest_ns, partition.oldest_ns = partition.oldest_ns, {}
            if owned.whole:
                owned.flush_tag = owned.tag
                owned.flush = partition.collect(now_ms)
                owned.positions = partition.positions()
                owned.taken.clear()
            else:
                owned.flush = partition.collect_watched(now_ms)
        if owned.flush is None:
            if owned.whole:
                owned.safe = owned.positions
                await self._acknowledge(owned)
            return
        arguments = owned.flush.arguments(partition.fence, partition.flush_number)
        try:
            [outcome] = await self._writer.write([(partition.number, arguments)])
        except CacheUnavailable:
            owned.failing_ns = owned.failing_ns or self._clock.mono_ns()
            raise
        owned.failing_ns = 0
        await self._settle(owned, outcome)

    async def _settle(self, owned: Owned, outcome: Outcome) -> None:
        if outcome is Outcome.APPLIED:
            owned.flush = None
            self._measure(owned)
            if owned.whole:
                owned.safe = owned.positions
                await self._acknowledge(owned)
            return
        owned.refused = True
        FENCED.inc()
        log.warning("flush_refused", partition=owned.partition.number, outcome=outcome.name)
        if outcome is Outcome.ROLLED_BACK:
            await self._writer.renew(owned.partition.epoch, self._new_epoch())

    def _measure(self, owned: Owned) -> None:
        worst, now_ns = self._stats.lag_ms, self._clock.wall_ns()
        for source, oldest_ns in owned.flush_oldest_ns.items():
            lag_ms = (now_ns - oldest_ns) / 1e6
            LAG.observe(lag_ms)
            worst[source] = max(worst.get(source, 0), round(lag_ms, 1))

    async def _acknowledge(self, owned: Owned) -> None:
        if owned.flush_tag and owned.subscription is not None and owned.subscription.live:
            with contextlib.suppress(BrokerUnavailable):
                await owned.subscription.ack(owned.flush_tag)
        owned.flush_tag = 0


def _wholeness(owned: Owned) -> bool:
    return owned.whole
