"""Reads the journal's records back, also while it is being written: nothing missing, nothing altered, or a halt that says
where.

A segment's name is its first index; how its bytes lie: `format.py`. What a crash leaves at the end of the last segment (fewer
bytes than announced, or sectors that were never written) is no group. Anything else that does not fit is damage, and reading
halts with the index of the first record in doubt.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from itertools import zip_longest
from pathlib import Path
from zlib import crc32

from engine.journal import format as layout
from engine.journal.format import FORMAT, OLDEST_FORMAT, PREFACE, START, Record, Unfit, format_of, never_written
from service.errors import OperatorError

READ_BYTES = 4 << 20


class JournalDamaged(OperatorError):
    """A committed record does not read as it was written; `index` is the first one in doubt."""

    def __init__(self, path: Path, offset: int, index: int, why: str) -> None:
        fix = "Restore the file from a copy, or recover from a snapshot and the Redis stream; do not cut it"
        super().__init__(f"The journal is damaged at index {index}: {path.name}, byte {offset}: {why}", fix, exit_code=3)
        self.index = index


class JournalTooNew(OperatorError):
    """A later version of the engine wrote a segment."""

    def __init__(self, path: Path, found: int) -> None:
        what = f"The journal's segment {path.name} has format {found}, this version reads up to {FORMAT}"
        super().__init__(what, "Start the version that wrote it", exit_code=3)


class SegmentsMissing(JournalDamaged):
    """Two segments are whole, and what was between them is not there."""

    def __init__(self, path: Path, after_index: int) -> None:
        super().__init__(path, 0, int(path.stem), "it does not follow the segment before it")
        self.what = f"Segment {path.name} does not follow index {after_index}: one between is missing, or it is another journal's"
        self.fix = "Put the archived segments back into its folder, or name their folder (--archive, ENGINE_ARCHIVE_DIR)"


def beginning(folder: Path, archive: Path | None = None) -> tuple[int, bytes]:
    """Return the lowest index that the oldest segment may hold and the chain before it; (0, START) for an empty folder.

    Raises: JournalDamaged.
    """
    for path in segments(folder, archive)[:1]:
        if not is_torn_preface(first_bytes(path)):
            scan = Scan(path)
            scan.close()
            return scan.index, scan.chain
    return 0, START


def read(folder: Path, after_index: int = -1, archive: Path | None = None) -> Iterator[Record]:
    """Yield the committed records above `after_index`, oldest first; a torn end is passed over, not cut.

    Raises: JournalDamaged, when it gets there. Cost: skips whole segments below `after_index`.
    """
    tail = Tail(folder, after_index, archive)
    try:
        while records := tail.take():
            yield from records
    finally:
        tail.close()


def segments(folder: Path, archive: Path | None = None) -> list[Path]:
    """Return the segments of a folder and of the archive that older ones go to, oldest first; one in both is the folder's."""
    own = sorted(folder.glob("*.journal"))
    if archive is None:
        return own
    names = {path.name: path for path in [*archive.glob("*.journal"), *own]}
    return [names[name] for name in sorted(names)]


class Tail:
    """A reader that goes on where it stopped, also in a journal that is being written: `take` again finds what came since.

    It may see a group before the writer knows that the disk has it: clamp by the writer's committed index, or compare chains.
    """

    def __init__(self, folder: Path, after_index: int = -1, archive: Path | None = None) -> None:
        self._folder = folder
        self._archive = archive
        self._after_index = after_index
        self._scan: Scan | None = None

    def take(self) -> list[Record]:
        """Return the next records, some megabytes at most; none at the end. Raises: JournalDamaged."""
        while self._scan is not None or self._step():
            assert self._scan is not None
            records = self._scan.take()
            if not records and self._later():
                records = self._scan.take()  # what was written before the next segment began
                if not records and not self._step():
                    return []
            elif not records:
                return []
            if wanted := [record for record in records if record.command_index > self._after_index]:
                self._after_index = wanted[-1].command_index
                return wanted
        return []

    def pause(self) -> None:
        """Let go of the file and keep the place: nothing before it is read again."""
        if self._scan is not None:
            self._scan.close()

    def close(self) -> None:
        """Let go of the file."""
        if self._scan is not None:
            self._scan.close()
            self._scan = None

    def _later(self) -> list[Path]:
        """Return the segments to read after the one at hand; one that is only being made is not there yet."""
        paths = segments(self._folder, self._archive)
        if paths and is_torn_preface(first_bytes(paths[-1])):
            paths.pop()
        if self._scan is not None:
            return [path for path in paths if path.name > self._scan.path.name]
        firsts = [int(path.stem) for path in paths[1:]]  # a segment ends below the first index of the next one
        return [path for path, first in zip_longest(paths, firsts) if first is None or first > self._after_index + 1]

    def _step(self) -> bool:
        """Go on to the next segment, if there is one; the one before must end with a whole record."""
        done, later = self._scan, self._later()
        if not later:
            return False
        if done is not None:
            whole = done.at_end()
            done.close()
            if not whole:
                raise done.damaged("it ends within a record, and there is a later segment")
        self._scan = self._opened(later[0])
        if done is not None and self._scan.chain != done.chain:
            raise SegmentsMissing(later[0], done.index - 1)
        return True

    def _opened(self, path: Path) -> Scan:
        try:
            return Scan(path)
        except FileNotFoundError:  # it was archived meanwhile
            if self._archive is None:
                raise
            return Scan(self._archive / path.name)


class Scan:
    """Walks over one segment; `offset`, `index` and `chain` are those behind the last good group."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.index = int(path.stem)  # the lowest that may come next
        self.offset = PREFACE.size
        self._file = path.open("rb", buffering=0)
        content = self._file.read(PREFACE.size)
        magic, first, self.chain, checksum = PREFACE.unpack(content.ljust(PREFACE.size, b"\0"))
        self.format = format_of(magic)
        if self.format > FORMAT:
            self.close()
            raise JournalTooNew(path, self.format)
        if self.format < OLDEST_FORMAT or first != self.index or checksum != crc32(content[: PREFACE.size - 4]):
            self.close()
            raise self.damaged("its first bytes are not those of a segment")

    def close(self) -> None:
        """Let go of the file."""
        self._file.close()

    def at_end(self) -> bool:
        """Return whether the last good group ends the file."""
        closed = self._file.closed  # an open one may have been archived meanwhile
        return self.offset == (self.path.stat() if closed else os.fstat(self._file.fileno())).st_size

    def damaged(self, why: str) -> JournalDamaged:
        """Return what to raise at this place."""
        return JournalDamaged(self.path, self.offset, self.index, why)

    def take(self) -> list[Record]:
        """Return the records of the next whole groups, about `READ_BYTES` of them; none at the end or before a torn group."""
        content = self._read(READ_BYTES)
        needed = layout.needed(content, self.format)
        if needed > len(content):
            content = self._read(needed)
        records: list[Record] = []
        at = 0
        try:
            while (found := layout.take(content, at, self.format, self.chain)) is not None:
                group, size = found
                at += size
                self.offset += size
                self.chain, self.index = group[0].link.chain, group[-1].command_index + 1
                records += group
        except Unfit as unfit:
            if not records and not self._left_by_a_crash():  # else what is good comes first, and the next call raises
                raise self.damaged(str(unfit)) from None
        return records

    def _read(self, size: int) -> bytes:
        if self._file.closed:
            self._file = self.path.open("rb", buffering=0)
        return os.pread(self._file.fileno(), size, self.offset)

    def _left_by_a_crash(self) -> bool:
        """Return whether nothing that was committed follows; asked where a file was enlarged before all of it was written."""
        tail = b""
        while part := os.pread(self._file.fileno(), READ_BYTES, self.offset + len(tail)):
            tail += part
        return never_written(tail, self.offset, self.format)


def first_bytes(path: Path) -> bytes:
    """Return what stands where a segment has its preface."""
    with path.open("rb") as file:
        return file.read(PREFACE.size)


def is_torn_preface(content: bytes) -> bool:
    """Return whether a crash came between making a segment and its first bytes: nothing was committed to it."""
    return len(content) < PREFACE.size or not any(content)
