"""Batches of the partitions we own in, flushes to the cache out: the shell around partition.py, ownership.py and the writer.

Invariant: a batch is acknowledged only after the flush that holds it was applied; what we lose ownership of we forget.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from dataclasses import dataclass, field
from typing import Any

import msgspec
import structlog

from mdc import keys
from mdc.connect import AWAY, CacheUnavailable, check_cache, open_cache
from mdc.writer import Flush, Outcome, Writer
from mdp import roster
from mdp.leader import BOARDS_EVERY_S, STATS, STATUS_EVERY_S, Leader
from mdp.ownership import BEAT_S, Ownership, Share
from mdp.partition import Partition
from mdp.reference import Reference, read_reference
from mdp.settings import MdpSettings
from mdp.status import WorkerStats
from mdq.broker import Broker, BrokerUnavailable, Delivery, Subscription
from mdq.connect import open_broker
from mdq.gaps import Position
from mdq.progress import EVERY_S, Progress, to_batch
from mdq.topology import all_queues, progress_queue, queues_of
from service import logs, metrics
from service.admin import AdminServer
from service.clock import Clock, SystemClock
from service.run import Shutdown, wait_for
from service.settings import admin_token, shown

log = structlog.get_logger()
BUSY_NS_MAX = 500_000_000  # what a beat may spend on loading and subscribing partitions: a quarter of a lease
LAG = metrics.histogram("mdp", "receive_to_cache_ms", "Age of the oldest event of a flush when the cache had it")
ROUND = metrics.histogram("mdp", "flush_ms", "Duration of a flush round, collecting and writing")
EVENTS = metrics.counter("mdp", "events", "Events processed", ["stream"])
LOST = metrics.counter("mdp", "lost_events", "Events missing by sequence numbers", ["stream", "reason"])
BAD = metrics.counter("mdp", "bad_events", "Events that could not be used")
REDELIVERED = metrics.counter("mdp", "redelivered_events", "Events skipped because the checkpoint holds them already")
UNKNOWN = metrics.counter("mdp", "unknown_events", "Events of unknown types")
OWNED = metrics.gauge("mdp", "partitions", "Partitions owned")
FENCED = metrics.counter("mdp", "fenced_flushes", "Flushes refused because another worker owns the partition")


@dataclass(slots=True)
class Owned:
    """A partition of ours: its state, the queues we read it from and the flush under way."""

    partition: Partition
    subscription: Subscription | None = None
    tag: int = 0  # newest delivery taken
    flush: Flush | None = None  # collected, not yet applied: sent again unchanged until the cache says what became of it
    flush_tag: int = 0
    flush_oldest_ns: int = 0
    refused: bool = False  # a flush was refused; the next beat decides what to do
    positions: list[tuple[str, str, Position]] = field(default_factory=list)  # of the flush under way
    safe: list[tuple[str, str, Position]] = field(default_factory=list)  # of the last flush that was applied
    taken: dict[str, int] = field(default_factory=dict)  # stream → batches taken since the last flush was collected


class Worker:
    """One processor. `run()` until `shutdown`; then it hands its partitions over."""

    def __init__(self, settings: MdpSettings, broker: Broker, redis: Any, clock: Clock, shutdown: Shutdown) -> None:
        self.name = settings.worker or f"mdp-{secrets.token_hex(4)}"
        self.owned: dict[int, Owned] = {}
        self._settings = settings
        self._broker = broker
        self._redis = redis
        self._clock = clock
        self._shutdown = shutdown
        self._reference: Reference = read_reference(settings.reference)
        self._writer = Writer(redis)
        self._ownership = Ownership(redis, self.name, settings.mdq_partitions)
        self._leader = Leader(redis, self._writer, settings.mdq_partitions, settings.board_rows)
        self._epoch = ""
        self._cache_up = False
        self._flush_now = asyncio.Event()
        self._stats = WorkerStats(self.name, 0)
        self._metered: dict[int, dict[str, int]] = {}
        self._flushing = asyncio.Lock()  # an answer must settle the flush that it belongs to

    async def run(self) -> None:
        """Own, process, flush; on shutdown flush a last time and release everything."""
        loops = [asyncio.create_task(loop()) for loop in (self._beats, self._flushes, self._leads, self._reports)]
        stop = asyncio.create_task(self._shutdown.wait())
        try:
            done, _ = await asyncio.wait([*loops, stop], return_when=asyncio.FIRST_COMPLETED)
        finally:  # cancelled ourselves, too: nothing of us may go on in the background
            await _end([*loops, stop])
        for task in done - {stop}:
            task.result()  # a loop that ended by itself ends the process: its supervisor starts it again
        await self._hand_over(list(self.owned))
        with contextlib.suppress(CacheUnavailable):
            await self._ownership.beat(claim=False)
        with contextlib.suppress(*AWAY):
            await self._redis.hdel(STATS, self.name)

    def not_ready(self) -> list[str]:
        """Return why no data can flow through this worker now; [] when it can."""
        reasons = []
        if not self._broker.ready:
            reasons.append("RabbitMQ is not connected")
        if not self._cache_up:
            reasons.append("Redis does not answer")
        if self._stats.lag_ms > 5_000:
            reasons.append(f"lag {self._stats.lag_ms:.0f} ms is above 5000 ms")
        return reasons

    # ---- 1. ownership

    async def _beats(self) -> None:
        while True:
            try:
                await self._beat()
                self._cache_up = True
            except CacheUnavailable as error:
                if self._cache_up:
                    log.warning("cache_lost", error=str(error))
                self._cache_up = False
            except BrokerUnavailable as error:
                log.warning("broker_lost", error=str(error))
            await asyncio.sleep(BEAT_S)

    async def _beat(self) -> None:
        self._epoch = await self._writer.open(_new_epoch(self._clock), self._settings.mdq_partitions)
        share = await self._ownership.beat(remembered=self.owned)
        for number in [number for number in self.owned if number not in share.owned]:
            await self._drop(number, "another worker took it over")
        before_ns = self._clock.mono_ns() + BUSY_NS_MAX
        for number, fence in share.owned.items():
            await self._keep(number, fence)
            if self._clock.mono_ns() > before_ns:
                break  # the leases are due; what is left follows after the next beat
        if share.surplus:
            await self._hand_over(sorted(self.owned)[-share.surplus :])
        await self._tell(share)

    async def _keep(self, number: int, fence: int) -> None:
        """Make what we hold of a partition agree with the cache, which says that it is ours."""
        owned = self.owned.get(number)
        if owned is not None and owned.partition.epoch == self._epoch and fence > owned.partition.fence + 1:
            await self._drop(number, "it was another worker's in between")  # who has written to the cache what we do not know
            owned = None
        if owned is None:
            owned = self.owned[number] = Owned(await self._load(number, fence))
            owned.safe = owned.partition.positions()
            log.info("partition_claimed", partition=number, fence=fence)
        elif owned.partition.epoch != self._epoch:
            owned.flush = None  # everything in it is written again by the rewrite
            owned.partition.rewrite(fence, self._epoch)
            log.info("partition_rewritten", partition=number, epoch=self._epoch)
        owned.partition.fence = fence
        owned.refused = False
        if owned.subscription is None or not owned.subscription.live:
            await self._subscribe(owned)

    async def _load(self, number: int, fence: int) -> Partition:
        analyzers = roster.build(self._settings.analyzer_names, self._reference, self._settings.board_rows)
        partition = Partition(number, fence, self._epoch, analyzers)
        try:
            cells = await self._redis.hgetall(keys.checkpoint(number))
        except AWAY as error:
            raise CacheUnavailable(str(error)) from None
        if cells:
            partition.restore(cells)
            if cells.get(b"life") != self._epoch.encode():  # of before the cache was rolled back: still the best there is
                partition.rewrite(fence, self._epoch)
        return partition

    async def _subscribe(self, owned: Owned) -> None:
        if not self._broker.ready:
            return
        partition, clock = owned.partition, self._clock
        if owned.subscription is not None:
            await owned.subscription.close()
        owned.tag = owned.flush_tag = 0  # tags of a lost connection mean nothing; what they stood for comes again

        taken, early = owned.taken, self._settings.prefetch * 3 // 4

        def on_delivery(delivery: Delivery) -> None:
            batch = delivery.batch
            partition.on_batch(batch, delivery.redelivered, clock.wall_ns())
            owned.tag = delivery.tag
            taken[batch.stream] = taken.get(batch.stream, 0) + 1
            if taken[batch.stream] >= early:
                self._flush_now.set()  # or the queue stands still until the next flush acknowledges

        queues = queues_of(partition.number)
        owned.subscription = await self._broker.subscribe(queues, on_delivery, partition.on_malformed, self._settings.prefetch)

    async def _drop(self, number: int, why: str) -> None:
        """Forget a partition that is not ours any more; its unacknowledged batches go to the new owner."""
        owned = self.owned.pop(number)
        self._metered.pop(number, None)
        log.warning("partition_lost", partition=number, why=why)
        if owned.subscription is not None:
            await owned.subscription.close()

    async def _hand_over(self, numbers: list[int]) -> None:
        """Give partitions to others without a loss: stop reading, flush, acknowledge, release."""
        leaving = [self.owned[number] for number in numbers]
        for owned in leaving:
            if owned.subscription is not None:
                with contextlib.suppress(BrokerUnavailable):
                    await owned.subscription.pause()
        try:
            for _ in range(2):  # one whose answer was lost may be waiting; the second one holds the rest
                await self._flush(leaving)
        except CacheUnavailable as error:
            log.warning("hand_over_without_flush", error=str(error))  # the next owner gets the batches again
        for number in numbers:
            owned = self.owned.pop(number)
            self._metered.pop(number, None)
            if owned.subscription is not None:
                await owned.subscription.close()
            with contextlib.suppress(CacheUnavailable):
                await self._ownership.release(number)
            log.info("partition_released", partition=number)

    async def _tell(self, share: Share) -> None:
        stats, now_ms = self._stats, self._clock.wall_ns() // 1_000_000
        OWNED.set(len(self.owned))
        if now_ms - stats.ts < 900:
            return
        stats.ts, stats.partitions = now_ms, len(self.owned)
        try:
            await self._redis.hset(STATS, self.name, msgspec.json.encode(stats))
            await self._redis.pexpire(STATS, 60_000)
        except AWAY as error:
            raise CacheUnavailable(str(error)) from None
        stats.lag_ms = 0
        self._meter()

    # ---- 2. flushing

    async def _flushes(self) -> None:
        least, most = self._settings.flush_ms / 1000, self._settings.flush_ms_max / 1000
        pause = least
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await self._flush_now.wait()
            self._flush_now.clear()
            started = self._clock.mono_ns()
            try:
                await self._flush([owned for owned in self.owned.values() if not owned.refused])
            except CacheUnavailable as error:
                if self._cache_up:
                    log.warning("flush_waits_for_cache", error=str(error))
                self._cache_up = False
                await asyncio.sleep(0.2)
            took = (self._clock.mono_ns() - started) / 1e9
            ROUND.observe(took * 1000)
            self._stats.flush_ms = took * 1000
            # Under load flush less often, so that flushing takes at most a third of the time: more events share a document.
            pause = min(most, max(least - took, 2 * took))
            self._stats.interval_ms = pause * 1000

    async def _flush(self, many: list[Owned]) -> None:
        async with self._flushing:
            await self._flush_all(many)

    async def _flush_all(self, many: list[Owned]) -> None:
        """Flush each on its own: the cache writes one partition while the next is collected, and none waits for the last."""
        now_ms = self._clock.wall_ns() // 1_000_000
        flushes: list[asyncio.Task[None]] = []
        try:
            for owned in many:
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
            owned.flush_tag, owned.flush_oldest_ns = owned.tag, min(partition.oldest_ns.values(), default=0)
            owned.flush = partition.collect(now_ms)
            partition.oldest_ns = {}
            owned.positions = partition.positions()
            owned.taken.clear()
        if owned.flush is None:
            owned.safe = owned.positions
            await self._acknowledge(owned)
            return
        arguments = owned.flush.arguments(partition.fence, partition.flush_number)
        [outcome] = await self._writer.write([(partition.number, arguments)])
        await self._settle(owned, outcome)

    async def _settle(self, owned: Owned, outcome: Outcome) -> None:
        if outcome is Outcome.APPLIED:
            owned.flush, owned.safe = None, owned.positions
            if owned.flush_oldest_ns:
                lag_ms = (self._clock.wall_ns() - owned.flush_oldest_ns) / 1e6
                LAG.observe(lag_ms)
                self._stats.lag_ms = max(self._stats.lag_ms, lag_ms)
            await self._acknowledge(owned)
            return
        owned.refused = True
        FENCED.inc()
        log.warning("flush_refused", partition=owned.partition.number, outcome=outcome.name)
        if outcome is Outcome.ROLLED_BACK:
            await self._writer.renew(owned.partition.epoch, _new_epoch(self._clock))

    async def _acknowledge(self, owned: Owned) -> None:
        if owned.flush_tag and owned.subscription is not None and owned.subscription.live:
            with contextlib.suppress(BrokerUnavailable):
                await owned.subscription.ack(owned.flush_tag)
        owned.flush_tag = 0

    # ---- 3. what is merged over partitions

    async def _leads(self) -> None:
        status_at = 0.0
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(max(BOARDS_EVERY_S, self._stats.interval_ms / 1000))
            zero = self.owned.get(0)
            if zero is None or zero.refused:
                continue
            due = loop.time() >= status_at
            try:
                await self._leader.publish(zero.partition, self._clock.wall_ns() // 1_000_000, due)
            except CacheUnavailable:
                continue
            if due:
                status_at = loop.time() + STATUS_EVERY_S

    # ---- 4. what a lossless source paces itself by

    async def _reports(self) -> None:
        seq = 0
        while True:
            await asyncio.sleep(EVERY_S)
            if self.owned and self._broker.ready:
                positions = [(source, stream, p, at) for p, owned in self.owned.items() for source, stream, at in owned.safe]
                reading = [p for p, owned in self.owned.items() if owned.subscription is not None and owned.subscription.live]
                report = to_batch(Progress(self.name, reading, positions), seq, self._clock.wall_ns())
                self._broker.publish(report).add_done_callback(_ignore)
                seq += 1

    def _meter(self) -> None:
        """Carry the partitions' counts into Prometheus: only what was added since the last time."""
        for number, owned in self.owned.items():
            counts, before = owned.partition.counts, self._metered.get(number)
            after = {"bad": counts.bad, "redelivered": counts.redelivered, "unknown": sum(counts.unknown.values())}
            for reason, by_stream in (("", counts.events), ("expired", counts.expired), ("dropped", counts.dropped)):
                after |= {f"{reason}:{stream}": n for stream, n in by_stream.items()}
            self._metered[number] = after
            if before is None:
                continue  # what earlier owners counted is theirs
            for name, n in after.items():
                _carry(name, n - before.get(name, 0))


async def _end(tasks: list[asyncio.Task[Any]]) -> None:
    """Cancel until all have ended: Python 3.11's wait_for swallows a cancellation that meets its result."""
    while left := [task for task in tasks if not task.done()]:
        for task in left:
            task.cancel()
        await asyncio.wait(left, timeout=0.5)


def _ignore(future: asyncio.Future[None]) -> None:
    if not future.cancelled():
        future.exception()  # a lost report is made good by the next one


def _carry(name: str, more: int) -> None:
    if more <= 0:
        return
    reason, _, stream = name.partition(":")
    if name in ("bad", "redelivered", "unknown"):
        {"bad": BAD, "redelivered": REDELIVERED, "unknown": UNKNOWN}[name].inc(more)
    elif reason:
        LOST.labels(stream, reason).inc(more)
    else:
        EVENTS.labels(stream).inc(more)


def _new_epoch(clock: Clock) -> str:
    return f"{clock.wall_ns() // 1_000_000:x}{secrets.token_hex(2)}"


async def run(settings: MdpSettings, shutdown: Shutdown, broker: Broker | None = None) -> None:
    """Run one worker until `shutdown`: connect, own, process, hand over.  Raises: OperatorError for refused credentials."""
    logs.setup("mdp", settings.log_level, settings.log_format)
    log.info("starting", settings=shown(settings))
    redis = open_cache(settings.mdc_url, "mdp")
    own_broker = broker is None
    queue_broker = broker if broker is not None else open_broker(settings.mdq_url, "mdp")
    worker: Worker | None = None
    admin = AdminServer(
        "mdp",
        settings.admin_host,
        settings.admin_port,
        admin_token(settings),
        lambda: worker.not_ready() if worker else ["starting"],
    )
    await admin.start()
    try:
        await wait_for(
            "Redis", lambda: check_cache(redis, settings.mdc_url), shutdown, "Start Redis or correct MDC_URL", (), AWAY
        )
        if own_broker:
            await wait_for("RabbitMQ", queue_broker.connect, shutdown, "Start RabbitMQ or correct MDQ_URL")
        if shutdown.asked:
            return
        await queue_broker.declare([*all_queues(settings.mdq_partitions), progress_queue()])
        worker = Worker(settings, queue_broker, redis, SystemClock(), shutdown)
        log.info("started", worker=worker.name, admin_port=admin.port)
        await worker.run()
    finally:
        if own_broker:
            await queue_broker.close()
        await redis.aclose()
        await admin.stop()
        log.info("stopped")
