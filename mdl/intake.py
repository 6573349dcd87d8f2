"""Routes frames to the publisher: buffer → router → publisher, with the gate before a lossless replay.

Invariant: `take` never waits. Whoever must not lose anything awaits `room()` before the next frame.
"""

from __future__ import annotations

import asyncio
import contextlib

import structlog
from msgspec import DecodeError

from mdl.buffer import FrameBuffer
from mdl.feeds.feed import Frame
from mdl.gate import Key, ReplayGate
from mdl.measured_broker import MeasuredBroker
from mdl.router import Event, Router
from mdq.broker import BrokerUnavailable, Delivery, Subscription
from mdq.progress import EVERY_S, from_batch
from mdq.publisher import Publisher
from mdq.topology import progress_queue
from service.clock import Clock

TURN_NS = 2_000_000  # routing yields to the sockets so often
GATE_S = 0.005
PREFETCH = 1000  # progress reports; they are acknowledged ten times a second
ROOM_SHARE = 0.5
AHEAD_BYTES_MAX = 4 * 1024 * 1024  # a lossless source need not run further ahead of the routing
PATIENCE_S = 0.02
PATIENCE_MS = 500  # frames that wait for so long will not get younger: a source that can keep its own had better do so
SAMPLES_S_MAX = 5  # malformed frames shown in the log a second
OK_STATUSES = {"connected", "auth_success", "success"}
log = structlog.get_logger()


class Intake:
    """The hot path of one source. Run `route()` and `watch_progress()` as tasks, `attach` a publisher for each tenure."""

    def __init__(self, source: str, buffer: FrameBuffer, partitions: int, broker: MeasuredBroker, clock: Clock) -> None:
        self.buffer = buffer
        self.router = Router(partitions, self._on_bad)
        self.gate = ReplayGate(source, "")
        self.received_frames = 0
        self.waiting_for = ""
        self.vendor_status = ""
        self._source = source
        self._publisher: Publisher | None = None
        self._broker = broker
        self._clock = clock
        self._run = 0  # of the events routed last
        self._lossless = False
        self._wake = asyncio.Event()
        self._room = asyncio.Event()
        self._samples_left = SAMPLES_S_MAX
        self._busy = False
        self._last_tag = 0
        self._feed_ns: int | None = None
        self.dropped_events = 0  # routed when there was nobody to hand them to

    def attach(self, publisher: Publisher) -> None:
        """Hand events to this publisher from now on."""
        self._publisher = publisher
        self._run = 0
        publisher.lossless = self._lossless
        self.gate = ReplayGate(self._source, publisher.epoch)

    def detach(self) -> None:
        """There is nobody to hand events to; what waits is dropped and counted."""
        self.buffer.clear()
        self._publisher = None
        self._room.set()

    @property
    def idle(self) -> bool:
        """Whether everything taken was handed to the publisher."""
        return not len(self.buffer) and not self._busy

    @property
    def lossless(self) -> bool:
        return self._lossless

    @lossless.setter
    def lossless(self, value: bool) -> None:
        self._lossless = value
        if self._publisher is not None:
            self._publisher.lossless = value
        self.gate.forget()
        self.waiting_for = ""

    def take(self, frame: Frame) -> None:
        """Take a frame; the oldest go when there are too many."""
        self.received_frames += 1
        self.buffer.push(frame)
        self._wake.set()

    async def room(self) -> None:
        """Wait until the buffer has room for a lossless source."""
        most = min(AHEAD_BYTES_MAX, ROOM_SHARE * self.buffer.bytes_max)
        while self.buffer.bytes > most:
            self._room.clear()
            await self._room.wait()

    async def flow(self) -> None:
        """Wait, for a source that keeps what it is not asked for, until what it gives would be on its way at once."""
        while not self._broker.ready or self.buffer.age_ms(self._clock.wall_ns()) > PATIENCE_MS:  # noqa: ASYNC110  # no event tells
            await asyncio.sleep(PATIENCE_S)

    async def drained(self) -> None:
        """Wait until everything taken was handed to the publisher (or has grown too old)."""
        while not self.idle:
            self._room.clear()
            await self._room.wait()

    async def route(self) -> None:
        """Route until cancelled."""
        while True:
            if not len(self.buffer):
                self._busy = False
                self._room.set()
                self._wake.clear()
                await self._wake.wait()
                continue
            self._busy = True
            first_ns = self._route_some()
            taken = self.router.take()
            if self._lossless:
                await self._pass_gate({(stream, partition) for stream, partition, _ in taken})
            self._hand_over(taken, first_ns)
            self._room.set()
            if self._publisher is not None and self._publisher.full:
                await self._publisher.room()
            await asyncio.sleep(0)

    def expire(self, now_ns: int) -> None:
        """Let what is too old go, unless nothing may be lost."""
        if not self._lossless:
            self.buffer.expire(now_ns)
            self._room.set()

    def renew_samples(self) -> None:
        """Once a second: allow new samples of bad frames in the log."""
        self._samples_left = SAMPLES_S_MAX

    def _route_some(self) -> int:
        """Route frames of one run for one turn; return when the first of them arrived."""
        buffer, route = self.buffer, self.router.route
        clock_ns = self._clock.mono_ns
        end_ns = clock_ns() + TURN_NS
        frame = buffer.pop()
        first_ns, self._feed_ns = frame.received_ns, frame.feed_ns
        if frame.run != self._run:
            self._begin_run(frame.run)
        route(frame.data)
        while len(buffer) and clock_ns() < end_ns and buffer.next_run == self._run:
            frame = buffer.pop()
            self._feed_ns = frame.feed_ns
            route(frame.data)
        if self.router.statuses:
            self._hear_vendor()
        return first_ns

    def _begin_run(self, run: int) -> None:
        self._run = run
        if self._publisher is not None:
            self._publisher.begin_run(run)

    def _hand_over(self, taken: list[tuple[str, int, list[Event]]], first_ns: int) -> None:
        publisher, note = self._publisher, self.gate.handed
        now_ns = self._clock.mono_ns()
        if publisher is None:
            self.dropped_events += sum(len(events) for _, _, events in taken)
            return
        publisher.feed_ns = self._feed_ns
        for stream, partition, events in taken:
            note((stream, partition), len(events), now_ns)
            publisher.add(stream, partition, events, first_ns, self._feed_ns)

    def _hear_vendor(self) -> None:
        for told in self.router.statuses:
            if told.status not in OK_STATUSES:
                self.vendor_status = f"{told.status}: {told.message}"
                log.warning("vendor_status", status=told.status, message=told.message)
        self.router.statuses.clear()

    def _on_bad(self, why: str, sample: bytes) -> None:
        if self._samples_left > 0:
            self._samples_left -= 1
            log.warning("malformed_frame", error=why, sample=sample.decode(errors="replace"))

    # --- the gate

    async def _pass_gate(self, keys: set[Key]) -> None:
        while self._lossless and not self.gate.passes(keys, self._clock.mono_ns()):
            unread = self.gate.unread(keys, self._clock.mono_ns())
            self.waiting_for = f"processors to read partition {', '.join(map(str, sorted(unread)))}" if unread else ""
            await asyncio.sleep(GATE_S)
        self.waiting_for = ""

    async def watch_progress(self) -> None:
        """While the source is lossless, hear how far the processors are."""
        subscription: Subscription | None = None
        while True:
            if self._lossless and (subscription is None or not subscription.live):
                subscription = await self._subscribe()
            elif subscription is not None and not self._lossless:
                await subscription.close()
                subscription = None
            if subscription is not None:
                with contextlib.suppress(BrokerUnavailable):
                    await subscription.ack(self._last_tag)
            await asyncio.sleep(EVERY_S)

    async def _subscribe(self) -> Subscription | None:
        self._last_tag = 0
        try:
            queues = [progress_queue(self._source)]
            made: Subscription = await self._broker.subscribe(queues, self._on_progress, lambda *_: None, PREFETCH)
            return made
        except BrokerUnavailable:
            return None

    def _on_progress(self, delivery: Delivery) -> None:
        self._last_tag = delivery.tag
        try:
            self.gate.report(from_batch(delivery.batch), self._clock.mono_ns())
        except DecodeError as error:
            log.warning("progress_not_understood", error=str(error))
