"""Copies the leader's journal: connects, checks what arrives, writes it, says so, and connects again when that ends.

`Ack` follows the disk's write at once; the state is brought up to it after that. What cannot be right (a group that does not
follow, a leader of an earlier term) ends the connection and nothing of it is kept; what asking again cannot mend ends the process
with one line.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Callable
from pathlib import Path

import structlog
from websockets.asyncio.client import ClientConnection
from websockets.exceptions import InvalidStatus, WebSocketException

from engine.access.key_file import replace
from engine.journal.format import Record, Unfit
from engine.journal.journal import Journal, JournalRefused
from engine.recovery.snapshot_files import FileSnapshotStore
from engine.recovery.snapshot_format import Generation, SnapshotInvalid, StoredExchange, StoredSnapshot, decode
from engine.standby import frames
from engine.standby.assembly import Assembly
from engine.standby.frames import DATA, FILE, KEYS, SEGMENT, Ack, FileEnd, Hello, Refusal, Status, Unreadable
from engine.standby.line import CONNECT_S, Leader, Line, Refused, said_by
from service import metrics
from service.clock import Clock
from service.errors import OperatorError
from service.run import backoff_s

SILENCE_S = 5.0  # the leader says something every second
RETRY_S_MAX = 2.0
HERALD_S = 5.0  # between two tries to tell the leader of before
SNAPSHOT_BYTES_MAX = 4 << 30
PARTED = (
    "Nothing was changed here. With ENGINE_REWIND=true a start writes the commands that the leader never had into a file, takes "
    "them out of this journal, and follows"
)
log = structlog.get_logger()


class LeaderEarlier(Exception):
    """An engine of an earlier term offers its journal."""


class Follower:
    """The standby's end. `take` is told of the records that the journal has now; without it nothing is confirmed to the leader.

    `term` says the highest term that is known.

    `keys` is where the leader's key file goes, `snapshots` where its snapshot goes when its journal does not begin at the start.
    """

    def __init__(
        self, leader: Leader, name: str, journal: Journal, snapshots: Path, keys: Path, clock: Clock,
        term: Callable[[], int], take: Callable[[list[Record]], None] | None,
    ) -> None:  # fmt: skip
        self.problem = "it has not reached the leader yet"
        self.target_index: int | None = None  # where the leader was at the first connection
        self.leader_term = 0  # the highest that it has said
        self.leader_index = -1  # where it was when it was heard last
        self.heard_ns = 0
        self.when_parted = PARTED  # what to do about two histories
        self.filled = asyncio.Event()  # the journal has what the leader had at the first connection
        self._leader = leader
        self._line = Line(leader)
        self._name = name
        self._journal = journal
        self._snapshots = snapshots
        self._keys = keys
        self._clock = clock
        self._take = take
        self._term = term
        self._files: list[bytes] = []
        self._part = bytearray()
        self._copied = metrics.counter("engine", "replication_copied_bytes", "Bytes of the leader's journal written here")
        metrics.gauge("engine", "replication_behind_commands", "Indices of the leader that this standby lacks").set_function(
            lambda: self.missing
        )

    @property
    def missing(self) -> int:
        """How many indices the leader had more when it was heard last; -1 = it never was."""
        return max(0, self.leader_index - self._journal.last_index) if self.heard_ns else -1

    @property
    def heard_ms_ago(self) -> int:
        """When the leader was heard last; -1 = never."""
        return (self._clock.mono_ns() - self.heard_ns) // 1_000_000 if self.heard_ns else -1

    async def run(self) -> None:
        """Follow until cancelled.  Raises: OperatorError for what asking again does not mend; what `take` raises."""
        attempt = 0
        while True:
            try:
                async with asyncio.timeout(CONNECT_S):
                    socket = await self._line.connected()
                async with socket:
                    attempt = 0
                    await self._follow(socket)
            except Refused as error:
                self._refused(error.refusal)
            except InvalidStatus as error:
                self._complain(said_by(error))
            except JournalRefused as error:
                self._complain(f"this standby's disk: {error.what}")
            except (OSError, TimeoutError, WebSocketException, Unreadable, Unfit, LeaderEarlier, SnapshotInvalid) as error:
                self._complain(str(error) or f"{type(error).__name__}: the leader says nothing")
            await asyncio.sleep(backoff_s(attempt, random.random(), most_s=RETRY_S_MAX))
            attempt += 1

    async def herald(self) -> None:
        """Tell the leader of before, again and again until cancelled, that this engine leads: so it stops when it comes back."""
        while True:
            with contextlib.suppress(OSError, TimeoutError, WebSocketException, Unreadable):
                async with asyncio.timeout(CONNECT_S), await self._line.connected() as socket:
                    await socket.send(frames.encode(self._hello()))
                    said = frames.from_leader(str(await socket.recv()))
                    if isinstance(said, Refusal) and said.code == frames.DEPOSED:
                        log.warning("earlier_leader_stopped", url=self._leader.url, term=said.term)
            await asyncio.sleep(HERALD_S * (0.5 + random.random() / 2) if self.heard_ns else HERALD_S)

    def _hello(self) -> Hello:
        own = self._journal
        return Hello(self._name, self._term(), own.last_index, own.chain.hex(), own.segment_index)

    async def _follow(self, socket: ClientConnection) -> None:
        own = self._journal
        goes_on = own.segment_index >= 0
        assembly = Assembly(own.chain if goes_on else None, own.last_index + 1, own.kind if goes_on else 0)
        await socket.send(frames.encode(self._hello()))
        while True:
            async with asyncio.timeout(SILENCE_S):
                message = await socket.recv()
            if isinstance(message, str):
                self._hear(frames.from_leader(message))
            elif message[:1] == SEGMENT:
                assembly.announce(int.from_bytes(message[1:], "little"))
                continue
            elif message[:1] == DATA:
                records = self._write(assembly, memoryview(message)[1:])
                try:
                    await socket.send(self._ack())
                finally:  # the leader may be gone, or this engine be promoted: what the journal has the state must have
                    if records and self._take is not None:
                        self._take(records)
                self._look()
                continue
            elif message[:1] == FILE:
                self._part += memoryview(message)[1:]
                if len(self._part) + sum(map(len, self._files)) > SNAPSHOT_BYTES_MAX:
                    raise Unreadable("the leader's snapshot is larger than 4 GB")
            elif message[:1] == KEYS:
                await asyncio.to_thread(self._keep_keys, message[1:])
            await socket.send(self._ack())

    def _ack(self) -> str:
        """Return what says how far the disk is. A standby that is filled cannot take over yet: it confirms nothing."""
        return frames.encode(Ack(self._term(), self._journal.last_index if self._take is not None else frames.NOTHING))

    def _hear(self, said: Status | Refusal | FileEnd) -> None:
        if isinstance(said, Refusal):
            raise Refused(said)
        if isinstance(said, FileEnd):
            self._files.append(bytes(self._part))
            self._part.clear()
            if not said.left:
                self._keep_snapshot()
            return
        if said.term < self._term():
            raise LeaderEarlier(f"{self._leader.url} leads in term {said.term}, and term {self._term()} has begun")
        self.leader_term = said.term
        self.leader_index, self.heard_ns = said.index, self._clock.mono_ns()
        if self.target_index is None:
            self.target_index = said.index
        if self.problem:
            log.info("standby_follows", leader=self._leader.url, index=self._journal.last_index, leader_index=said.index)
            self.problem = ""
        self._look()

    def _look(self) -> None:
        if not self._files and self.target_index is not None and self._journal.last_index >= self.target_index:
            self.filled.set()

    def _write(self, assembly: Assembly, content: memoryview) -> list[Record]:
        whole = assembly.take(content)
        if whole.beginning is not None:
            self._journal.copy_segment(*whole.beginning)
        if whole.content:
            self._journal.copy(whole.content, whole.chain, whole.records[-1].command_index)
            self._copied.inc(len(whole.content))
        return whole.records

    def _keep_snapshot(self) -> None:
        """Keep the leader's snapshot: its journal begins later than the exchange did.  Raises: SnapshotInvalid, OSError."""
        exchange, markets = self._files[0], self._files[1:]
        generation = Generation(decode(exchange, StoredExchange), [decode(one, StoredSnapshot) for one in markets])
        self._files.clear()
        FileSnapshotStore(self._snapshots).write_generation(generation)
        log.info("standby_snapshot", index=generation.exchange.engine_sequence)

    def _keep_keys(self, content: bytes) -> None:
        """Have the leader's keys here, too; a file that cannot be written is said and changes nothing."""
        try:
            if not self._keys.exists() or self._keys.read_bytes() != content:
                replace(self._keys, content)
        except (OSError, OperatorError) as error:
            log.warning("keys_not_copied", file=str(self._keys), error=str(error), fix="Give a file that can be written")

    def _refused(self, refusal: Refusal) -> None:
        if refusal.code in frames.FINAL:
            fix = self.when_parted if refusal.code == frames.DIVERGED else "Nothing was changed here"
            raise OperatorError(f"{self._leader.url} refuses this standby: {refusal.detail}", fix, 3)
        self._complain(refusal.detail)

    def _complain(self, what: str) -> None:
        self._files.clear()
        self._part.clear()
        if what != self.problem:
            log.warning("standby_not_following", leader=self._leader.url, why=what)
        self.problem = what
