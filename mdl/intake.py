"""Frames in, their events handed to the publisher out: buffer → router → publisher, and the gate before a lossless replay.

Invariant: `take` never waits. Whoever must not lose anything awaits `room()` before the next frame.
"""

from __future__ import annotations

import asyncio
import time
from asyncio import Future

import structlog

from mdl.buffer import FrameBuffer
from mdl.feed import Frame
from mdl.gate import SAMPLE_S, Key, ReplayGate
from mdl.measured_broker import MeasuredBroker
from mdl.router import Event, Router
from mdq.batch import Batch
from mdq.broker import BrokerUnavailable
from mdq.publisher import Publisher
from mdq.topology import Queue, queue

TURN_NS = 2_000_000  # routing yields to the sockets so often
PROBE_S = 0.2
ROOM_SHARE = 0.5
SAMPLES_S_MAX = 5  # malformed frames shown in the log a second
OK_STATUSES = {"connected", "auth_success", "success"}
log = structlog.get_logger()


class Intake:
    """The hot path. Run `route()` and `watch_queues()` as tasks."""

    def __init__(self, buffer: FrameBuffer, publisher: Publisher, broker: MeasuredBroker) -> None:
        self.buffer = buffer
        self.router = Router(publisher.partitions, self._on_bad)
        self.gate = ReplayGate()
        self.received_frames = 0
        self.waiting_for = ""
        self.vendor_status = ""
        self._publisher = publisher
        self._broker = broker
        self._lossless = False
        self._wake = asyncio.Event()
        self._room = asyncio.Event()
        self._samples_left = SAMPLES_S_MAX
        self._busy = False

    @property
    def idle(self) -> bool:
        """Whether everything taken was handed to the publisher."""
        return not len(self.buffer) and not self._busy

    @property
    def lossless(self) -> bool:
        return self._lossless

    @lossless.setter
    def lossless(self, value: bool) -> None:
        self._lossless = self._publisher.lossless = value
        self.gate.shut()
        self.waiting_for = ""

    def take(self, frame: Frame) -> None:
        """Take a frame; the oldest go when there are too many."""
        self.received_frames += 1
        self.buffer.push(frame)
        self._wake.set()

    async def room(self) -> None:
        """Wait until the buffer is less than half full."""
        while self.buffer.bytes > ROOM_SHARE * self.buffer.bytes_max:
            self._room.clear()
            await self._room.wait()

    async def route(self) -> None:
        """Route until cancelled."""
        while True:
            if not len(self.buffer):
                self._busy = False
                self._wake.clear()
                await self._wake.wait()
            self._busy = True
            first_ns = self._route_some()
            taken = self.router.take()
            if self._lossless:
                await self._pass_gate({(stream, partition) for stream, partition, _ in taken})
                self.gate.spend(sum(len(events) for _, _, events in taken))
            self._hand_over(taken, first_ns)
            self._room.set()
            if self._publisher.full:
                await self._publisher.room()
            await asyncio.sleep(0)

    def expire(self, now_ns: int) -> None:
        """Let what is too old go, unless nothing may be lost."""
        if not self._lossless:
            self.buffer.expire(now_ns)

    def renew_samples(self) -> None:
        """Once a second: allow new samples of bad frames in the log."""
        self._samples_left = SAMPLES_S_MAX

    def _route_some(self) -> int:
        """Route frames for one turn; return when the first of them arrived."""
        buffer, route = self.buffer, self.router.route
        end_ns = time.monotonic_ns() + TURN_NS
        frame = buffer.pop()
        first_ns = frame.received_ns
        route(frame.data)
        while len(buffer) and time.monotonic_ns() < end_ns:
            route(buffer.pop().data)
        if self.router.statuses:
            self._hear_vendor()
        return first_ns

    def _hand_over(self, taken: list[tuple[str, int, list[Event]]], first_ns: int) -> None:
        add = self._publisher.add
        for stream, partition, events in taken:
            add(stream, partition, events, first_ns)

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

    # --- the gate's eyes and hands

    async def _pass_gate(self, keys: set[Key]) -> None:
        while self._lossless and not self.gate.passes(keys):
            missing = keys - self.gate.proven
            if not missing:
                await asyncio.sleep(SAMPLE_S / 10)
                continue
            await self._prove(missing)
            if missing - self.gate.proven:
                self.waiting_for = "the processors to read the queues"
                await asyncio.sleep(PROBE_S)
        self.waiting_for = ""

    async def _prove(self, keys: set[Key]) -> None:
        """Put a mark into each queue and see whether it is taken."""
        try:
            async with asyncio.timeout(2):
                await asyncio.gather(*self._publish_marks(keys))
                for pause_s in (0.0, 0.01, SAMPLE_S):
                    await asyncio.sleep(pause_s)
                    left = keys - self.gate.proven
                    self.gate.prove(await self._depths(left))
        except (BrokerUnavailable, TimeoutError):
            self.gate.shut()

    def _publish_marks(self, keys: set[Key]) -> list[Future[None]]:
        now_ns = time.time_ns()
        used = {(item.stream, item.partition) for item in self._publisher.queues}
        marks = [mark for mark in self._publisher.batcher.marks(now_ns) if (mark.stream, mark.partition) in keys]
        if len(marks) < len(keys & used):
            raise BrokerUnavailable("batches wait for the broker")
        marks += [Batch(stream, p, self._publisher.epoch, 0, 0, now_ns, now_ns, b"[]") for stream, p in keys - used]
        return [self._broker.publish(mark) for mark in marks]

    async def _depths(self, keys: set[Key]) -> dict[Key, int]:
        queues: dict[Key, Queue] = {key: queue(*key) for key in keys}
        depths: dict[str, int] = await self._broker.depths(list(queues.values()))
        return {key: depths[item.name] for key, item in queues.items()}

    async def watch_queues(self) -> None:
        """While the source is lossless, look at the queues and keep the gate."""
        while True:
            if self._lossless and self.gate.proven:
                try:
                    depths = await self._depths(self.gate.proven)
                    published = self._publisher.published.total()
                    self.gate.sample(sum(depths.values()), published, self._broker.batches, time.monotonic_ns())
                except BrokerUnavailable:
                    self.gate.shut()
            await asyncio.sleep(SAMPLE_S)
