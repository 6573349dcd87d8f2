"""Reads the journal's records back, also while it is being written: nothing missing, nothing altered, or a halt that says where.

A record is `HEADER` and its payload. The header has a checksum of its own, so that a damaged length is not taken for a short
file, and a hash that chains every record to all before it, so that none can be missing. A segment's name is its first index; it
opens with `PREFACE`: magic, first index, the chain so far.

What a crash leaves at the end of the last segment (fewer bytes than announced, or only zeros) is no record. Anything else that
does not fit is damage, and reading halts with the index.
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
HEADER = struct.Struct("<IIQQ16sI")  # payload bytes, message bytes, index, time in ns, chain with this record, CRC of these
CHAINED = struct.Struct("<16sQQI")  # chain before, index, time in ns, payload bytes; payload and message follow
MAGIC = b"TLJRNL02"
CHAIN_BYTES = 16
READ_BYTES = 4 << 20
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


def beginning(folder: Path) -> tuple[int, bytes]:
    """Return the lowest index that the oldest segment may hold and the chain before it; (0, START) for an empty folder.

    Raises: JournalDamaged.
    """
    for path in segments(folder)[:1]:
        if not is_torn_preface(first_bytes(path)):
            scan = Scan(path)
            scan.close()
            return scan.index, scan.chain
    return 0, START


def chained(before: bytes, index: int, time_ns: int, payload: bytes, message: bytes = b"") -> bytes:
    """Return the chain with one record more."""
    return chain_of(before, index, time_ns, len(payload), payload + message)


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

    def close(self) -> None:
        """Let go of the file."""
        if self._scan is not None:
            self._scan.close()
            self._scan = None

    def _later(self) -> list[Path]:
        """Return the segments to read after the one at hand; one that is only being made is not there yet."""
        paths = segments(self._folder)
        if paths and is_torn_preface(first_bytes(paths[-1])):
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
        self._scan = Scan(later[0])
        if done is not None and self._scan.chain != done.chain:
            raise JournalDamaged(later[0], 0, int(later[0].stem), "it does not follow the segment before it")
        return True


class Scan:
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
        """Let go of the file."""
        self._file.close()

    def at_end(self) -> bool:
        """Return whether the last good record ends the file."""
        return self.offset == self.path.stat().st_size

    def damaged(self, why: str) -> JournalDamaged:
        """Return what to raise at this place."""
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
        if chain != chain_of(self.chain, index, time_ns, size, body):
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


def chain_of(before: bytes, index: int, time_ns: int, size: int, body: bytes) -> bytes:
    """Return the chain with one record more, of payload and message in one; `size` is that of the payload."""
    return blake2b(CHAINED.pack(before, index, time_ns, size) + body, digest_size=CHAIN_BYTES).digest()


def first_bytes(path: Path) -> bytes:
    """Return what stands where a segment has its preface."""
    with path.open("rb") as file:
        return file.read(PREFACE.size)


def is_torn_preface(content: bytes) -> bool:
    """Return whether a crash came between making a segment and its first bytes: nothing was committed to it."""
    return len(content) < PREFACE.size or not any(content)
