"""Runs one processor: owns partitions by leases, subscribes to their queues, hands them over, leads when it owns partition 0.

Invariant: what is not certainly ours is not touched. Leases that could not be renewed are given up, with their
subscriptions, before they run out; the cache refuses the flush of who comes late all the same.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from collections.abc import Callable
from itertools import chain
from typing import Any, NamedTuple

import msgspec
import structlog

from mdc import keys
from mdc.connect import AWAY, CacheRefused, CacheUnavailable, check_cache, open_cache, unavailable
from mdc.interest import Interest
from mdc.writer import Writer
from mdp.analyzers.boards import share_rows
from mdp.analyzers.ranks import BUILT_IN, names_of, read_boards
from mdp.enrich.enrichment import Enrichment, Lead
from mdp.flusher import Flusher
from mdp.leader.leader import BOARDS_EVERY_S, STATS, STATUS_EVERY_S, Leader
from mdp.leader.merging import MERGE_EVERY_S, Merger
from mdp.leader.status import WorkerStats
from mdp.loading import Loader
from mdp.meters import OWNED, Meters
from mdp.owned import Owned
from mdp.ownership import BEAT_S, LEASE_MS, Ownership, Share, lease_ms_of
from mdp.plugins.host import Limits, Watch
from mdp.plugins.installed import NONE, Found, find, names_installed
from mdp.plugins.rack import Rack, hosts_of, not_to_import, take_failures
from mdp.plugins.watchdog import Watchdog, starved_ns
from mdp.reference import read_reference
from mdp.settings import MdpSettings
from mdp.tenure import Standstill, Steadiness, Tenure
from mdp.tracing import traced
from mdp.watching import Watching
from mdq.broker import Broker, BrokerUnavailable, Delivery
from mdq.connect import open_broker
from mdq.progress import EVERY_S, Progress, to_batch
from mdq.topology import LONG_KEPT, all_queues, progress_queue, queues_of
from service import logs
from service.admin import AdminServer
from service.clock import Clock, SystemClock
from service.heartbeat import Heartbeat, Vitals
from service.keyspace import space_of
from service.run import Shutdown, wait_for
from service.settings import admin_token, shown
from service.tracing import Tracer, open_tracer

log = structlog.get_logger()
BUSY_NS_MAX = LEASE_MS * 250_000  # after so long of loading and subscribing partitions look what the newest beat says
BEAT_NS_MAX = LEASE_MS * 1_000_000 // 3  # an answer that takes longer is none; a standstill of our own does not count
GUARD_S = 0.05
GUARD_NS = int(GUARD_S * 1e9)
TOLD_NS = 900_000_000
DEAF_NS = 2_000_000_000  # without RabbitMQ for so long: somebody else may hear what we do not
PRESS_EVENTS = 1_500  # of a partition: a flush of so many is worth its cost, however soon it comes
HEARTBEAT_S = 1  # RabbitMQ ends a consumer that is silent for as long as its leases last, and takes the next one


class Answer(NamedTuple):
    """What a beat has learned: when it was asked, whether we heard RabbitMQ then, what is ours, and under which epochs."""

    asked_ns: int
    hears: bool
    share: Share
    epochs: dict[int, str | CacheUnavailable]


class Worker:
    """One processor. `run()` until `shutdown`; then it hands its partitions over."""

    def __init__(
        self, settings: MdpSettings, broker: Broker, redis: Any, clock: Clock, shutdown: Shutdown, rack: Rack | None = None,
        tracer: Tracer | None = None,
    ) -> None:  # fmt: skip
        self.name = settings.worker or f"mdp-{secrets.token_hex(4)}"
        self.owned: dict[int, Owned] = {}
        self._settings = settings
        self._broker = broker
        self._redis = redis
        self._clock = clock
        self._shutdown = shutdown
        own_boards = read_boards(settings.boards)
        boards = (*BUILT_IN, *own_boards)
        self._rack = rack or Rack(Found([], []))
        self._loader = Loader(settings, redis, clock, read_reference(settings.reference), boards, self._rack)
        self._space = space_of(redis)
        self._writer = Writer(redis)
        self._ownership = Ownership(redis, self.name, settings.mdq_partitions, lease_ms_of(redis))
        self._watching = Watching(Interest(redis), lambda: list(self.owned.values()))
        self._tenure, self._standstill, self._steadiness = Tenure(lease_ms_of(redis)), Standstill(), Steadiness()
        self._enrichment = Enrichment(settings, redis, clock, lambda: self.owned, self._lead)
        self._epoch = ""
        self._answer: Answer | None = None
        self._answered = asyncio.Event()
        self._released_ns = -1  # when we gave a partition back last
        self._fault = "Redis does not answer"
        self._stats = WorkerStats(self.name, 0, boards=sorted(names_of(own_boards)), plugins=self._rack.view({}))
        names = (*names_of(boards), *self._rack.boards)
        self._leader = Leader(redis, self._writer, settings.mdq_partitions, settings.board_rows, names, self._stats)
        self._merger = Merger(redis, self._writer, settings.mdq_partitions)
        self._told_ns = -TOLD_NS
        self._tracer = tracer
        self._broker_seen_ns = clock.mono_ns()
        self._meters = Meters()
        self._flusher = Flusher(
            settings, self._writer, clock, self._stats, lambda: list(self.owned.values()), self._on_fault, self._new_epoch, tracer
        )  # fmt: skip

    async def run(self) -> None:
        """Own, process, flush; on shutdown flush a last time and release everything."""
        flusher = (self._flusher.run_watched, self._flusher.run_whole, self._watching.run)
        enriching = (self._enrichment.run_reading, self._enrichment.run_asking) if self._settings.rest_url else ()
        merging = (self._merges,) if self._space.clustered else ()
        bodies = (self._beats, self._arranges, self._guard, *flusher, self._leads, *merging, self._reports, *enriching)
        loops = [asyncio.create_task(loop(), name=f"mdp {loop.__qualname__}") for loop in bodies]
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
            await self._redis.hdel(self._space.shared + STATS, self.name)

    def not_ready(self) -> list[str]:
        """Return why no data can flow through this worker now; [] when it can."""
        reasons = []
        if not self._broker.ready:
            reasons.append("RabbitMQ is not connected")
        if self._fault:
            reasons.append(self._fault)
        lag_ms = max(self._stats.lag_ms.values(), default=0)
        if lag_ms > 5_000:
            reasons.append(f"lag {lag_ms:.0f} ms is above 5000 ms")
        return reasons

    def vitals(self) -> Vitals:
        """Return what the heartbeat tells."""
        counts = [owned.partition.counts for owned in self.owned.values()]
        lost = {
            "events": sum(sum(own.events.values()) for own in counts),
            "expired_events": sum(sum(own.expired.values()) for own in counts),
            "dropped_events": sum(sum(own.dropped.values()) for own in counts),
        }
        lag_ms = max(self._stats.lag_ms.values(), default=0.0)
        return Vitals(lost, lag_ms, sorted(self.owned), {"worker": self.name, "flush_ms": round(self._stats.flush_ms, 1)})

    def _on_fault(self, error: CacheUnavailable) -> None:
        """The cache is away, or answers and refuses: each is told once, and stands in the readiness until it is over."""
        refused = isinstance(error, CacheRefused)
        fault = str(error) if refused else "Redis does not answer"
        if fault != self._fault:
            (log.error if refused else log.warning)("cache_refuses" if refused else "cache_lost", error=str(error))
        self._fault = fault

    def _new_epoch(self) -> str:
        return f"{self._clock.wall_ns() // 1_000_000:x}{secrets.token_hex(2)}"

    # ---- 1. ownership

    async def _beats(self) -> None:
        """Renew the leases at their pace, whatever is being arranged meanwhile."""
        while True:
            try:
                self._answer = await self._renew()
                self._answered.set()
            except CacheUnavailable as error:
                self._on_fault(error)
            await asyncio.sleep(BEAT_S)

    async def _renew(self) -> Answer:
        asked_ns = self._clock.mono_ns()
        stood_ns = self._standstill.until(asked_ns)
        if self._broker.ready:
            self._broker_seen_ns = asked_ns
        hears = asked_ns - self._broker_seen_ns < DEAF_NS
        share, epochs = await self._ask(hears and (bool(self.owned) or self._steadiness.proven))
        if hears:
            self._tenure.renewed(asked_ns, stood_ns)
        return Answer(asked_ns, hears, share, epochs)

    async def _arranges(self) -> None:
        """Make what we hold agree with what the newest beat said, over and over."""
        while True:
            await self._answered.wait()
            self._answered.clear()
            answer = self._answer
            if answer is None or answer.asked_ns <= self._released_ns:
                continue  # it may count what we have given back since; the next one does not
            try:
                await (self._arrange(answer) if answer.hears else self._let_go_deaf())
                self._fault = ""
            except CacheUnavailable as error:
                self._on_fault(error)
            except BrokerUnavailable as error:
                log.warning("broker_lost", error=str(error))

    async def _arrange(self, answer: Answer) -> None:
        share = answer.share
        for number in [number for number in self.owned if number not in share.owned]:
            await self._drop(number, "another worker took it over")
        before_ns, fault = self._clock.mono_ns() + BUSY_NS_MAX, None
        for number, fence in share.owned.items():
            try:
                epoch = answer.epochs[number]
                if isinstance(epoch, CacheUnavailable):
                    raise epoch
                await self._keep(number, fence, share.before[number], epoch)
            except CacheUnavailable as error:
                if not self._space.clustered:
                    raise
                fault = error  # of one node of a cluster: the partitions of the others go on
            if self._clock.mono_ns() > before_ns:
                break  # there are newer answers: some of these may be another's by now
        if share.surplus:
            await self._hand_over(sorted(self.owned)[-share.surplus :])
        await self._tell()
        if fault is not None:
            raise fault

    async def _ask(self, claim: bool) -> tuple[Share, dict[int, str | CacheUnavailable]]:
        """Renew the leases, and `claim` what is free.  Raises: CacheUnavailable, in time."""
        began_ns = self._ran_ns()
        asking = asyncio.create_task(self._ask_cache(claim, began_ns))
        try:
            while not asking.done():
                if self._ran_ns() - began_ns > BEAT_NS_MAX:
                    self._steadiness.late()
                    raise CacheUnavailable(f"no answer within {BEAT_NS_MAX / 1e9:.1f} s")
                await asyncio.wait([asking], timeout=GUARD_S)
            share = asking.result()
            self._steadiness.answered()
        finally:
            asking.cancel()
        return share, await self._writer.claim(share.owned, self._epoch, self._new_epoch())

    async def _ask_cache(self, claim: bool, began_ns: int) -> Share:
        self._epoch = await self._writer.open(self._new_epoch(), self._settings.mdq_partitions)
        took_ns = self._ran_ns() - began_ns
        if took_ns > BEAT_NS_MAX / 2:  # or leases are renewed in our name by a beat whose answer comes too late
            self._steadiness.late()
            raise CacheUnavailable(f"its answers take {took_ns / 1e9:.1f} s")
        return await self._ownership.beat(claim=claim, remembered=self.owned if claim else ())

    def _ran_ns(self) -> int:
        """Return the time without our own standstills."""
        now_ns = self._clock.mono_ns()
        return now_ns - self._standstill.until(now_ns)

    async def _guard(self) -> None:
        """Stop reading before the leases run out: who is cut off from the cache must not keep the queues from the next owner."""
        while True:
            self._standstill.sleeps_until(self._clock.mono_ns() + GUARD_NS)
            await asyncio.sleep(GUARD_S)
            now_ns = self._clock.mono_ns()
            self._standstill.woke(now_ns)
            if self._tenure.certain(now_ns) or not self._tenure.over(now_ns, self._standstill.until(now_ns)):
                continue
            late = {number: owned for number, owned in self.owned.items() if owned.subscription is not None}
            for number in late:
                log.warning("partition_given_up", partition=number, why="its lease could not be renewed in time")
            await asyncio.gather(*(self._unsubscribe(owned) for owned in late.values()))

    async def _let_go_deaf(self) -> None:
        """Give all partitions up: we are cut off from the broker, somebody else may not be."""
        if not self.owned:
            await self._tell()
            return
        await asyncio.gather(*(self._unsubscribe(owned) for owned in self.owned.values()))
        await self._tell(at_once=True)
        if (zero := self.owned.get(0)) is not None:  # our last word: until somebody else owns partition 0 there is no other
            now_ns, mono_ns = self._clock.wall_ns(), self._clock.mono_ns()
            await self._leader.publish(zero.partition, now_ns // 1_000_000, mono_ns // 1_000_000, True, self._shared_epoch)
        for number in list(self.owned):
            await self._drop(number, "RabbitMQ cannot be reached from here")
            await self._ownership.release(number)
            self._released_ns = self._clock.mono_ns()

    async def _keep(self, number: int, fence: int, before: int, epoch: str) -> None:
        """Make what we hold of a partition agree with the cache, which says that it is ours, and who had it before."""
        owned = self.owned.get(number)
        if owned is not None and owned.partition.epoch == epoch and owned.partition.fence not in (fence, before):
            await self._drop(number, "it was another worker's in between")  # who has written to the cache what we do not know
            owned = None
        if owned is None:
            owned = self.owned[number] = Owned(await self._loader.load(number, fence, epoch))
            owned.safe = owned.partition.positions()
            log.info("partition_claimed", partition=number, fence=fence)
        elif owned.partition.epoch != epoch:
            owned.flush = None  # everything in it is written again by the rewrite
            owned.partition.rewrite(fence, epoch)
            log.info("partition_rewritten", partition=number, epoch=epoch)
        owned.partition.fence = fence
        owned.refused = False
        if not owned.reads:
            await self._subscribe(owned)

    async def _subscribe(self, owned: Owned) -> None:
        if not self._broker.ready or not self._tenure.certain(self._clock.mono_ns()):
            return
        partition, clock = owned.partition, self._clock
        await self._unsubscribe(owned)
        owned.tag = owned.flush_tag = 0  # tags of a lost connection mean nothing; what they stood for comes again

        taken, early, heard = owned.taken, self._settings.prefetch * 3 // 4, owned.heard_ns

        def on_delivery(delivery: Delivery) -> None:
            batch = delivery.batch
            speaks = partition.on_batch(batch, delivery.redelivered, clock.wall_ns())
            owned.tag = delivery.tag
            if speaks and batch.stream not in LONG_KEPT:
                heard[batch.source] = clock.mono_ns()
            taken[batch.stream] = taken.get(batch.stream, 0) + 1
            owned.waiting += batch.count
            if taken[batch.stream] >= early or owned.waiting >= PRESS_EVENTS:
                self._flusher.press(owned)  # or the queue, or a replay, stands still until the next flush acknowledges

        queues = queues_of(partition.number)
        take = traced(owned, on_delivery, self._tracer, clock)
        owned.subscription = await self._broker.subscribe(queues, take, partition.on_malformed, self._settings.prefetch)

    async def _unsubscribe(self, owned: Owned) -> None:
        subscription, owned.subscription = owned.subscription, None
        owned.heard_ns.clear()
        if subscription is not None:
            await subscription.close()

    async def _drop(self, number: int, why: str) -> None:
        """Forget a partition that is not ours any more; its unacknowledged batches go to the new owner."""
        owned = self.owned.pop(number)
        self._meters.forget(number)
        log.warning("partition_lost", partition=number, why=why)
        await self._unsubscribe(owned)

    async def _hand_over(self, numbers: list[int]) -> None:
        """Give partitions to others without a loss: stop reading, flush, acknowledge, release."""
        leaving = [self.owned[number] for number in numbers]
        for owned in leaving:
            if owned.subscription is not None:
                with contextlib.suppress(BrokerUnavailable):
                    await owned.subscription.pause()
        try:
            await self._flusher.flush(leaving)
        except CacheUnavailable as error:
            log.warning("hand_over_without_flush", error=str(error))  # the next owner gets the batches again
        for number in numbers:
            owned = self.owned.pop(number)
            self._meters.forget(number)
            await self._unsubscribe(owned)
            with contextlib.suppress(CacheUnavailable):
                await self._ownership.release(number)
            self._released_ns = self._clock.mono_ns()
            log.info("partition_released", partition=number)

    # ---- 2. what it says of itself

    async def _tell(self, at_once: bool = False) -> None:
        stats, now_ns = self._stats, self._clock.mono_ns()
        OWNED.set(len(self.owned))
        flowing = {number: owned for number, owned in self.owned.items() if owned.flows(now_ns)}
        sources = sorted({source for owned in flowing.values() for source in owned.heard_ns})
        heard = {source: sorted(n for n, owned in flowing.items() if owned.hears(source, now_ns)) for source in sources}
        news = (stats.flowing, stats.heard) != (sorted(flowing), heard)
        if now_ns - self._told_ns < TOLD_NS and not news and not at_once:
            return
        self._told_ns, stats.ts = now_ns, self._clock.wall_ns() // 1_000_000
        stats.flowing, stats.heard = sorted(flowing), heard
        stats.days = sorted({day for owned in flowing.values() for day in owned.trading_days})
        try:
            await self._look_after_plugins()
            await self._redis.hset(self._space.shared + STATS, self.name, msgspec.json.encode(stats))
            await self._redis.pexpire(self._space.shared + STATS, 60_000)
        except AWAY as error:
            raise unavailable(error) from None
        stats.lag_ms = {}
        for number, owned in self.owned.items():
            self._meters.take(number, owned.partition.counts)

    async def _look_after_plugins(self) -> None:
        """Follow what operators say of plug-ins, and tell how they are."""
        rack = self._rack
        if not (rack.found.plugins or rack.found.refused):
            return
        hosts = {number: hosts_of(owned.partition.analyzers) for number, owned in self.owned.items()}
        rack.learn(await self._redis.hgetall(self._space.shared + keys.PLUGINS), chain.from_iterable(hosts.values()))
        self._stats.plugins = rack.view(hosts)
        for number, own in hosts.items():
            for name, failure in take_failures(own):
                again = f"{failure.pause_ms} ms" if failure.pause_ms else "when somebody says so"
                log.error(
                    "plugin_failed", plugin=name, partition=number, error=failure.fault, doing=failure.where,
                    missed_events=failure.missed, again_in=again, trace=failure.trace,
                )  # fmt: skip
        self._meters.take_plugins(hosts)

    # ---- 3. what is merged over partitions

    async def _leads(self) -> None:
        status_at = 0.0
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(max(BOARDS_EVERY_S, self._stats.interval_ms / 1000))
            mono_ns = self._clock.mono_ns()
            if self._lead() is None:
                continue
            zero = self.owned[0]
            due = loop.time() >= status_at
            now_ms = self._clock.wall_ns() // 1_000_000
            try:
                await self._leader.publish(zero.partition, now_ms, mono_ns // 1_000_000, due, self._shared_epoch)
            except CacheUnavailable as error:
                self._on_fault(error)
                continue
            if due:
                status_at = loop.time() + STATUS_EVERY_S

    async def _merges(self) -> None:
        """In a cluster: merge what the partitions add to channels that several of them write."""
        while True:
            await asyncio.sleep(MERGE_EVERY_S)
            lead = self._lead()
            if lead is not None:
                try:
                    await self._merger.merge(lead.fence, self._epoch)
                except CacheUnavailable as error:
                    self._on_fault(error)

    @property
    def _shared_epoch(self) -> str:
        return self._epoch if self._space.clustered else ""

    def _lead(self) -> Lead | None:
        """Return what it takes to lead, None while it is not certain that we do."""
        zero = self.owned.get(0)
        if zero is None or zero.refused or not self._tenure.certain(self._clock.mono_ns()):
            return None
        return Lead(zero.partition.fence, self._leader.days, self._leader.lost)

    # ---- 4. what a lossless source paces itself by

    async def _reports(self) -> None:
        seq = 0
        while True:
            await asyncio.sleep(EVERY_S)
            if self.owned and self._broker.ready:
                positions = [(source, stream, p, at) for p, owned in self.owned.items() for source, stream, at in owned.safe]
                reading = [p for p, owned in self.owned.items() if owned.reads]
                report = to_batch(Progress(self.name, reading, positions), seq, self._clock.wall_ns())
                self._broker.publish(report).add_done_callback(_ignore)
                seq += 1


async def _end(tasks: list[asyncio.Task[Any]]) -> None:
    """Cancel until all have ended: Python 3.11's wait_for swallows a cancellation that meets its result."""
    while left := [task for task in tasks if not task.done()]:
        for task in left:
            task.cancel()
        await asyncio.wait(left, timeout=0.5)


async def _rack(settings: MdpSettings, redis: Any) -> Rack:
    """Import the plug-ins that are installed and wanted, watched by a thread, and say of each what became of it."""
    clock, watch = SystemClock(), Watch()
    watchdog = Watchdog(watch, settings.plugin_stall_ms * 1_000_000, settings.mdc_url, settings.worker or "a processor")
    orders: dict[bytes, bytes] = {}
    with contextlib.suppress(*AWAY):  # what is off is learned again before the first partition is loaded
        orders = await redis.hgetall(space_of(redis).shared + keys.PLUGINS)
    if settings.plugin_stall_ms and (names_installed() and settings.plugin_names != [NONE]):
        watchdog.start()
    found = find(settings.plugin_names, names_of(read_boards(settings.boards)), not_to_import(orders), watchdog.on_import)
    for one in found.refused:
        log.error("plugin_refused", plugin=one.name, why=one.why, fix="mend it, or leave it out of MDP_PLUGINS")
    for plugin in found.plugins:
        log.info("plugin_installed", plugin=plugin.name, version=plugin.version, boards=list(plugin.make.boards))
    limits = Limits(
        settings.plugin_budget_ms * 1_000_000, settings.plugin_failures, share_rows(settings.board_rows, settings.mdq_partitions)
    )
    rack = Rack(found, limits, watch, clock.mono_ns, starved_ns)
    rack.learn(orders)
    return rack


def _ignore(future: asyncio.Future[None]) -> None:
    if not future.cancelled():
        future.exception()  # a lost report is made good by the next one


async def run(
    settings: MdpSettings, shutdown: Shutdown, broker: Broker | None = None, drain: Callable[[], None] | None = None
) -> None:
    """Run one worker until `shutdown`: connect, own, process, hand over; `drain` is what `POST /drain` calls instead of it.

    Raises: OperatorError for refused credentials.
    """
    logs.setup("mdp", settings.log_level, settings.log_format)
    log.info("starting", settings=shown(settings))
    redis = open_cache(settings.mdc_url, "mdp")
    own_broker = broker is None
    queue_broker = broker if broker is not None else open_broker(settings.mdq_url, "mdp", HEARTBEAT_S, settings.mdq_queue_type)
    tracer = open_tracer("mdp", settings)
    worker: Worker | None = None

    def ready() -> list[str]:
        return worker.not_ready() if worker else ["starting"]

    admin = AdminServer(
        "mdp",
        settings.admin_host,
        settings.admin_port,
        admin_token(settings),
        ready,
        names=settings.host_names,
        drain=drain or shutdown.ask,
    )
    await admin.start()
    heartbeat = Heartbeat("mdp", settings, admin.port, ready, lambda: worker.vitals() if worker else Vitals(), settings.worker)
    await heartbeat.start()
    try:
        await wait_for(
            "Redis", lambda: check_cache(redis, settings.mdc_url), shutdown, "Start Redis or correct MDC_URL", (), AWAY
        )
        if own_broker:
            await wait_for("RabbitMQ", queue_broker.connect, shutdown, "Start RabbitMQ or correct MDQ_URL")
        if shutdown.asked:
            return
        queues = [*all_queues(settings.mdq_partitions), progress_queue()]
        await wait_for("RabbitMQ", lambda: queue_broker.declare(queues), shutdown, "Start RabbitMQ or correct MDQ_URL")
        if shutdown.asked:
            return
        rack = await _rack(settings, redis)
        if shutdown.asked:
            return
        worker = Worker(settings, queue_broker, redis, SystemClock(), shutdown, rack, tracer)
        log.info("started", worker=worker.name, admin_port=admin.port)
        await worker.run()
    finally:
        if own_broker:
            await queue_broker.close()
        if tracer is not None:
            await tracer.close()
        await redis.aclose()
        await heartbeat.stop()
        await admin.stop()
        log.info("stopped")
