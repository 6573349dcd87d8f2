"""One source: a vendor connection (or tape, simulator, exchange) with its lease, feed, buffer, publisher and status.

Invariant: batches, marks and status events leave only while the source's lease is ours; every tenure is an epoch of its own.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from typing import Any, cast

import orjson
import structlog

from mdl.buffer import FrameBuffer
from mdl.intake import Intake
from mdl.lease import SourceLease
from mdl.measured_broker import MeasuredBroker
from mdl.pulse import Pulse
from mdl.session import FeedSession
from mdl.settings import MdlSettings
from mdl.tapes.recorder import Bounds, Recorder
from mdq.batch import leased_epoch
from mdq.broker import Broker, BrokerUnavailable
from mdq.publisher import Publisher
from service.clock import Clock
from service.errors import OperatorError
from service.tasks import Tasks

TICK_S = 0.1
STATUS_NS = 1_000_000_000
DRAIN_S = 2.0
log = structlog.get_logger()


class Source:
    """Everything that belongs to one source. `settings` name one feed; control it through `session`.

    `published` counts its batches by (stream, partition), together with those of the listener's other sources.
    """

    def __init__(
        self,
        name: str,
        settings: MdlSettings,
        broker: Broker,
        open_lease: Callable[[MdlSettings], SourceLease | None],
        clock: Clock,
        published: Counter[tuple[str, int]] | None = None,
    ) -> None:
        self.name = name
        self.publisher: Publisher | None = None  # while the lease is ours
        measured = MeasuredBroker(broker, published)
        self.intake = Intake(
            name, FrameBuffer(settings.buffer_bytes, settings.buffer_age_ms), settings.mdq_partitions, measured, clock
        )
        self.recorder = Recorder(settings.record_dir, _bounds(settings))
        self.tasks = Tasks(f"source {name}", lambda _: None)  # the listener looks at its faults, ten times a second
        self.session = FeedSession(settings, self.intake, self.recorder, self, open_lease, self.tasks)
        self.pulse = Pulse(name)
        self._broker = cast(Broker, measured)
        self._clock = clock
        self._published: Counter[str] = Counter()  # of the tenures before
        self._dropped: Counter[str] = Counter()
        self._told_ns = 0
        self._tenure = 0  # of the lease, under which we speak

    def start(self) -> None:
        """Route, expire and tell until `tasks` are closed."""
        self.tasks.start("route", self.intake.route())
        self.tasks.start("progress", self.intake.watch_progress())
        self.tasks.start("beat", self._beat())

    # --- one tenure of the lease

    async def begin(self, lease: SourceLease | None) -> None:
        """Speak: a publisher of this tenure's epoch."""
        epoch = leased_epoch(lease.epoch) if lease is not None else None
        self._tenure = lease.tenure if lease is not None else 0
        partitions = self.session.settings.mdq_partitions
        publisher = Publisher(
            self._broker, partitions, self.name, epoch, self._clock,
            permit=lambda: self._held, market=self.session.settings.one_market,
        )  # fmt: skip
        while True:
            try:
                await publisher.start()
                break
            except BrokerUnavailable:
                await asyncio.sleep(TICK_S)
        self.publisher = publisher
        self.intake.attach(publisher)
        log.info("source_speaks", source=self.name, epoch=publisher.epoch)

    async def end(self) -> None:
        """Hand over what is taken, if the lease is still ours, and fall silent."""
        publisher, deadline_ns = self.publisher, self._clock.mono_ns() + int(DRAIN_S * 1e9)
        if publisher is None:
            return
        drains = not self.intake.lossless
        while drains and not self.intake.idle and self._held and self._clock.mono_ns() < deadline_ns:  # noqa: ASYNC110
            await asyncio.sleep(0.01)  # once a tenure
        self.tell_state()
        self.intake.detach()
        await publisher.close(DRAIN_S if self._held else 0)
        self.publisher = None
        self._published += publisher.published
        self._dropped += publisher.dropped

    @property
    def _held(self) -> bool:
        lease = self.session.lease
        return lease is None or lease.holds(self._tenure)

    # --- what it says of itself

    async def _beat(self) -> None:
        """Expire, count and tell the processors how we are."""
        while True:
            now_ns = self._clock.mono_ns()
            if now_ns - self._told_ns >= STATUS_NS or self.session.state != self.pulse.state:
                self._told_ns = now_ns
                self.tell_state()
                self.intake.renew_samples()
            self.intake.expire(self._clock.wall_ns())
            await asyncio.sleep(TICK_S)

    def tell_state(self) -> None:
        """Publish one status event while we may speak, and bring the metrics up to date."""
        facts = self.facts()
        self.pulse.beat(facts)
        if self.publisher is not None:
            now_ns = self._clock.wall_ns()
            self.publisher.add("status", 0, [orjson.dumps(facts)], now_ns, self.publisher.feed_ns)

    @property
    def published_events(self) -> int:
        """Events that the broker has confirmed."""
        return self._published.total() + (self.publisher.published.total() if self.publisher else 0)

    @property
    def dropped_events(self) -> int:
        """Events taken from the feed and given up here."""
        late = self._dropped.total() + (self.publisher.dropped.total() if self.publisher else 0)
        return late + self.intake.buffer.dropped_events + self.intake.dropped_events

    def facts(self) -> dict[str, Any]:
        """Return the status event: what we are doing and have done since the start."""
        session, intake, now_ns = self.session, self.intake, self._clock.wall_ns()
        return {
            "ev": "status",
            "component": "mdl",
            "source": self.name,
            "feed": session.settings.feed,
            "state": session.state,
            "reason": session.reason,
            "market": session.settings.market,
            "received_events": intake.router.events + intake.buffer.dropped_events,
            "received_frames": intake.received_frames,
            "buffer_dropped_events": intake.buffer.dropped_events,
            "dropped_events": self.dropped_events,
            "feed_dropped_frames": session.dropped_frames,
            "malformed": intake.router.malformed + session.malformed,
            "reconnects": session.reconnects,
            "buffer_bytes": intake.buffer.bytes,
            "buffer_age_ms": round(intake.buffer.age_ms(now_ns), 1),
            "published_events": self.published_events,
            "recording": self.recorder.recording,
            "lossless": intake.lossless,
            "t": now_ns // 1_000_000,
        }

    def unready(self) -> list[str]:
        """Return what keeps this source's data from flowing, in words."""
        session, reasons = self.session, []
        if session.state not in ("live", "standby"):
            reasons.append(f"feed {session.state}: {session.reason}")
        if session.ailing:
            reasons.append(f"feed {session.settings.feed}: {session.ailing}")
        if self.recorder.reason:
            reasons.append(self.recorder.reason)
        if self.intake.waiting_for:
            reasons.append(f"the replay waits for {self.intake.waiting_for}")
        age_ms = self.intake.buffer.age_ms(self._clock.wall_ns())
        if not self.intake.lossless and age_ms > session.settings.lag_ms_max:
            reasons.append(f"frames wait {age_ms:.0f} ms for routing, more than {session.settings.lag_ms_max:.0f} ms")
        return reasons

    def start_recording(self) -> None:
        """Record from now on.  Raises: OperatorError when the folder cannot be written."""
        running = self.session.settings
        try:
            self.recorder.start(f"{self.name}-{running.feed}")
        except OSError as error:
            what = f"cannot record to {self.recorder.folder}: {error.strerror or error}"
            raise OperatorError(what, "Set MDL_RECORD_DIR to a writable folder") from None


def _bounds(settings: MdlSettings) -> Bounds:
    return Bounds(
        settings.record_file_bytes, settings.record_file_s, settings.record_bytes_max, settings.record_queue_bytes
    )  # fmt: skip
