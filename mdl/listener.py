"""One market's feed in, batches in the queues out: the shell that wires intake, publisher, session, recorder and control."""

from __future__ import annotations

import asyncio
import time
from typing import Any, cast

import orjson
import structlog
from redis.asyncio import Redis

from mdl.buffer import FrameBuffer
from mdl.control import routes
from mdl.intake import Intake
from mdl.lease import MarketLease, lease_client
from mdl.measured_broker import MeasuredBroker
from mdl.pulse import Pulse
from mdl.session import FeedSession
from mdl.settings import MdlSettings
from mdl.tapes.recorder import Bounds, Recorder
from mdq.broker import Broker, BrokerUnavailable
from mdq.connect import open_broker
from mdq.publisher import Publisher
from service.admin import AdminServer
from service.errors import OperatorError
from service.run import Shutdown, wait_for
from service.settings import admin_token, shown

TICK_S = 0.1
STATUS_S = 1.0
DRAIN_S = 2.0
FIX_BROKER = "Start RabbitMQ, or set MDQ_URL to a running one"
log = structlog.get_logger()


class Listener:
    """Everything one listener owns. Use `run()`; tests build it to look inside."""

    def __init__(self, settings: MdlSettings, broker: Broker) -> None:
        self.settings = settings
        self.broker = broker
        measured = MeasuredBroker(broker)
        self.publisher = Publisher(cast(Broker, measured), settings.mdq_partitions, settings.feeds[0])
        self.intake = Intake(FrameBuffer(settings.buffer_bytes, settings.buffer_age_ms), self.publisher, measured)
        self.recorder = Recorder(settings.record_dir, _bounds(settings))
        self.session = FeedSession(settings, self.intake, self.recorder, self._open_lease)
        self.pulse = Pulse()
        self.admin = AdminServer(
            "mdl", settings.admin_host, settings.admin_port, admin_token(settings), self.unready, routes(self)
        )  # fmt: skip
        self._redis: Redis | None = None
        self._tasks: list[asyncio.Task[Any]] = []

    async def run(self, shutdown: Shutdown) -> None:
        """Run until asked to stop, then drain.  Raises: OperatorError when the feed or the broker cannot be used at all."""
        await self.admin.start()
        try:
            await wait_for("the message broker", self._connect, shutdown, FIX_BROKER, transient=(OSError, TimeoutError))
            if not shutdown.asked:
                await self._work(shutdown)
        finally:
            await self.session.stop()
            await self.admin.stop()
            if self._redis is not None:
                await self._redis.aclose()

    async def _connect(self) -> None:
        if not self.broker.ready:
            await self.broker.connect()
        await self.publisher.start()

    async def _work(self, shutdown: Shutdown) -> None:
        if self.settings.record:
            self.start_recording()
        self._tasks = [asyncio.create_task(body) for body in (self.intake.route(), self.intake.watch_progress(), self._beat())]
        await self.session.start()
        stopping = asyncio.create_task(shutdown.wait())
        try:
            while not stopping.done():
                await asyncio.wait({stopping, *self._tasks}, timeout=TICK_S, return_when=asyncio.FIRST_COMPLETED)
                for task in self._tasks:
                    if task.done():
                        task.result()  # a broken hot path ends the process: it restarts clean
                self._check_start()
        finally:
            stopping.cancel()
            await self._drain()

    def start_recording(self) -> None:
        """Record from now on.  Raises: OperatorError when the folder cannot be written."""
        running = self.session.settings
        try:
            self.recorder.start(f"{running.feed}-{running.market.replace('/', '-')}")
        except OSError as error:
            what = f"cannot record to {self.recorder.folder}: {error.strerror or error}"
            raise OperatorError(what, "Set MDL_RECORD_DIR to a writable folder") from None

    def _check_start(self) -> None:
        """A feed that cannot be opened at start-up ends the process; one asked for later was already refused with a 400."""
        failure = self.session.failure
        if failure is not None and not self.session.changed:
            raise failure

    async def _drain(self) -> None:
        await self.session.stop()
        deadline_s = time.monotonic() + DRAIN_S
        while not self.intake.idle and not self.intake.lossless and time.monotonic() < deadline_s:  # noqa: ASYNC110  # once a life
            await asyncio.sleep(0.01)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self.tell_state()
        await self.publisher.close(DRAIN_S)
        await asyncio.to_thread(self.recorder.stop)

    async def _beat(self) -> None:
        """Expire, count and tell the processors how we are."""
        told_s = 0.0
        while True:
            now_s = time.monotonic()
            if now_s - told_s >= STATUS_S or self.session.state != self.pulse.state:
                told_s = now_s
                self.tell_state()
                self.intake.renew_samples()
            self.intake.expire(time.time_ns())
            await asyncio.sleep(TICK_S)

    def tell_state(self) -> None:
        """Publish one status event and bring the metrics up to date."""
        facts = self.facts()
        self.pulse.beat(facts)
        self.publisher.add("status", 0, [orjson.dumps(facts)], time.time_ns())

    def facts(self) -> dict[str, Any]:
        """Return the status event: what we are doing and have done since the start."""
        session, intake, now_ns = self.session, self.intake, time.time_ns()
        return {
            "ev": "status",
            "component": "mdl",
            "feed": session.settings.feed,
            "state": session.state,
            "reason": session.reason,
            "market": session.settings.market,
            "received_events": intake.router.events + intake.buffer.dropped_events,
            "received_frames": intake.received_frames,
            "buffer_dropped_events": intake.buffer.dropped_events,
            "dropped_events": intake.buffer.dropped_events + self.publisher.dropped.total(),
            "feed_dropped_frames": session.dropped_frames,
            "malformed": intake.router.malformed + session.malformed,
            "reconnects": session.reconnects,
            "buffer_bytes": intake.buffer.bytes,
            "buffer_age_ms": round(intake.buffer.age_ms(now_ns), 1),
            "published_events": self.publisher.published.total(),
            "recording": self.recorder.recording,
            "lossless": intake.lossless,
            "t": now_ns // 1_000_000,
        }

    def unready(self) -> list[str]:
        """Return what keeps data from flowing, in words."""
        session, reasons = self.session, []
        if not self.broker.ready:
            reasons.append(f"the message broker is away: {self.broker.fault}")
        if session.state not in ("live", "standby"):
            reasons.append(f"feed {session.state}: {session.reason}")
        reasons += session.ailing
        if self.intake.waiting_for:
            reasons.append(f"the replay waits for {self.intake.waiting_for}")
        age_ms = self.intake.buffer.age_ms(time.time_ns())
        if not self.intake.lossless and age_ms > session.settings.lag_ms_max:
            reasons.append(f"frames wait {age_ms:.0f} ms for routing, more than {session.settings.lag_ms_max:.0f} ms")
        return reasons

    def _open_lease(self, settings: MdlSettings) -> MarketLease | None:
        embedded = settings.mdc_url.startswith("memory:")
        single_reader = bool({"massive", "engine"} & set(settings.feeds))
        if settings.lease == "off" or (settings.lease == "auto" and not single_reader):
            return None
        if embedded:
            if settings.lease == "on":
                raise OperatorError("MDL_LEASE=on needs a Redis that listeners share", "Set MDC_URL=redis://… or MDL_LEASE=auto")
            log.warning("no_lease", reason="MDC_URL is in-process; start no second listener on the same source")
            return None
        if self._redis is None:
            self._redis = lease_client(settings.mdc_url, settings.lease_ttl_ms)
        store_only = "engine" in settings.feeds and "massive" not in settings.feeds
        market = f"engine:{settings.engine_store}" if store_only else settings.market
        return MarketLease(self._redis, market, settings.lease_ttl_ms)


async def run(settings: MdlSettings, shutdown: Shutdown, broker: Broker | None = None) -> None:
    """Run the listener until `shutdown`; with a `broker` given (embedded) that one is used and stays open."""
    own = open_broker(settings.mdq_url, "tapeline-mdl") if broker is None else broker
    listener = Listener(settings, own)
    log.info("listener_starting", **shown(settings))
    try:
        await listener.run(shutdown)
    finally:
        if broker is None:
            await own.close()


def _bounds(settings: MdlSettings) -> Bounds:
    return Bounds(
        settings.record_file_bytes, settings.record_file_s, settings.record_bytes_max, settings.record_queue_bytes
    )  # fmt: skip


__all__ = ["BrokerUnavailable", "Listener", "run"]
