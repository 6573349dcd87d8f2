"""Runs the sources of one process side by side: wires broker, leases, sources and the admin port."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from typing import cast

import structlog
from redis.asyncio import Redis

from mdl import queues
from mdl.control import routes
from mdl.feeds.replay import find_tapes
from mdl.lease import SourceLease, lease_client
from mdl.settings import SIMULATED, MdlSettings
from mdl.source import Source
from mdl.traced_broker import TracedBroker
from mdl.vendor import desk_routes
from mdq.broker import Broker
from mdq.connect import open_broker
from mdq.topology import all_queues
from service.admin import AdminServer
from service.clock import Clock, SystemClock
from service.errors import OperatorError
from service.heartbeat import Heartbeat, Vitals
from service.run import Shutdown, wait_for
from service.settings import admin_token, shown
from service.tracing import open_tracer

TICK_S = 0.1
FIX_BROKER = "Start RabbitMQ, or set MDQ_URL to a running one"
log = structlog.get_logger()


class Listener:
    """Everything one listener owns. Use `run()`; tests build it to look inside."""

    def __init__(self, settings: MdlSettings, broker: Broker, clock: Clock | None = None) -> None:
        self.settings = self.at_start = settings
        self.broker = broker
        self.clock = clock or SystemClock()
        self.sources: dict[str, Source] = {}
        self.published: Counter[tuple[str, int]] = Counter()  # batches by (stream, partition)
        self.ages = queues.Ages(all_queues(settings.mdq_partitions))
        self.admin = AdminServer(
            "mdl", settings.admin_host, settings.admin_port, admin_token(settings), self.unready,
            [*routes(self), *queues.routes(self), *desk_routes.routes(self)], settings.host_names, lambda: self._drain(),
        )  # fmt: skip
        self.configuration = ""  # the version of the control plane's configuration that is in force
        self._drain: Callable[[], None] = lambda: None
        self._redis: Redis | None = None
        self._changing = asyncio.Lock()

    async def run(self, shutdown: Shutdown) -> None:
        """Run until asked to stop, then drain.  Raises: OperatorError when the feed or the broker cannot be used at all."""
        self._drain = shutdown.ask
        await self.admin.start()
        heartbeat = Heartbeat("mdl", self.settings, self.admin.port, self.unready, self.vitals, self.settings.name)
        await heartbeat.start()
        try:
            await wait_for("the message broker", self._connect, shutdown, FIX_BROKER, transient=(OSError, TimeoutError))
            if not shutdown.asked:
                await self.work(shutdown)
        finally:
            await heartbeat.stop()
            await self.admin.stop()
            if self._redis is not None:
                await self._redis.aclose()

    async def _connect(self) -> None:
        if not self.broker.ready:
            await self.broker.connect()
        await self.broker.declare(all_queues(self.settings.mdq_partitions))

    async def work(self, shutdown: Shutdown) -> None:
        """Run the sources until asked to stop; a source that breaks ends the process: it restarts clean."""
        _check_tapes(self.settings)
        for name, settings in self.settings.by_source().items():
            await self._begin(name, settings)
        if self.settings.record:
            self.start_recording()
        try:
            while not await shutdown.sleep(TICK_S):
                for source in self.sources.values():
                    source.tasks.check()
                self.ages.sample(self.published, self.clock.mono_ns())
                self._check_start()
        finally:
            await asyncio.gather(*(self._end(name) for name in list(self.sources)))

    async def _begin(self, name: str, settings: MdlSettings) -> None:
        source = self.sources[name] = Source(name, settings, self.broker, self._open_lease, self.clock, self.published)
        source.start()
        await source.session.start()

    async def _end(self, name: str) -> None:
        source = self.sources[name]
        await source.session.stop()
        await source.tasks.close()
        del self.sources[name]
        await asyncio.to_thread(source.recorder.stop)

    def _check_start(self) -> None:
        """A feed that cannot be opened at start-up ends the process; one asked for later was already refused with a 400."""
        for source in self.sources.values():
            failure = source.session.failure
            if failure is not None and not source.session.changed:
                raise failure

    # --- control

    async def change(self, settings: MdlSettings) -> None:
        """Run the feeds of `settings` instead.  Raises: OperatorError when one cannot be opened; then the old ones go on."""
        _check_tapes(settings)
        async with self._changing:
            wanted = settings.by_source()
            for name in [name for name in self.sources if name not in wanted]:
                await self._end(name)
            self.settings = settings
            for name, own in wanted.items():
                if name in self.sources:
                    await self.sources[name].session.change(own)
                else:
                    await self._begin(name, own)
                    self.sources[name].session.changed = True

    def check(self, settings: MdlSettings) -> None:
        """Say whether `change` could be.  Raises: OperatorError."""
        _check_tapes(settings)

    async def start_feeds(self) -> None:
        """Start every feed that does not run."""
        for source in self.sources.values():
            await source.session.start()

    async def stop_feeds(self) -> None:
        """Stop every feed; their connections and leases are given back."""
        await asyncio.gather(*(source.session.stop() for source in self.sources.values()))

    def start_recording(self) -> None:
        """Record every source from now on.  Raises: OperatorError when the folder cannot be written."""
        for source in self.sources.values():
            source.start_recording()

    def stop_recording(self) -> None:
        """End all recordings; blocks until the files are written."""
        for source in self.sources.values():
            source.recorder.stop()

    def unready(self) -> list[str]:
        """Return what keeps data from flowing, in words."""
        away = [] if self.broker.ready else [f"the message broker is away: {self.broker.fault}"]
        if not self.sources:
            return [*away, "starting"]
        told = {name: source.unready() for name, source in self.sources.items()}
        if len(told) == 1:
            return away + next(iter(told.values()))
        ended = {name for name, source in self.sources.items() if source.session.state == "ended"}
        if ended != set(told):  # a tape that has ended is no fault while something else is live
            told = {name: reasons for name, reasons in told.items() if name not in ended}
        return away + [f"{name}: {reason}" for name, reasons in told.items() for reason in reasons]

    def vitals(self) -> Vitals:
        """Return what the heartbeat tells."""
        told = {name: source.facts() for name, source in self.sources.items()}
        kept = ("feed", "state", "reason", "market", "recording", "dropped_events", "feed_dropped_frames")
        return Vitals(
            {
                "received_events": sum(facts["received_events"] for facts in told.values()),
                "published_events": sum(facts["published_events"] for facts in told.values()),
            },
            max((facts["buffer_age_ms"] for facts in told.values()), default=0.0),
            more={
                "configuration": self.configuration,
                "sources": {name: {key: facts[key] for key in kept} for name, facts in told.items()},
            },
        )

    def _open_lease(self, settings: MdlSettings) -> SourceLease | None:
        if settings.lease == "off":
            return None
        if settings.mdc_url.startswith("memory:"):
            if settings.lease == "on":
                raise OperatorError("MDL_LEASE=on needs a Redis that listeners share", "Set MDC_URL=redis://… or MDL_LEASE=auto")
            if settings.feed in ("massive", "engine") or (settings.feed == "news" and settings.news_origin != SIMULATED):
                log.warning("no_lease", reason="MDC_URL is in-process; start no second listener on the same source")
            return None
        if self._redis is None:
            self._redis = lease_client(settings.mdc_url, settings.lease_ttl_ms)
        # A tape waits for RabbitMQ: with another tenure it would begin anew.
        able = (lambda: True) if settings.feed == "replay" else (lambda: self.broker.ready)
        ttl_ms, partitions = settings.lease_ttl_ms, settings.mdq_partitions
        return SourceLease(self._redis, settings.source, settings.about, ttl_ms, self.clock, able, partitions)


async def run(settings: MdlSettings, shutdown: Shutdown, broker: Broker | None = None) -> None:
    """Run the listener until `shutdown`; with a `broker` given (embedded) that one is used and stays open."""
    own = open_broker(settings.mdq_url, "tapeline-mdl", queue_type=settings.mdq_queue_type) if broker is None else broker
    tracer, clock = open_tracer("mdl", settings), SystemClock()
    speaking = own if tracer is None else cast(Broker, TracedBroker(own, tracer, clock.wall_ns))
    listener = Listener(settings, speaking, clock)
    log.info("listener_starting", **shown(settings))
    try:
        await listener.run(shutdown)
    finally:
        if broker is None:
            await own.close()
        if tracer is not None:
            await tracer.close()


def _check_tapes(settings: MdlSettings) -> None:
    if "replay" in settings.feeds:
        find_tapes(settings.tape)
