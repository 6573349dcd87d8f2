"""Writes records to segments on the disk: what was committed survives the process and the machine.

`append` collects, `commit` writes the group and waits for the disk (fdatasync). How records and segments look: `reader.py`. What
a crash leaves at the end of the last segment is cut when the journal is opened.
"""

from __future__ import annotations

import os
import struct
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple
from zlib import crc32

from engine.journal.reader import (
    HEADER,
    MAGIC,
    PREFACE,
    START,
    Record,
    Scan,
    chain_of,
    first_bytes,
    is_torn_preface,
    segments,
)
from service.errors import OperatorError

SUMMED = struct.Struct("<IIQQ16s")  # the header before its CRC
SEGMENT_BYTES_MAX = 64 << 20
RECORD_BYTES_MAX = 64 << 20
PROBE_BYTES = 4 << 20


class JournalRefused(OperatorError):
    """The disk did not take a group: none of it is committed, all before it is. Open the journal again to go on."""

    def __init__(self, error: OSError) -> None:
        super().__init__(f"The disk refused the journal's write: {error}", "Make room or mend the disk", exit_code=3)


class Part(NamedTuple):
    """A segment that the group at hand begins: its first index, the chain before it, and its records' bytes."""

    first_index: int
    chain: bytes
    records: list[bytes]


class Journal:
    """The writing end. One process has it; `open_journal` makes it."""

    def __init__(self, folder: Path, segment: Path | None, last: int, chain: bytes, segment_bytes_max: int) -> None:
        self._folder = folder
        self._segment_bytes_max = segment_bytes_max
        self._group: list[bytes] = []  # of the group at hand, what the present segment still takes
        self._begun: list[Part] = []  # and what goes into new ones
        self._made: list[tuple[Path, int]] = []  # new segments under way: their names in the end, their open files
        self._file = -1
        self._size = segment_bytes_max  # of the segment that takes the next record; without one the first record begins it
        self._broken = False
        self._cut_bytes: int | None = None  # where a refused write began that is still on the disk
        self.chain = chain  # of the last record appended
        self.last_index = last  # of the last record appended
        if segment is not None:
            self._file = os.open(segment, os.O_WRONLY | os.O_APPEND)
            self._size = os.fstat(self._file).st_size

    def append(self, index: int, time_ns: int, payload: bytes, message: bytes = b"") -> Record:
        """Add a record to the group that the next `commit` writes, and return it. Cost: one hash and one CRC of its bytes."""
        assert index > self.last_index, f"index {index} comes after {self.last_index}"
        size, extra = len(payload), len(message)
        assert size + extra <= RECORD_BYTES_MAX, f"record {index} has {size + extra} bytes"
        if self._size >= self._segment_bytes_max:
            self._begun.append(Part(index, self.chain, []))
            self._size = PREFACE.size
        body = payload + message if extra else payload
        self.chain = chain = chain_of(self.chain, index, time_ns, size, body)
        summed = SUMMED.pack(size, extra, index, time_ns, chain)
        records = self._begun[-1].records if self._begun else self._group
        records.append(summed + crc32(summed).to_bytes(4, "little") + body)
        self._size += HEADER.size + len(body)
        self.last_index = index
        return Record(index, time_ns, payload, message, chain)

    def commit(self) -> None:
        """Write the group and wait until the disk has it. Raises: JournalRefused; the disk then has nothing of it.

        New segments are written under other names first and appear when all the rest is there: a reader never follows one
        that is taken back. A crash in between leaves whole records that nobody was told of.
        """
        if self._broken:
            raise JournalRefused(OSError("an earlier write failed"))
        if not self._group and not self._begun:
            return
        before = os.fstat(self._file).st_size if self._file >= 0 else 0
        try:
            for part in self._begun:
                self._make_segment(part)
            if self._group:
                write_all(self._file, b"".join(self._group))
                os.fdatasync(self._file)
            for path, _ in self._made:
                os.rename(unfinished(path), path)
            if self._made:
                sync_folder(self._folder)
        except OSError as error:
            self._broken = True  # what was decided after the last commit is lost: the state must be rebuilt first
            self._cut_bytes = before
            with suppress(JournalRefused):  # tried again by whoever rebuilds
                self.take_back()
            raise JournalRefused(error) from error
        self._group.clear()
        self._begun.clear()
        while self._made:
            self._let_go()
            self._file = self._made.pop(0)[1]

    def take_back(self) -> None:
        """Remove what a refused write left on the disk, if it still has to be. Raises: JournalRefused.

        A crash before this succeeds leaves whole records that nobody was told of: they count, their senders find them.
        """
        if self._cut_bytes is None:
            return
        try:
            for path, _ in reversed(self._made):
                for name in (path, unfinished(path)):
                    with suppress(FileNotFoundError):
                        os.unlink(name)
            if self._file >= 0:
                os.ftruncate(self._file, self._cut_bytes)
            if self._made:
                sync_folder(self._folder)
        except OSError as error:
            raise JournalRefused(error) from error
        self._cut_bytes = None

    def close(self) -> None:
        """Forget what was not committed and let go of the files."""
        self._let_go()
        while self._made:
            os.close(self._made.pop()[1])

    def _let_go(self) -> None:
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def _make_segment(self, part: Part) -> None:
        """Write a new segment under the name of an unfinished one."""
        path = segment_path(self._folder, part.first_index)
        file = os.open(unfinished(path), os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND, 0o640)
        self._made.append((path, file))
        write_all(file, b"".join([preface(part.first_index, part.chain), *part.records]))
        os.fdatasync(file)


def open_journal(folder: Path, segment_bytes_max: int = SEGMENT_BYTES_MAX) -> Journal:
    """Check the last segment, cut what a crash left at its end, and return the journal ready to append.

    Raises: JournalDamaged, OperatorError for a folder that cannot be used. Cost: reads one segment.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for left in folder.glob("*.journal.tmp"):
            left.unlink()
        paths = segments(folder)
        if paths and is_torn_preface(first_bytes(paths[-1])):
            paths.pop().unlink()
            sync_folder(folder)
        if not paths:
            return Journal(folder, None, -1, START, segment_bytes_max)
        scan = Scan(paths[-1])
        while scan.take():
            pass
        last = scan.index - 1
        size = scan.offset
        scan.close()
        if size < paths[-1].stat().st_size:
            os.truncate(paths[-1], size)
        return Journal(folder, paths[-1], last, scan.chain, segment_bytes_max)
    except OSError as error:
        raise OperatorError(f"Cannot open the journal {folder}: {error}", "Give a folder that can be written") from None


def begin_journal(folder: Path, chain: bytes, last_index: int, segment_bytes_max: int = SEGMENT_BYTES_MAX) -> Journal:
    """Return a new journal that goes on behind `last_index` of one that is not there: its records have another copy.

    The beginning is on the disk when this returns. Raises: OperatorError for a folder that has a journal or cannot be used.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if segments(folder):
            raise OperatorError(f"There is a journal in {folder}", "Give an empty folder")
        return Journal(folder, _create_segment(folder, last_index + 1, chain), last_index, chain, segment_bytes_max)
    except OSError as error:
        raise OperatorError(f"Cannot begin a journal in {folder}: {error}", "Give a folder that can be written") from None


def probe(folder: Path) -> None:
    """Return when the disk takes a write of a group's size. Raises: JournalRefused."""
    path = folder / "probe.tmp"
    try:
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o640)
        try:
            write_all(file, bytes(PROBE_BYTES))
            os.fdatasync(file)
        finally:
            os.close(file)
            path.unlink()
    except OSError as error:
        raise JournalRefused(error) from error


def segment_path(folder: Path, index: int) -> Path:
    """Return the name of the segment that begins with a command's index."""
    return folder / f"{index:020d}.journal"


def unfinished(path: Path) -> Path:
    """Return the name of a segment that does not count yet."""
    return path.with_name(f"{path.name}.tmp")


def preface(index: int, chain: bytes) -> bytes:
    """Return the first bytes of a segment."""
    content = struct.pack("<8sQ16s", MAGIC, index, chain)
    return content + struct.pack("<I", crc32(content))


def _create_segment(folder: Path, index: int, chain: bytes) -> Path:
    """Make a segment that holds nothing yet, on the disk when this returns."""
    path = segment_path(folder, index)
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o640)
    try:
        write_all(file, preface(index, chain))
        os.fdatasync(file)
    finally:
        os.close(file)
    sync_folder(folder)
    return path


def write_all(file: int, content: bytes) -> None:
    """Write all bytes, however few the system takes at a time.  Raises: OSError."""
    view = memoryview(content)
    while view:
        view = view[os.write(file, view) :]


def sync_folder(folder: Path) -> None:
    """Wait until the disk has a folder's names.  Raises: OSError."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
