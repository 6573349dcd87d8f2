"""A real process snapshots a growing journal: none of what may be taken back, none after its parent's end."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec
import pytest

from engine.core import commands as cm
from engine.core.exchange import Exchange
from engine.core.state import LEG_STEP
from engine.journal.format import START, Record
from engine.journal.reader import segments
from engine.recovery.replay import ALL, recover
from engine.recovery.snapshot_files import FileSnapshotStore
from engine.recovery.snapshotter import SnapshotterProcess, Task
from engine.stores.message_builder import MessageBuilder
from tests.engine.lives import journaled, life, records
from tests.waiting import until, until_sync

COMMANDS = life(1, 600)
SECONDS = 20  # a process starts in one or two when the machine is busy


def task_of(folder: Path, **more: object) -> Task:
    return msgspec.convert(
        {"journal": str(folder / "journal"), "snapshots": str(folder / "snapshots"), "interval_ms": 20} | more, Task
    )


@asynccontextmanager
async def running(process: SnapshotterProcess) -> AsyncIterator[SnapshotterProcess]:
    """Let it run meanwhile."""
    task = asyncio.create_task(process.run())
    try:
        yield process
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def newest(folder: Path) -> int:
    sequences = FileSnapshotStore(folder / "snapshots").sequences()
    return sequences[-1] if sequences else -1


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


async def test_snapshots_follow_the_journal(tmp_path: Path) -> None:
    """A new one for each thing that is committed, and only the newest are kept; what they hold is the state."""
    folder, exchange = tmp_path / "journal", journaled(tmp_path / "journal", COMMANDS[:100])
    at = records(folder)[-1]
    async with running(SnapshotterProcess(task_of(tmp_path, kept=2), at.command_index, at.chain)) as process:
        assert process.age_s > 0
        for done in range(100, 500, 100):
            await until(lambda: process.newest_index == records(folder)[-1].command_index, SECONDS)
            assert process.age_s == 0
            journaled(folder, COMMANDS[done : done + 100], exchange)
            process.on_commit([record for record in records(folder) if record.command_index > done])
            assert process.age_s > 0
        await until(lambda: process.newest_index == records(folder)[-1].command_index, SECONDS)
        assert process.oldest_index == FileSnapshotStore(tmp_path / "snapshots").sequences()[0] > 300
        assert len(FileSnapshotStore(tmp_path / "snapshots").sequences()) == 2
        assert process.restarts == 0
        assert os.getpriority(os.PRIO_PROCESS, process.pid or 0) > os.getpriority(os.PRIO_PROCESS, 0)
    found = recover(folder, tmp_path / "snapshots")
    assert (found.replayed, found.state.digest()) == (0, exchange.state.digest())
    stored = FileSnapshotStore(tmp_path / "snapshots").read_latest("B")
    assert stored is not None
    times = {order.sequence: order.created_at for level in stored.order_book.bids for order in level.orders}
    placed = {record.command_index: record.time_ns // 1_000_000 for record in records(folder)}
    assert times == {order_id: placed[order_id % LEG_STEP] for order_id in times}  # legs have the ids of their command, moved up
    assert times


async def test_what_is_not_committed_is_in_no_snapshot(tmp_path: Path) -> None:
    """The file has more than the parent knows to be on the disk."""
    folder = tmp_path / "journal"
    journaled(folder, COMMANDS[:300])
    told = records(folder)[200]
    async with running(SnapshotterProcess(task_of(tmp_path), told.command_index, told.chain)) as process:
        await until(lambda: process.newest_index == told.command_index, SECONDS)
        later = records(folder)[220]
        process.on_commit([later])
        await until(lambda: process.newest_index == later.command_index, SECONDS)
    assert newest(tmp_path) == later.command_index


async def test_an_unchanged_state_is_not_written_again(tmp_path: Path) -> None:
    """Over a restart of both, too."""
    journaled(tmp_path / "journal", COMMANDS[:100])
    at = records(tmp_path / "journal")[-1]

    async def written() -> dict[str, int]:
        async with running(SnapshotterProcess(task_of(tmp_path), at.command_index, at.chain, newest(tmp_path))) as process:
            await until(lambda: process.oldest_index == at.command_index, SECONDS)
        return {path.name: path.stat().st_mtime_ns for path in (tmp_path / "snapshots").iterdir()}

    assert await written() == await written()


async def test_a_group_that_was_taken_back_makes_a_new_child(tmp_path: Path) -> None:
    """The journal's end is replaced under its eyes: it writes nothing of the old end, is started again and goes on."""
    folder, exchange = tmp_path / "journal", journaled(tmp_path / "journal", COMMANDS[:200], segment_bytes_max=1 << 20)
    (path,) = segments(folder)
    size, at = path.stat().st_size, records(folder)[-1]
    journaled(
        folder, COMMANDS[200:260], segment_bytes_max=1 << 20, exchange=Exchange(MessageBuilder, recover(folder, folder).state)
    )
    async with running(SnapshotterProcess(task_of(tmp_path), at.command_index, at.chain)) as process:
        await until(lambda: process.newest_index == at.command_index, SECONDS)
        os.truncate(path, size)  # the disk had refused it
        other = [(index, time_ns + 1, command) for index, time_ns, command in COMMANDS[200:300]]
        journaled(folder, other, exchange, segment_bytes_max=1 << 20)
        process.on_commit(records(folder)[-1:])
        await until(lambda: process.newest_index == records(folder)[-1].command_index, SECONDS)
        assert process.restarts > 0
    found = recover(folder, tmp_path / "snapshots")
    assert (found.replayed, found.state.digest()) == (0, exchange.state.digest())


async def test_a_child_that_is_killed_is_started_again(tmp_path: Path) -> None:
    """Whenever that is: the next snapshots come."""
    folder, exchange = tmp_path / "journal", journaled(tmp_path / "journal", COMMANDS[:50])
    at = records(folder)[-1]
    async with running(SnapshotterProcess(task_of(tmp_path), at.command_index, at.chain)) as process:
        for done in (50, 100):
            await until(lambda: process.newest_index == records(folder)[-1].command_index, SECONDS)
            assert process.pid is not None
            os.kill(process.pid, signal.SIGKILL)
            journaled(folder, COMMANDS[done : done + 50], exchange)
            process.on_commit(records(folder)[-1:])
        await until(lambda: process.newest_index == records(folder)[-1].command_index, SECONDS)
        assert process.restarts == 2


async def test_a_disk_without_room_is_tried_again(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """A file stands where the folder should be; the child lives on, and writes when it is gone."""
    journaled(tmp_path / "journal", COMMANDS[:50])
    at = records(tmp_path / "journal")[-1]
    (tmp_path / "snapshots").write_text("in the way")
    async with running(SnapshotterProcess(task_of(tmp_path), at.command_index, at.chain)) as process:
        await until(lambda: "snapshot_failed" in capfd.readouterr().err, SECONDS)
        (tmp_path / "snapshots").unlink()
        await until(lambda: process.newest_index == at.command_index, SECONDS)
        assert process.restarts == 0


async def test_a_child_that_cannot_be_started_is_tried_again_and_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a process to run there are no snapshots: said after the third try, and over as soon as one is written."""
    journaled(tmp_path / "journal", COMMANDS[:50])
    at = records(tmp_path / "journal")[-1]
    with monkeypatch.context() as gone:
        gone.setattr(sys, "executable", str(tmp_path / "no-python"))
        process = SnapshotterProcess(task_of(tmp_path), at.command_index, at.chain)
        task = asyncio.create_task(process.run())
        await until(lambda: process.problem, SECONDS)
        assert "cannot be started" in process.problem
    try:
        await until(lambda: process.newest_index == at.command_index, SECONDS)
        assert not process.problem
        assert not task.done()
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_segments_that_nobody_needs_go_to_the_archive(tmp_path: Path) -> None:
    """Not before the stream has them; recovery needs none of them."""
    folder, archive = tmp_path / "journal", tmp_path / "archive"
    commands = [command for command in COMMANDS if not isinstance(command[2], cm.CreateStore)]
    exchange = journaled(folder, commands[:400], segment_bytes_max=3_000)
    at, written = records(folder)[-1], 100
    task = task_of(tmp_path, archive=str(archive), kept=1)
    async with running(SnapshotterProcess(task, at.command_index, at.chain, written=lambda: written)) as process:
        await until(lambda: process.newest_index == at.command_index, SECONDS)
        await until(lambda: int(segments(folder)[1].stem) > 101, SECONDS)
        assert 1 < int(segments(folder)[0].stem) <= 101
        written = ALL
        journaled(folder, commands[400:500], exchange)
        process.on_commit(records(folder)[-1:])
        await until(lambda: len(segments(folder)) == 1, SECONDS)
    assert recover(folder, tmp_path / "snapshots").state.digest() == exchange.state.digest()
    assert segments(archive)


PARENT = """
import asyncio, sys
from pathlib import Path
import msgspec
from engine.recovery.snapshotter import SnapshotterProcess, Task
from tests.engine.lives import records
task = msgspec.json.decode(sys.argv[1], type=Task)
at = records(Path(task.journal))[-1]
async def main():
    process = SnapshotterProcess(task, at.command_index, at.chain)
    running = asyncio.create_task(process.run())
    while process.newest_index < at.command_index:
        await asyncio.sleep(0.01)
    print(process.pid, flush=True)
    await running
asyncio.run(main())
"""


@pytest.mark.parametrize("sent", [signal.SIGKILL, signal.SIGTERM])
def test_the_child_ends_with_its_parent(tmp_path: Path, sent: signal.Signals) -> None:
    """However the parent ends."""
    journaled(tmp_path / "journal", COMMANDS[:50])
    arguments = [sys.executable, "-c", PARENT, msgspec.json.encode(task_of(tmp_path)).decode()]
    parent = subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True)
    try:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        assert alive(child)
        parent.send_signal(sent)
        parent.wait(SECONDS)
        until_sync(lambda: not alive(child), SECONDS)
    finally:
        parent.kill()
        parent.wait()


async def test_an_empty_journal_has_no_snapshot_until_something_happens(tmp_path: Path) -> None:
    """The first start of an exchange."""
    async with running(SnapshotterProcess(task_of(tmp_path), -1, START)) as process:
        await until(lambda: process.pid is not None, SECONDS)
        journaled(tmp_path / "journal", COMMANDS[:30])
        assert newest(tmp_path) == -1
        group: list[Record] = records(tmp_path / "journal")
        process.on_commit(group)
        await until(lambda: process.newest_index == group[-1].command_index, SECONDS)
        assert process.restarts == 0
