"""Records in, a folder of segments on disk out, and the same records back: nothing that was committed is lost or altered.

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
from hashlib import blake2b
from itertools import zip_longest
from pathlib import Path
from typing import NamedTuple
from zlib import crc32

from service.errors import OperatorError

PREFACE = struct.Struct("<8sQ16sI")  # magic, first index, chain so far, CRC of these
HEADER = struct.Struct("<IQQ16sI")  # payload bytes, index, time in ns, chain with this record, CRC of these
CHAINED = struct.Struct("<16sQQ")  # chain before, index, time in ns; the payload follows
MAGIC = b"TLJRNL01"
CHAIN_BYTES = 16
SEGMENT_BYTES_MAX = 64 << 20
PAYLOAD_BYTES_MAX = 16 << 20
START = bytes(CHAIN_BYTES)


class Record(NamedTuple):
    """What one command did. `command_index` rises from record to record and may leave holes."""

    command_index: int
    time_ns: int
    payload: bytes


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
        self._chain = chain
        self._broken = False
        self.last_index = last  # of the last record appended
        if segment is not None:
            self._file = os.open(segment, os.O_WRONLY | os.O_APPEND)
            self._size = os.fstat(self._file).st_size

    def append(self, index: int, time_ns: int, payload: bytes) -> None:
        """Add a record to the group that the next `commit` writes. Cost: one hash and one CRC of the payload."""
        assert index > self.last_index, f"index {index} comes after {self.last_index}"
        assert len(payload) <= PAYLOAD_BYTES_MAX, f"record {index} has {len(payload)} bytes"
        if self._file < 0 or self._size >= self._segment_bytes_max:
            self.commit()
            self._begin_segment(index)
        self._chain = _chained(self._chain, index, time_ns, payload)
        record = _header(len(payload), index, time_ns, self._chain) + payload
        self._group.append(record)
        self._size += len(record)
        self.last_index = index

    def commit(self) -> None:
        """Write the group and wait until the disk has it. Raises: JournalRefused; the file then ends where it did before."""
        if self._broken:
            raise JournalRefused(OSError("an earlier write failed"))
        if not self._group:
            return
        before = os.fstat(self._file).st_size
        try:
            _write_all(self._file, b"".join(self._group))
            os.fdatasync(self._file)
        except OSError as error:
            self._broken = True  # what was decided after the last commit is lost: the state must be rebuilt first
            os.ftruncate(self._file, before)
            raise JournalRefused(error) from error
        self._group.clear()

    def close(self) -> None:
        """Forget what was not committed and let go of the file."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def _begin_segment(self, index: int) -> None:
        self.close()
        path = self._folder / f"{index:020d}.journal"
        preface = struct.pack("<8sQ16s", MAGIC, index, self._chain)
        try:
            self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_EXCL, 0o640)
            _write_all(self._file, preface + struct.pack("<I", crc32(preface)))
            os.fdatasync(self._file)
            _sync_folder(self._folder)
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
        if paths and _is_torn_preface(paths[-1].read_bytes()):
            paths.pop().unlink()
            _sync_folder(folder)
        if not paths:
            return Journal(folder, None, -1, START, segment_bytes_max)
        scan = _Scan(paths[-1], is_last=True)
        last = int(paths[-1].stem) - 1
        for record in scan:
            last = record.command_index
        if scan.offset < paths[-1].stat().st_size:
            os.truncate(paths[-1], scan.offset)
        return Journal(folder, paths[-1], last, scan.chain, segment_bytes_max)
    except OSError as error:
        raise OperatorError(f"Cannot open the journal {folder}: {error}", "Give a folder that can be written") from None


def read(folder: Path, after_index: int = -1) -> Iterator[Record]:
    """Yield the committed records above `after_index`, oldest first; a torn end is passed over, not cut.

    Raises: JournalDamaged, when it gets there. Cost: skips whole segments below `after_index`; one segment in memory.
    """
    paths = segments(folder)
    firsts = [int(path.stem) for path in paths[1:]]  # a segment ends below the first index of the next one
    needed = [path for path, first in zip_longest(paths, firsts) if first is None or first > after_index + 1]
    chain = None
    for path in needed:
        is_last = path == paths[-1]
        if is_last and _is_torn_preface(path.read_bytes()):
            return
        scan = _Scan(path, is_last)
        if chain is not None and scan.chain != chain:
            raise JournalDamaged(path, 0, int(path.stem), "it does not follow the segment before it")
        yield from (record for record in scan if record.command_index > after_index)
        chain = scan.chain


def segments(folder: Path) -> list[Path]:
    """Return the segments of a folder, oldest first."""
    return sorted(folder.glob("*.journal"))


class _Scan:
    """Walks over one segment; `offset` and `chain` are those behind the last good record."""

    def __init__(self, path: Path, is_last: bool) -> None:
        self._path = path
        self._is_last = is_last
        self._content = path.read_bytes()
        self.index = int(path.stem)  # the lowest that may come next
        self.offset = PREFACE.size
        magic, first, self.chain, checksum = PREFACE.unpack_from(self._padded())
        if magic != MAGIC or first != self.index or checksum != crc32(self._content[: PREFACE.size - 4]):
            raise self._damaged("its first bytes are not those of a segment")

    def _padded(self) -> bytes:
        return self._content.ljust(PREFACE.size, b"\0")

    def _damaged(self, why: str) -> JournalDamaged:
        return JournalDamaged(self._path, self.offset, self.index, why)

    def __iter__(self) -> Iterator[Record]:
        while self.offset < len(self._content):
            record = self._next()
            if record is None:
                if not self._is_last:
                    raise self._damaged("it ends within a record, and there is a later segment")
                return
            yield record

    def _next(self) -> Record | None:
        """Return the record at `offset`, or None for what a crash leaves: too few bytes, or zeros up to the end."""
        content, offset = self._content, self.offset
        header = content[offset : offset + HEADER.size]
        if len(header) < HEADER.size or (not any(header) and not any(content[offset:])):
            return None
        size, index, time_ns, chain, checksum = HEADER.unpack(header)
        if checksum != crc32(header[:-4]):
            raise self._damaged("the header's checksum is wrong")
        payload = content[offset + HEADER.size : offset + HEADER.size + size]
        if len(payload) < size:
            return None
        if chain != _chained(self.chain, index, time_ns, payload):
            raise JournalDamaged(self._path, offset, index, "the hash does not follow from the record and those before it")
        self.offset, self.chain, self.index = offset + HEADER.size + size, chain, index + 1
        return Record(index, time_ns, payload)


def _chained(chain: bytes, index: int, time_ns: int, payload: bytes) -> bytes:
    return blake2b(CHAINED.pack(chain, index, time_ns) + payload, digest_size=CHAIN_BYTES).digest()


def _header(size: int, index: int, time_ns: int, chain: bytes) -> bytes:
    fields = struct.pack("<IQQ16s", size, index, time_ns, chain)
    return fields + struct.pack("<I", crc32(fields))


def _is_torn_preface(content: bytes) -> bool:
    """Return whether a crash came between making a segment and its first bytes: nothing was committed to it."""
    return len(content) < PREFACE.size or not any(content)


def _write_all(file: int, content: bytes) -> None:
    view = memoryview(content)
    while view:
        view = view[os.write(file, view) :]


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
