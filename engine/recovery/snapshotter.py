"""Writes snapshots in a process of its own, which follows the journal, so that they cost the engine nothing.

The child recovers like the engine, follows the journal, and writes a generation every interval when something changed. A
journal's end may be taken back by a disk that refuses it, so the parent says, line by line on the child's stdin, which index
with which chain is committed: the child goes no further, and ends when it finds another chain. It ends with its parent, too:
stdin closes then, and Linux kills it besides.

stdin: `index chain written`, chain in hex, `written` the index up to which other readers need no journal any more.
stdout: `newest oldest`, the indices of the snapshots there are: at the start and after each new one.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import gc
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import msgspec
import structlog

from engine.journal.format import Record
from engine.journal.retention import archive_segments, done_index
from engine.recovery.replay import ALL, Follower, NotOneHistory
from engine.recovery.snapshot import snapshot
from engine.recovery.snapshot_files import KEPT, FileSnapshotStore
from service import logs, metrics
from service.errors import OperatorError
from service.run import GC_THRESHOLD, fail

TELL_S_MAX = 1.0  # between two lines to the child
FIRST_PAUSE_S, PAUSE_S_MAX = 0.2, 60.0  # between two lives of the child
DEATHS_TOLD = 3  # in a row, before the exchange says that it is not ready
SETTLED_S = 60.0  # who lived that long starts again soon
NICENESS = 10
READ_BYTES = 65_536
PR_SET_PDEATHSIG = 1
log = structlog.get_logger()


class Task(msgspec.Struct, frozen=True):
    """What the child is started with. `archive` is where segments go that nobody needs; "" = they stay, or go with `prune`."""

    journal: str
    snapshots: str
    interval_ms: int
    kept: int = KEPT
    archive: str = ""
    prune: bool = False
    log_level: str = "info"
    log_format: str = "json"


# The child


def main(task: Task) -> None:
    """Write snapshots until stdin ends.

    Raises: OperatorError, AssertionError or KeyError when the journal is not what was said: the parent starts it anew.
    """
    _end_with_parent()
    os.nice(NICENESS)
    gc.set_threshold(*GC_THRESHOLD)
    writer = _Writer(task)
    due_s = time.monotonic()
    for line in _newest_lines(0):
        index, chain, written = line.split()
        writer.follow(int(index), chain.decode())
        if time.monotonic() >= due_s and writer.changed:
            writer.write(int(written))
            due_s = time.monotonic() + task.interval_ms / 1000


class _Writer:
    """The state as far as it is committed, and its snapshots."""

    def __init__(self, task: Task) -> None:
        self._journal_folder = Path(task.journal)
        self._store = FileSnapshotStore(Path(task.snapshots), task.kept)
        self._archive = Path(task.archive) if task.archive else None
        self._keeps_all = not (task.archive or task.prune)
        self._follower: Follower | None = None
        self._snapshot_index = -1

    @property
    def changed(self) -> bool:
        """Whether the newest snapshot lacks something."""
        return self._follower is not None and self._follower.last_index > self._snapshot_index

    def follow(self, index: int, chain: str) -> None:
        """Go on to what is committed.  Raises: NotOneHistory and whatever `Follower` raises."""
        if self._follower is None:
            self._follower = Follower(self._journal_folder, self._store.folder)
            self._snapshot_index = self._follower.snapshot_index
            self._report()
        self._follower.follow(index)
        if (self._follower.last_index, self._follower.chain.hex()) != (index, chain):
            what = f"The journal has index {self._follower.last_index} where {index} is committed, or another history"
            raise NotOneHistory(what, "Nothing: the snapshots go on from the journal as it is now")

    def write(self, written: int) -> None:
        """Write a generation; a disk that refuses is tried again at the next one."""
        follower = self._follower
        assert follower is not None
        began_s = time.monotonic()
        generation = snapshot(
            follower.state, follower.last_index, follower.chain, time.time_ns(), follower.time_ns, follower.accepted_ms
        )
        try:
            self._store.write_generation(generation)
        except OSError as error:
            log.warning("snapshot_failed", index=follower.last_index, error=str(error), fix="Make room; it is tried again")
            return
        self._snapshot_index = follower.last_index
        log.info("snapshot_written", index=follower.last_index, seconds=round(time.monotonic() - began_s, 3))
        self._report()
        if not self._keeps_all:
            self._put_away(done_index(self._store.sequences()[0], follower.state.stores.values(), written))

    def _put_away(self, done: int) -> None:
        try:
            moved = archive_segments(self._journal_folder, self._archive, done)
        except OSError as error:
            log.warning("journal_not_archived", error=str(error), fix="Make room in the archive; it is tried again")
            return
        if moved:
            log.info(
                "journal_archived" if self._archive else "journal_pruned", segments=len(moved), first=moved[0], last=moved[-1]
            )

    def _report(self) -> None:
        sequences = self._store.sequences()
        if sequences:
            print(self._snapshot_index, sequences[0], flush=True)


def _newest_lines(file: int) -> Iterator[bytes]:
    """Yield the last whole line of what has come, again and again until the end of the file."""
    rest = b""
    while content := os.read(file, READ_BYTES):
        lines = (rest + content).split(b"\n")
        rest = lines.pop()
        if lines:
            yield lines[-1]


def _end_with_parent() -> None:
    with contextlib.suppress(OSError, AttributeError):  # elsewhere than on Linux the end of stdin must do
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


# The parent


class SnapshotterProcess:
    """Keeps the child alive and tells it what is committed. Feed it by `Sequencer.on_commit(process.on_commit)`."""

    def __init__(
        self, task: Task, last_index: int, chain: bytes, snapshot_index: int = -1, written: Callable[[], int] = lambda: ALL
    ) -> None:
        self.newest_index = snapshot_index
        self.oldest_index = -1  # that is kept; -1 = none, or not known yet
        self.restarts = 0
        self.problem = ""  # why no snapshots are written now, in words
        self.pid: int | None = None
        assert task.interval_ms > 0, "without an interval there is nothing to start"
        self._task = task
        self._committed = last_index, chain
        self._written = written
        self._snapshot_s = time.monotonic()
        metrics.gauge(
            "engine", "snapshot_age_seconds", "Since the newest snapshot was written; 0 while it holds everything"
        ).set_function(lambda: self.age_s)
        metrics.gauge("engine", "snapshot_index", "Index of the newest snapshot").set_function(lambda: self.newest_index)
        self._restarts = metrics.counter("engine", "snapshotter_restarts", "Times the process that writes snapshots had died")

    @property
    def age_s(self) -> float:
        """Seconds since the newest snapshot was written, or since the start; 0 while nothing has happened after it."""
        return 0.0 if self.newest_index >= self._committed[0] else time.monotonic() - self._snapshot_s

    def on_commit(self, records: Sequence[Record]) -> None:
        """Note a committed group."""
        self._committed = records[-1].command_index, records[-1].chain

    async def run(self) -> None:
        """Keep the child alive until this is cancelled; then it is killed, which harms no snapshot."""
        deaths = 0
        while True:
            began_s = time.monotonic()
            try:
                why = f"its process ended with {await self._live()}"
            except OSError as error:  # no memory, no process, no descriptor now: that may pass
                why = f"its process cannot be started: {error}"
            deaths = 1 if time.monotonic() - began_s > SETTLED_S else deaths + 1
            pause_s = min(PAUSE_S_MAX, FIRST_PAUSE_S * 2 ** min(deaths, 20))
            if deaths >= DEATHS_TOLD:
                self.problem = f"no snapshots are written, {deaths} times in a row {why}"
            log.warning("snapshotter_died", why=why, deaths=deaths, pause_s=pause_s)
            await asyncio.sleep(pause_s)
            self.restarts += 1
            self._restarts.inc()

    async def _live(self) -> int:
        pipe = asyncio.subprocess.PIPE
        arguments = (sys.executable, "-m", "engine.recovery.snapshotter", msgspec.json.encode(self._task).decode())
        process = await asyncio.create_subprocess_exec(*arguments, stdin=pipe, stdout=pipe, start_new_session=True)
        assert process.stdin is not None
        assert process.stdout is not None
        self.pid = process.pid

        def check(talk: asyncio.Task[None]) -> None:
            if not talk.cancelled() and talk.exception() is not None:
                log.error("snapshotter_talk_failed", exc_info=talk.exception())
                with contextlib.suppress(ProcessLookupError):
                    process.kill()

        talks = [asyncio.create_task(self._tell(process.stdin)), asyncio.create_task(self._hear(process.stdout))]
        for talk in talks:
            talk.add_done_callback(check)
        try:
            return await process.wait()
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
            self.pid = None
            for talk in talks:
                talk.cancel()
            await asyncio.gather(*talks, return_exceptions=True)

    async def _tell(self, stdin: asyncio.StreamWriter) -> None:
        pause_s = min(TELL_S_MAX, self._task.interval_ms / 1000)
        while not stdin.is_closing():
            if not stdin.transport.get_write_buffer_size():  # who does not read is told the newest later
                index, chain = self._committed
                stdin.write(f"{index} {chain.hex()} {self._written()}\n".encode())
            await asyncio.sleep(pause_s)

    async def _hear(self, stdout: asyncio.StreamReader) -> None:
        while line := await stdout.readline():
            newest, oldest = (int(part) for part in line.split())
            if newest > self.newest_index:
                self._snapshot_s = time.monotonic()
            self.newest_index, self.oldest_index, self.problem = newest, oldest, ""


if __name__ == "__main__":
    task = msgspec.json.decode(sys.argv[1], type=Task)
    logs.setup("engine", task.log_level, task.log_format)
    try:
        main(task)
    except OperatorError as broken:
        fail("engine", broken)
