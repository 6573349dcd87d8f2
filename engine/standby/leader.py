"""Sends the journal to the one standby an engine may have, hears what the standby's disk has, and stops for a later leader.

Bytes are read from the journal's files, up to the last group that is committed: a standby that catches up and one that is in
step are served alike, and a slow one costs one message of memory. One standby, not several: with two, each could confirm what
the other one lacks, and whichever is promoted would lack something that was acknowledged.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Protocol

import msgspec
import structlog

from engine.journal.format import START
from engine.journal.reader import beginning
from engine.journal.sequencer import Sequencer
from engine.recovery.snapshot_files import FileSnapshotStore
from engine.recovery.snapshot_format import SnapshotInvalid, encode
from engine.standby import frames
from engine.standby.frames import DATA, FILE, KEYS, PART_BYTES, SEGMENT, Ack, FileEnd, Hello, Refusal, Status, Trace, Unreadable
from engine.standby.role import AGAIN
from engine.standby.source import Bytes, chains, find
from service import metrics
from service.clock import Clock
from service.errors import OperatorError

HELLO_S = 5.0
STATUS_S = 1.0
SILENCE_S = 5.0  # an `Ack` follows each `Status`: who says nothing for so long is gone
ALL = 1 << 63
log = structlog.get_logger()


class Channel(Protocol):
    """One WebSocket. What is received is text; the end of it, or a fault, is an OSError."""

    async def send(self, message: str | bytes) -> None: ...

    async def receive(self) -> str: ...


class Deposed(OperatorError):
    """Another engine leads in a later term."""

    def __init__(self, term: int, own: int, name: str) -> None:
        what = f"{name} leads in term {term}, and this engine led in term {own}: it stops, and takes no command any more"
        super().__init__(what, AGAIN, exit_code=3)
        self.term = term


class Standby(msgspec.Struct):
    """The standby that is connected. `index` is what its disk has, -1 before it has said so."""

    name: str
    since_ns: int
    index: int = -1
    heard_ns: int = 0


class Standbys:
    """The leader's end. `deposed` is called with the later term before the engine stops."""

    def __init__(
        self, sequencer: Sequencer, journal: Path, snapshots: Path, keys: Path, clock: Clock, deposed: Callable[[Deposed], None]
    ) -> None:
        self.standby: Standby | None = None
        self.sync = False
        self._sequencer = sequencer
        self._journal = journal
        self._snapshots = snapshots
        self._keys = keys
        self._clock = clock
        self._deposed = deposed
        self._wake = asyncio.Event()
        self._serving: asyncio.Task[None] | None = None
        self._behind_ns = 0  # since when the standby's disk has lacked something
        self._confirm_ms = metrics.histogram("engine", "replication_confirm_ms", "From this disk's write to the standby's word")
        self._sent = metrics.counter("engine", "replication_sent_bytes", "Bytes of the journal sent to the standby")
        metrics.gauge("engine", "replication_standbys", "Standbys that are connected, 0 or 1").set_function(
            lambda: self.standby is not None
        )
        metrics.gauge("engine", "replication_lag_commands", "Indices the standby's disk lacks; -1 = no standby").set_function(
            lambda: self.lag_commands
        )
        metrics.gauge("engine", "replication_lag_ms", "For how long it has lacked something; -1 = no standby").set_function(
            lambda: self.lag_ms
        )
        metrics.gauge("engine", "replication_term", "Term of the leader").set_function(lambda: sequencer.term)
        sequencer.on_written = self._written

    @property
    def lag_commands(self) -> int:
        """How many indices the standby's disk lacks, -1 without a standby."""
        return -1 if self.standby is None else max(0, self._sequencer.journal.last_index - self.standby.index)

    @property
    def lag_ms(self) -> int:
        """For how long it has lacked something, -1 without a standby."""
        if self.standby is None:
            return -1
        return (self._clock.mono_ns() - self._behind_ns) // 1_000_000 if self.lag_commands else 0

    @property
    def needed_index(self) -> int:
        """Up to which index the standby needs this journal no more."""
        return ALL if self.standby is None else self.standby.index

    def _written(self) -> None:
        if self.standby is not None and self.standby.index >= 0 and not self._wake.is_set() and self._behind_ns == 0:
            self._behind_ns = self._clock.mono_ns()
        self._wake.set()

    # One standby

    async def serve(self, channel: Channel) -> None:
        """Serve a standby until it goes, or is refused.  Raises: OSError, Unreadable, TimeoutError."""
        hello = await self._hello(channel)
        if hello is None:
            return
        place = self._refusal(hello) or await self._place(hello)
        if isinstance(place, Bytes) and (late := self._refusal(hello)) is not None:  # another one came meanwhile
            place = late
        if isinstance(place, Refusal):
            if place.code != frames.NOT_THE_LEADER:  # who leads asks every few seconds whether the one before still does
                log.warning("standby_refused", standby=hello.name, code=place.code, detail=place.detail)
            await channel.send(frames.encode(place))
            return
        if self._serving is not None:  # the same standby again: its old connection is dead, and does not know it
            self._serving.cancel()
            await asyncio.wait({self._serving})
        self._serving = asyncio.current_task()
        now_ns = self._clock.mono_ns()
        self.standby, self._behind_ns = Standby(hello.name, self._clock.wall_ns(), hello.index), now_ns
        log.info("standby_connected", standby=hello.name, index=hello.index, sync=self.sync)
        try:
            await self._stream(channel, place, hello)
        finally:
            place.close()
            self.standby = self._serving = None
            log.warning("standby_gone", standby=hello.name)
            self._sequencer.alone(f"the standby {hello.name} is gone")

    async def _hello(self, channel: Channel) -> Hello | None:
        """Return what a standby opens with, None when it was refused; until then say where journals part, if it asks for that."""
        while True:
            async with asyncio.timeout(HELLO_S):
                said = frames.from_standby(await channel.receive())
            if isinstance(said, Hello):
                return said
            if not isinstance(said, Trace):
                raise Unreadable("the first message of a standby is its hello")
            if (refusal := self._refusal(said)) is not None:
                await channel.send(frames.encode(refusal))
                return None
            await channel.send(self._status())
            await channel.send(frames.CHAINS + await asyncio.to_thread(chains, self._journal, said.segment))

    async def _stream(self, channel: Channel, source: Bytes, hello: Hello) -> None:
        tasks = [asyncio.create_task(self._send(channel, source, hello)), asyncio.create_task(self._hear(channel))]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
            found = await asyncio.gather(*tasks, return_exceptions=True)
        for error in found:
            if isinstance(error, Exception):
                raise error

    def _refusal(self, hello: Hello | Trace) -> Refusal | None:
        own, term = self._sequencer, self._sequencer.term
        if hello.term > term and not own.leader:
            self._stop(hello.term, hello.name)
            return Refusal(frames.DEPOSED, f"Term {hello.term} is later than {term}; this engine stops.", term)
        if hello.version != frames.VERSION:
            what = f"The standby speaks version {hello.version}, this engine {frames.VERSION}: start the same version of both."
            return Refusal(frames.UNKNOWN_VERSION, what, term)
        if own.leader:
            return Refusal(
                frames.NOT_THE_LEADER, f"This engine follows {own.leader}; set ENGINE_FOLLOW to that.", term, own.leader
            )
        if self.standby is not None and self.standby.name != hello.name:
            what = f"This engine has a standby, {self.standby.name}; stop that one first."
            return Refusal(frames.TAKEN, what, term)
        return None

    def _stop(self, term: int, name: str) -> None:
        why = Deposed(term, self._sequencer.term, name)
        log.error("engine_deposed", term=term, by=name)
        self._deposed(why)
        self._sequencer.stop_leading(why)

    async def _place(self, hello: Hello) -> Bytes | Refusal:
        """Return the reader of what follows a standby's journal, or why there is none."""
        term, last = self._sequencer.term, self._sequencer.journal.last_index
        first, _ = await asyncio.to_thread(beginning, self._journal)
        again = "Start it with an empty ENGINE_DIR (keep a copy of that one), and it copies everything anew."
        if hello.index < 0:
            return Bytes(self._journal, None)
        if hello.index > last:
            what = f"The standby's journal ends at index {hello.index}, the leader's at {last}: they tell two histories. {again}"
            return Refusal(frames.DIVERGED, what, term)
        place = await asyncio.to_thread(find, self._journal, hello.index, bytes.fromhex(hello.chain), hello.segment)
        if place is not None:
            return Bytes(self._journal, place)
        if hello.index < first - 1:
            what = (
                f"The standby's journal ends at index {hello.index}, the leader's begins at {first}: what is between is archived."
            )
            return Refusal(frames.TOO_OLD, f"{what} {again}", term)
        what = f"Up to index {hello.index} the standby's journal and the leader's tell two histories. {again}"
        return Refusal(frames.DIVERGED, what, term)

    async def _send(self, channel: Channel, source: Bytes, hello: Hello) -> None:
        await channel.send(self._status())
        if hello.index < 0:
            await self._send_snapshot(channel)
        keys, told_ns = b"", self._clock.mono_ns()
        while True:
            self._wake.clear()
            while found := self._next(source):
                await channel.send(found)
            if (now_ns := self._clock.mono_ns()) - told_ns >= STATUS_S * 1e9 or not keys:
                told_ns = now_ns
                await channel.send(self._status())
                keys = await self._send_keys(channel, keys) or b"-"
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(STATUS_S):
                    await self._wake.wait()

    def _next(self, source: Bytes) -> bytes:
        """Return the next message about the journal, nothing at its committed end."""
        begins, content = source.take(self._sequencer.journal.end, PART_BYTES)
        if begins is not None:
            return SEGMENT + begins.to_bytes(8, "little")
        self._sent.inc(len(content))
        return DATA + content if content else b""

    def _status(self) -> str:
        return frames.encode(Status(self._sequencer.term, self._sequencer.journal.last_index, self._clock.wall_ns(), self.sync))

    async def _send_keys(self, channel: Channel, sent: bytes) -> bytes:
        """Send the key file when it is another one, so that customers' keys count after a promotion, too."""
        try:
            content = self._keys.read_bytes()
        except OSError:
            return sent
        if content != sent:
            await channel.send(KEYS + content)
        return content

    async def _send_snapshot(self, channel: Channel) -> None:
        """Send the newest snapshot when the journal's beginning is archived.  Raises: OSError when there is none."""
        _, before = await asyncio.to_thread(beginning, self._journal)
        if before == START:
            return
        files = await asyncio.to_thread(self._snapshot)
        for number, content in enumerate(files):
            for at in range(0, len(content), PART_BYTES):
                await channel.send(FILE + content[at : at + PART_BYTES])
            await channel.send(frames.encode(FileEnd(len(files) - number - 1)))

    def _snapshot(self) -> list[bytes]:
        return next(self._snapshots_kept())

    def _snapshots_kept(self) -> Iterator[list[bytes]]:
        store = FileSnapshotStore(self._snapshots)
        for sequence in reversed(store.sequences()):
            with contextlib.suppress(SnapshotInvalid, OSError):
                generation = store.read_generation(sequence)
                yield [encode(generation.exchange), *map(encode, generation.markets)]
        raise OSError("the journal's beginning is archived, and there is no valid snapshot")

    async def _hear(self, channel: Channel) -> None:
        while True:
            async with asyncio.timeout(SILENCE_S):
                said = frames.from_standby(await channel.receive())
            if not isinstance(said, Ack):
                raise Unreadable("a standby says hello once")
            if said.term > self._sequencer.term:
                self._stop(said.term, self.standby.name if self.standby else "a standby")
                return
            if said.index > self._sequencer.journal.last_index:
                raise Unreadable(f"a standby confirms index {said.index}, which was never sent")
            self._confirmed(said.index)

    def _confirmed(self, index: int) -> None:
        now_ns, standby, last = self._clock.mono_ns(), self.standby, self._sequencer.journal.last_index
        assert standby is not None
        standby.index, standby.heard_ns = index, now_ns
        if index >= last:
            self._behind_ns = 0
        if written_ns := self._sequencer.waiting_ns:
            self._confirm_ms.observe((now_ns - written_ns) / 1e6)
        self._sequencer.in_step(index)
