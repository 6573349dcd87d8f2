"""The message log over a real journal: every frame above an index once, in order, wherever it lies, however slow the reader."""

from __future__ import annotations

import asyncio
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.core import events as ev
from engine.core.state import Store
from engine.journal import reader as journal_reader
from engine.journal.journal import Journal, open_journal
from engine.journal.reader import Scan, segments
from engine.stores.message_log import MessageLog, Purged, Reader, StoreGone
from engine.stores.message_window import Frame
from tests.waiting import until


class Writer:
    """Commits groups to a journal and shows them to a log, as the sequencer does."""

    def __init__(self, folder: Path, frames_max: int = 8, segment_bytes: int = 2_000) -> None:
        self.folder = folder
        self.journal: Journal = open_journal(folder, segment_bytes)
        self.log = MessageLog(folder, frames_max=frames_max)
        self.index = 0
        self.frames: list[Frame] = []

    def command(self, message: bytes = b"", *events: ev.Event, skip: int = 0) -> int:
        """Add a command's record to the group; `skip` indices before it had none."""
        self.index += 1 + skip
        payload = ev.encode(list(events) or [ev.LivenessChecked("check", "test")])
        self.journal.append(self.index, self.index * 1_000, payload, message)
        if message:
            self.frames.append(Frame(self.index, message))
        return self.index

    def message(self, skip: int = 0) -> int:
        """Add a command with a message."""
        return self.command(f'{{"messageIndex":{self.index + 1 + skip}}}'.encode(), skip=skip)

    def commit(self) -> None:
        """Write the group and show it."""
        if group := self.journal.commit():
            self.log.on_commit(group)

    def create(self, store: str) -> int:
        """Create a store."""
        index = self.command(b"", ev.StoreCreated(store, self.index + 1))
        self.commit()
        return index

    def purge(self, store: str, upto: int) -> None:
        """Acknowledge messages."""
        self.command(b"", ev.StorePurged(store, upto))
        self.commit()

    def above(self, index: int) -> list[Frame]:
        return [frame for frame in self.frames if frame.message_index > index]


async def take(reader: Reader, count: int) -> list[Frame]:
    """Return the next frames of a reader, at least `count`, all within seconds."""
    found: list[Frame] = []
    async with asyncio.timeout(5):
        while len(found) < count:
            found += await reader.next()
    return found


Turns = st.lists(
    st.one_of(
        st.tuples(st.just("write"), st.integers(1, 6), st.integers(0, 3)),  # a group of commands, every n-th without a message
        st.tuples(st.just("read"), st.integers(0, 2), st.just(0)),  # one batch of a reader
        st.tuples(st.just("purge"), st.integers(0, 2), st.just(0)),  # up to what a reader has
        st.tuples(st.just("reconnect"), st.integers(0, 2), st.just(0)),
    ),
    min_size=5,
    max_size=60,
)


@settings(max_examples=60, deadline=None)
@given(Turns, st.integers(1, 12), st.integers(300, 3_000))
def test_readers_of_any_pace_get_every_frame_once_and_in_order(turns, frames_max: int, segment: int) -> None:  # type: ignore[no-untyped-def]
    """Fast, slow and reconnecting readers of two stores, with purges in between, over every hand-over of memory and journal."""
    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(_live(Path(folder), turns, frames_max, segment))


async def _live(folder: Path, turns, frames_max: int, segment: int) -> None:  # type: ignore[no-untyped-def]
    writer = Writer(folder, frames_max, segment)
    begun = writer.create("a"), writer.create("b")
    names = ("a", "a", "b")
    starts = (begun[0], begun[0], begun[1])
    readers = [writer.log.reader(name, start) for name, start in zip(names, starts, strict=True)]
    had: list[list[Frame]] = [[], [], []]
    for kind, number, holes in turns:
        if kind == "write":
            for at in range(number):
                writer.command() if holes and at % (holes + 1) == 0 else writer.message(skip=holes)
            writer.commit()
        elif kind == "read" and len(had[number]) < len(writer.above(starts[number])):
            had[number] += await take(readers[number], 1)
        elif kind == "purge" and names.count(names[number]) == 1 and had[number]:
            writer.purge(names[number], had[number][-1].message_index)
        elif kind == "reconnect":
            readers[number].close()
            seen = had[number][-1].message_index if had[number] else starts[number]
            readers[number] = writer.log.reader(names[number], seen)
    for number, reader in enumerate(readers):
        wanted = writer.above(starts[number])
        had[number] += await take(reader, len(wanted) - len(had[number]))
        assert had[number] == wanted
        reader.close()
    assert not writer.log.readers
    assert not writer.log._tails


async def test_a_reader_that_falls_behind_again_gets_nothing_twice(tmp_path: Path) -> None:
    """From the journal, then from memory, then from the journal: its place in the file has not moved meanwhile."""
    writer = Writer(tmp_path, frames_max=1, segment_bytes=300)
    reader = writer.log.reader("a", writer.create("a"))
    had: list[Frame] = []
    for some in (2, 1, 3, 1, 1, 5):
        for _ in range(some):
            writer.message()
            writer.commit()
        had += await take(reader, 1)
    had += await take(reader, len(writer.frames) - len(had))
    assert had == writer.frames


@pytest.mark.parametrize("behind", [0, 1, 7, 8, 9, 20, 100])
async def test_a_reader_behind_by_any_number_catches_up_and_then_follows(tmp_path: Path, behind: int) -> None:
    """At, just inside and far beyond the edge of memory the journal takes over, and live frames follow without a seam."""
    writer = Writer(tmp_path, frames_max=8)
    start = writer.create("a")
    for _ in range(behind):
        writer.message()
        writer.commit()
    reader = writer.log.reader("a", start)
    found = await take(reader, behind)
    following = asyncio.create_task(take(reader, 3))
    for _ in range(3):
        await asyncio.sleep(0)
        writer.message(skip=2)
        writer.commit()
    assert found + await following == writer.frames


async def test_a_waiting_reader_is_woken_by_the_commit_alone(tmp_path: Path) -> None:
    """Nothing polls: a reader without news waits, and one commit of two messages gives it both."""
    writer = Writer(tmp_path)
    reader = writer.log.reader("a", writer.create("a"))
    waiting = asyncio.create_task(reader.next())
    for _ in range(5):
        writer.command()
        writer.commit()
        await asyncio.sleep(0)
    assert not waiting.done()
    writer.message()
    writer.message()
    writer.commit()
    assert await waiting == writer.frames


async def test_what_is_written_but_not_committed_is_not_given_out(tmp_path: Path) -> None:
    """A reader of the journal stops at the last committed record, though the file may hold more."""
    writer = Writer(tmp_path, frames_max=1)
    start = writer.create("a")
    for _ in range(5):
        writer.message()
    writer.commit()
    writer.message()
    group = writer.journal.commit()  # on the disk, but nobody has said so yet
    reader = writer.log.reader("a", start)
    assert await take(reader, 5) == writer.frames[:5]
    following = asyncio.create_task(reader.next())
    await asyncio.sleep(0.05)
    assert not following.done()
    writer.log.on_commit(group)
    assert await following == writer.frames[5:]


async def test_a_reader_whose_frames_somebody_else_purged_stops_with_the_gap(tmp_path: Path) -> None:
    """It is told up to where messages are gone, in memory and in the journal alike, and never goes on silently."""
    writer = Writer(tmp_path, frames_max=4)
    start = writer.create("a")
    slow, fast = writer.log.reader("a", start), writer.log.reader("a", start)
    for _ in range(6):
        writer.message()
        writer.commit()
    assert await take(fast, 6) == writer.frames
    writer.purge("a", writer.frames[3].message_index)
    with pytest.raises(Purged) as gap:
        await slow.next()
    assert gap.value.purged_index == writer.frames[3].message_index
    with pytest.raises(Purged):
        await slow.next()
    writer.message()
    writer.commit()
    assert await take(fast, 1) == writer.frames[6:]


async def test_a_purge_between_messages_is_no_gap(tmp_path: Path) -> None:
    """Indices without a message may be purged above what a reader has."""
    writer = Writer(tmp_path)
    reader = writer.log.reader("a", writer.create("a"))
    writer.message()
    writer.commit()
    assert len(await reader.next()) == 1
    for _ in range(5):
        writer.command()
    writer.commit()
    writer.purge("a", writer.index - 1)
    writer.message()
    writer.commit()
    assert await reader.next() == writer.frames[1:]


async def test_a_waiting_reader_of_a_deleted_store_is_told(tmp_path: Path) -> None:
    """Also when a store of the same name is made in the same group."""
    writer = Writer(tmp_path)
    waiting = asyncio.create_task(writer.log.reader("a", writer.create("a")).next())
    await asyncio.sleep(0)
    writer.command(b"", ev.StoreDeleted("a"))
    writer.command(b"", ev.StoreCreated("a", writer.index + 1))
    writer.message()
    writer.commit()
    with pytest.raises(StoreGone):
        await waiting
    with pytest.raises(StoreGone):
        writer.log.reader("b", 0)


async def test_purging_gives_memory_back_and_the_slowest_store_keeps_it(tmp_path: Path) -> None:
    """Frames stay while one store holds them, and leave with the last one."""
    writer = Writer(tmp_path, frames_max=100)
    writer.create("a")
    writer.create("b")
    for _ in range(10):
        writer.message()
    writer.commit()
    writer.purge("a", writer.frames[-1].message_index)
    assert len(writer.log._frames) == 10
    assert writer.log.backlog("a") == (0, 0)
    assert writer.log.backlog("b") == (10, writer.frames[0].message_index * 1_000)
    writer.purge("b", writer.frames[6].message_index)
    assert len(writer.log._frames) == 3
    assert writer.log.backlog("b") == (3, writer.frames[7].message_index * 1_000)
    writer.command(b"", ev.StoreDeleted("b"))
    writer.commit()
    assert len(writer.log._frames) == 0


async def test_a_restarted_log_holds_what_it_held(tmp_path: Path) -> None:
    """Counts, ages and frames are found in the journal again, from the lowest purged index on."""
    writer = Writer(tmp_path, frames_max=4)
    begun = [writer.create("a"), writer.create("b")]
    for _ in range(10):
        writer.message(skip=1)
        writer.command()
    writer.commit()
    writer.purge("a", writer.frames[5].message_index)
    stores = [Store("a", begun[0] + 1, writer.frames[5].message_index), Store("b", begun[1] + 1, begun[1])]
    again = MessageLog(tmp_path, frames_max=4)
    again.restore(stores, writer.log.committed_index, writer.log.message_index)
    for store in ("a", "b"):
        assert again.backlog(store) == writer.log.backlog(store)
        reader = again.reader(store, again.purged[store])
        assert await take(reader, again.backlog(store).messages) == writer.above(again.purged[store])


async def test_a_log_without_stores_keeps_nothing(tmp_path: Path) -> None:
    """Restoring without stores reads nothing, and a store made later begins there."""
    writer = Writer(tmp_path)
    for _ in range(3):
        writer.message()
    writer.commit()
    again = MessageLog(tmp_path)
    again.restore([], writer.index, writer.index)
    assert (again.committed_index, again.message_index) == (3, 3)
    writer.log = again
    reader = again.reader("a", writer.create("a"))
    writer.message()
    writer.commit()
    assert await reader.next() == writer.frames[3:]


async def test_many_slow_readers_keep_few_files_open(tmp_path: Path) -> None:
    """Each reads from its own place in the journal; files are shared out, and all get everything."""
    writer = Writer(tmp_path, frames_max=2, segment_bytes=4_000)
    start = writer.create("a")
    for _ in range(300):
        writer.message()
        writer.commit()
    readers = [writer.log.reader("a", start + 20 * number) for number in range(9)]
    found = await asyncio.gather(*(take(reader, 300 - 20 * number) for number, reader in enumerate(readers)))
    for number, frames in enumerate(found):
        assert frames == writer.above(start + 20 * number)
    assert sum(not tail._scan._file.closed for tail in writer.log._tails.values() if tail._scan) <= 4
    for reader in readers:
        reader.close()
    assert not writer.log._tails


async def test_a_cancelled_read_leaves_nothing_behind(tmp_path: Path) -> None:
    """A consumer that goes while the journal is being read takes its file with it."""
    writer = Writer(tmp_path, frames_max=1)
    start = writer.create("a")
    for _ in range(50):
        writer.message()
    writer.commit()
    for _ in range(20):
        reader = writer.log.reader("a", start)
        reading = asyncio.create_task(reader.next())
        await asyncio.sleep(0)
        reader.close()
        reading.cancel()
        await asyncio.gather(reading, return_exceptions=True)
    await until(lambda: not writer.log._tails)
    assert not writer.log.readers
    assert await take(writer.log.reader("a", start), 50) == writer.frames


async def test_many_slow_consumers_read_the_journal_once_each(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Eight take turns in one segment, four files are open: what one of them has read he does not read again."""
    size, read, really = 0, 0, Scan._read

    def counted(scan: Scan, most: int) -> bytes:
        nonlocal read
        content = really(scan, most)
        read += len(content)
        return content

    monkeypatch.setattr(journal_reader, "READ_BYTES", 2_000)
    monkeypatch.setattr(Scan, "_read", counted)
    writer = Writer(tmp_path, frames_max=1, segment_bytes=1 << 20)
    start = writer.create("a")
    for number in range(400):
        writer.message()
        if number % 5 == 0:
            writer.commit()
    writer.commit()
    size = sum(path.stat().st_size for path in segments(tmp_path))
    readers = [writer.log.reader("a", start) for _ in range(8)]
    taken: list[list[Frame]] = [[] for _ in readers]
    read = 0
    while any(len(frames) < 400 for frames in taken):
        for reader, frames in zip(readers, taken, strict=True):
            if len(frames) < 400:
                frames += await reader.next()
    assert taken == [writer.frames] * 8
    assert read < 2 * 8 * size
    assert sum(not tail._scan._file.closed for tail in writer.log._tails.values() if tail._scan) <= 4
