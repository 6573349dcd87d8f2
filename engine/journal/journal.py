"""Writes records to segments on the disk: nothing that was committed is lost or altered.

`append` collects, `commit` writes the group and waits for the disk (fdatasync): what was committed survives the process and
the machine. A record is `HEADER` and its payload. The header has a checksum of its own, so that a damaged length is not taken
for a short file, and a hash that chains every record to all before it, so that none can be missing. A segment's name is its
first index; it opens with `PREFACE`: magic, first index, the chain so far.

What a crash leaves at the end of the last segment (fewer bytes than announced, or only zeros) is cut when the journal is
opened. Anything else that does not fit is damage, and reading halts with the index.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from contextlib import suppress
from hashlib import blake2b
from itertools import zip_longest
from pathlib import Path
from typing import NamedTuple
from zlib import crc32

from service.errors import OperatorError

PREFACE = struct.Struct("<8sQ16sI")  # magic, first index, chain so far, CRC of these
HEADER = struct.Struct("<IIQQ16sI")  # payload bytes, message bytes, index, time in ns, chain with this record, CRC of these
SUMMED = struct.Struct("<IIQQ16s")  # the header before its CRC
CHAINED = struct.Struct("<16sQQI")  # chain before, index, time in ns, payload bytes; payload and message follow
MAGIC = b"TLJRNL02"
CHAIN_BYTES = 16
SEGMENT_BYTES_MAX = 64 << 20
RECORD_BYTES_MAX = 64 << 20
READ_BYTES = 4 << 20
PROBE_BYTES = 4 << 20
START = bytes(CHAIN_BYTES)


class Record(NamedTuple):
    """What one command did, and the message it had for consumers. `command_index` rises and may leave holes.

    `chain` is the hash of this record and all before it: two journals with the same chain at an index are the same up to it.
    """

    command_index: int
    time_ns: int
    payload: bytes
    message: bytes
    chain: bytes


class JournalDamaged(OperatorError):
    """A committed record does not read as it was written; `index` is the first one in doubt."""

    def __init__(self, path: Path, offset: int, index: int, why: str) -> None:
        fix = "Restore the file from a copy, or recover from a snapshot and the Redis stream; do not cut it"
        super().__init__(f"The journal is damaged at index {index}: {path.name}, byte {offset}: {why}", fix, exit_code=3)
        self.index = index


class JournalRefused(OperatorError):
    """The disk did not take a group: none of it is committed, all before it is. Open the journal again to go on."""

    def __init__(self, error: OSError) -> None:
        super().__init__(f"The disk refused the journal's write: {error}", "Make room or mend the disk", exit_code=3)


class Journal:
    """The writing end. One process has it; `open_journal` makes it."""

    def __init__(self, folder: Path, segment: Path | None, last: int, chain: bytes, segment_bytes_max: int) -> None:
        self._folder = folder
        self._segment_bytes_max = segment_bytes_max
        self._group: list[bytes] = []
        self._file = -1
        self._size = 0
        self._broken = False
        self._cut_bytes: int | None = None  # where a refused write began that is still in the file
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
        if self._file < 0 or self._size >= self._segment_bytes_max:
            self.commit()
            self._begin_segment(index)
        body = payload + message if extra else payload
        self.chain = chain = _chained(self.chain, index, time_ns, size, body)
        summed = SUMMED.pack(size, extra, index, time_ns, chain)
        self._group.append(summed + crc32(summed).to_bytes(4, "little") + body)
        self._size += HEADER.size + len(body)
        self.last_index = index
        return Record(index, time_ns, payload, message, chain)

    def commit(self) -> None:
        """Write the group and wait until the disk has it. Raises: JournalRefused; the file then ends where it did before."""
        if self._broken:
            raise JournalRefused(OSError("an earlier write failed"))
        if not self._group:
            return
        before = os.fstat(self._file).st_size
        try:
            write_all(self._file, b"".join(self._group))
            os.fdatasync(self._file)
        except OSError as error:
            self._broken = True  # what was decided after the last commit is lost: the state must be rebuilt first
            self._cut_bytes = before
            with suppress(JournalRefused):  # tried again by whoever rebuilds
                self.take_back()
            raise JournalRefused(error) from error
        self._group.clear()

    def take_back(self) -> None:
        """Cut what a refused write left in the file, if it still has to be. Raises: JournalRefused.

        A crash before this succeeds leaves whole records that nobody was told of: they count, their senders find them.
        """
        if self._cut_bytes is None:
            return
        try:
            os.ftruncate(self._file, self._cut_bytes)
        except OSError as error:
            raise JournalRefused(error) from error
        self._cut_bytes = None

    def close(self) -> None:
        """Forget what was not committed and let go of the file."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def _begin_segment(self, index: int) -> None:
        self.close()
        try:
            self._file = os.open(_create_segment(self._folder, index, self.chain), os.O_WRONLY | os.O_APPEND)
        except OSError as error:
            self._broken = True
            raise JournalRefused(error) from error
        self._size = PREFACE.size


def open_journal(folder: Path, segment_bytes_max: int = SEGMENT_BYTES_MAX) -> Journal:
    """Check the last segment, cut what a crash left at its end, and return the journal ready to append.

    Raises: JournalDamaged, OperatorError for a folder that cannot be used. Cost: reads one segment.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        paths = segments(folder)
        if paths and _is_torn_preface(_first_bytes(paths[-1])):
            paths.pop().unlink()
            sync_folder(folder)
        if not paths:
            return Journal(folder, None, -1, START, segment_bytes_max)
        scan = _Scan(paths[-1])
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


def beginning(folder: Path) -> tuple[int, bytes]:
    """Return the lowest index that the oldest segment may hold and the chain before it; (0, START) for an empty folder.

    Raises: JournalDamaged.
    """
    for path in segments(folder)[:1]:
        if not _is_torn_preface(_first_bytes(path)):
            scan = _Scan(path)
            scan.close()
            return scan.index, scan.chain
    return 0, START


def chained(before: bytes, index: int, time_ns: int, payload: bytes, message: bytes = b"") -> bytes:
    """Return the chain with one record more."""
    return _chained(before, index, time_ns, len(payload), payload + message)


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


def read(folder: Path, after_index: int = -1) -> Iterator[Record]:
    """Yield the committed records above `after_index`, oldest first; a torn end is passed over, not cut.

    Raises: JournalDamaged, when it gets there. Cost: skips whole segments below `after_index`.
    """
    tail = Tail(folder, after_index)
    try:
        while records := tail.take():
            yield from records
    finally:
        tail.close()


def segments(folder: Path) -> list[Path]:
    """Return the segments of a folder, oldest first."""
    return sorted(folder.glob("*.journal"))


class Tail:
    """A reader that goes on where it stopped, also in a journal that is being written: `take` again finds what came since.

    It may see a group before the writer knows that the disk has it: clamp by the writer's committed index, or compare chains.
    """

    def __init__(self, folder: Path, after_index: int = -1) -> None:
        self._folder = folder
        self._after_index = after_index
        self._scan: _Scan | None = None

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

    def close(self) -> None:
        """Let go of the file."""
        if self._scan is not None:
            self._scan.close()
            self._scan = None

    def _later(self) -> list[Path]:
        """Return the segments to read after the one at hand; one that is only being made is not there yet."""
        paths = segments(self._folder)
        if paths and _is_torn_preface(_first_bytes(paths[-1])):
            paths.pop()
        if self._scan is not None:
            return [path for path in paths if path > self._scan.path]
        firsts = [int(path.stem) for path in paths[1:]]  # a segment ends below the first index of the next one
        return [path for path, first in zip_longest(paths, firsts) if first is None or first > self._after_index + 1]

    def _step(self) -> bool:
        """Go on to the next segment, if there is one; the one before must end with a whole record."""
        done, later = self._scan, self._later()
        if not later:
            return False
        if done is not None:
            done.close()
            if not done.at_end():
                raise done.damaged("it ends within a record, and there is a later segment")
        self._scan = _Scan(later[0])
        if done is not None and self._scan.chain != done.chain:
            raise JournalDamaged(later[0], 0, int(later[0].stem), "it does not follow the segment before it")
        return True


class _Scan:
    """Walks over one segment; `offset`, `index` and `chain` are those behind the last good record."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.index = int(path.stem)  # the lowest that may come next
        self.offset = PREFACE.size
        self._file = path.open("rb", buffering=0)
        content = self._file.read(PREFACE.size)
        magic, first, self.chain, checksum = PREFACE.unpack(content.ljust(PREFACE.size, b"\0"))
        if magic != MAGIC or first != self.index or checksum != crc32(content[: PREFACE.size - 4]):
            self.close()
            raise self.damaged("its first bytes are not those of a segment")

    def close(self) -> None:
        self._file.close()

    def at_end(self) -> bool:
        """Return whether the last good record ends the file."""
        return self.offset == self.path.stat().st_size

    def damaged(self, why: str) -> JournalDamaged:
        return JournalDamaged(self.path, self.offset, self.index, why)

    def take(self) -> list[Record]:
        """Return the next whole records, about `READ_BYTES` of them; none at the end or before a torn record."""
        content = os.pread(self._file.fileno(), READ_BYTES, self.offset)
        needed = self._needed(content)
        if needed > len(content):
            content = os.pread(self._file.fileno(), needed, self.offset)
        records: list[Record] = []
        began = self.offset
        try:
            while (record := self._next(content, self.offset - began)) is not None:
                self.offset += HEADER.size + len(record.payload) + len(record.message)
                self.chain, self.index = record.chain, record.command_index + 1
                records.append(record)
        except JournalDamaged:
            if not records:  # else what is good comes first, and the next call raises
                raise
        return records

    def _needed(self, content: bytes) -> int:
        """Return how many bytes the first record has, as far as its header can be believed."""
        header = content[: HEADER.size]
        if len(header) < HEADER.size or HEADER.unpack(header)[-1] != crc32(header[:-4]):
            return 0
        size, extra, *_ = HEADER.unpack(header)
        return HEADER.size + int(size) + int(extra)

    def _next(self, content: bytes, at: int) -> Record | None:
        """Return the record at `at`, or None for what a crash leaves: too few bytes, or zeros up to the file's end."""
        header = content[at : at + HEADER.size]
        if len(header) < HEADER.size or (not any(header) and self._only_zeros()):
            return None
        size, extra, index, time_ns, chain, checksum = HEADER.unpack(header)
        if checksum != crc32(header[:-4]):
            raise self.damaged("the header's checksum is wrong")
        start = at + HEADER.size
        body = content[start : start + size + extra]
        if len(body) < size + extra:
            return None
        if chain != _chained(self.chain, index, time_ns, size, body):
            raise JournalDamaged(self.path, self.offset, index, "the hash does not follow from the record and those before it")
        return Record(index, time_ns, body[:size], body[size:], chain)

    def _only_zeros(self) -> bool:
        """Return whether nothing but zeros follows; asked once, where the file was enlarged before it was written."""
        at = self.offset
        while content := os.pread(self._file.fileno(), READ_BYTES, at):
            if any(content):
                return False
            at += len(content)
        return True


def _chained(before: bytes, index: int, time_ns: int, size: int, body: bytes) -> bytes:
    return blake2b(CHAINED.pack(before, index, time_ns, size) + body, digest_size=CHAIN_BYTES).digest()


def _create_segment(folder: Path, index: int, chain: bytes) -> Path:
    """Make a segment that holds nothing yet, on the disk when this returns."""
    path = folder / f"{index:020d}.journal"
    preface = struct.pack("<8sQ16s", MAGIC, index, chain)
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o640)
    try:
        write_all(file, preface + struct.pack("<I", crc32(preface)))
        os.fdatasync(file)
    finally:
        os.close(file)
    sync_folder(folder)
    return path


def _first_bytes(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(PREFACE.size)


def _is_torn_preface(content: bytes) -> bool:
    """Return whether a crash came between making a segment and its first bytes: nothing was committed to it."""
    return len(content) < PREFACE.size or not any(content)


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
