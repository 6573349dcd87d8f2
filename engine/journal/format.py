"""Lays out the journal's bytes: segments, groups of records, the hash chain through them; reads the format before this one,
too.

A segment opens with `PREFACE`. A group is `HEADER`, one `ENTRY` a record, then payload and message of each, then `END`. The
header has a checksum of its own, so that a damaged length is not taken for a short file, and the group's link of the chain, so
that no group can be missing or altered. In format 2 every record was a group by itself, with the header `RECORD_2`; the link of
a group of one record is the same hash in both.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from hashlib import blake2b
from typing import NamedTuple
from zlib import crc32

PREFACE = struct.Struct("<8sQ16sI")  # magic, first index, chain so far, CRC of these
HEADER = struct.Struct("<4sIIQ16sI")  # mark, bytes behind the header, records, first index, chain with this group, CRC of these
ENTRY = struct.Struct("<QQII")  # index, time in ns, payload bytes, message bytes
RECORD_2 = struct.Struct("<IIQQ16sI")  # payload bytes, message bytes, index, time in ns, chain with this record, CRC of these
CHAINED = struct.Struct("<16sQQI")  # of a single record: chain before, index, time in ns, payload bytes; its bytes follow
MAGIC, FORMAT, OLDEST_FORMAT = b"TLJRNL", 3, 2
MARK, END = b"grp3", b"\xff"  # neither begins or ends with zeros: a sector that was never written can be told
PERSON = b"group"
CHAIN_BYTES = 16
START = bytes(CHAIN_BYTES)
SECTOR_BYTES = 512


class Link(NamedTuple):
    """One link of the chain: the group of records from `first_index` to `last_index`, whole on the disk or not at all."""

    before: bytes
    chain: bytes
    first_index: int
    last_index: int


class Record(NamedTuple):
    """What one command did, and the message it had for consumers. `command_index` rises and may leave holes."""

    command_index: int
    time_ns: int
    payload: bytes
    message: bytes
    link: Link

    @property
    def chain(self) -> bytes:
        """The hash of this record's group and all before it: who has the same one at an index has the same history up to it."""
        return self.link.chain


Bare = tuple[int, int, bytes, bytes]  # index, time in ns, payload, message


class Unfit(Exception):
    """These bytes are no group that follows what came before."""


def preface(index: int, chain: bytes) -> bytes:
    """Return the first bytes of a segment."""
    content = struct.pack("<8sQ16s", MAGIC + b"%02d" % FORMAT, index, chain)
    return content + crc32(content).to_bytes(4, "little")


def format_of(magic: bytes) -> int:
    """Return a segment's format, 0 when these are not the first bytes of one."""
    digits = magic[len(MAGIC) : len(MAGIC) + 2]
    return int(digits) if magic.startswith(MAGIC) and digits.isdigit() else 0


def chained(before: bytes, records: Sequence[Bare | Record]) -> bytes:
    """Return the chain with one group more."""
    table = b"".join(ENTRY.pack(record[0], record[1], len(record[2]), len(record[3])) for record in records)
    return _chain_of(before, table, b"".join([table, *(part for record in records for part in record[2:4])]))


def _chain_of(before: bytes, table: bytes, content: bytes) -> bytes:
    if len(table) == ENTRY.size:
        index, time_ns, size, _ = ENTRY.unpack(table)
        return _single(before, index, time_ns, size, content[ENTRY.size :])
    hashing = blake2b(before, digest_size=CHAIN_BYTES, person=PERSON)
    hashing.update(content)
    return hashing.digest()


def _single(before: bytes, index: int, time_ns: int, size: int, body: bytes) -> bytes:
    return blake2b(CHAINED.pack(before, index, time_ns, size) + body, digest_size=CHAIN_BYTES).digest()


def group(before: bytes, entries: Sequence[bytes], bodies: Sequence[bytes]) -> tuple[bytes, bytes]:
    """Return a group's bytes and its chain. `entries` are packed, `bodies` payload and message of each in turn."""
    table = b"".join(entries)
    content = b"".join([table, *bodies])
    chain = _chain_of(before, table, content)
    header = HEADER.pack(MARK, len(content) + len(END), len(entries), ENTRY.unpack(entries[0])[0], chain, 0)[:-4]
    return b"".join([header, crc32(header).to_bytes(4, "little"), content, END]), chain


def needed(content: bytes, kind: int) -> int:
    """Return how many bytes a group has that begins here, 0 when its header cannot be believed. `kind` is the format."""
    layout = HEADER if kind == FORMAT else RECORD_2
    header = content[: layout.size]
    if len(header) < layout.size or layout.unpack(header)[-1] != crc32(header[:-4]):
        return 0
    if kind == FORMAT:
        mark, size, *_ = HEADER.unpack(header)
        return HEADER.size + int(size) if mark == MARK else 0
    size, extra, *_ = RECORD_2.unpack(header)
    return RECORD_2.size + int(size) + int(extra)


def take(content: bytes, at: int, kind: int, before: bytes) -> tuple[list[Record], int] | None:
    """Return the records of the group at `at` and its bytes, or None when there are too few.  Raises: Unfit."""
    layout = HEADER if kind == FORMAT else RECORD_2
    header = content[at : at + layout.size]
    if len(header) < layout.size:
        return None
    size = needed(header, kind)
    if not size:
        raise Unfit("the header's checksum is wrong")
    if at + size > len(content):
        return None
    records = _records(content, at, before) if kind == FORMAT else _record_2(content, at, before)
    return records, size


def _records(content: bytes, at: int, before: bytes) -> list[Record]:
    _, size, count, first, chain, _ = HEADER.unpack_from(content, at)
    start, end = at + HEADER.size, at + HEADER.size + size - len(END)
    body = content[start:end]
    found: list[Record] = []
    if count and len(body) >= count * ENTRY.size and content[end : end + len(END)] == END:
        table = body[: count * ENTRY.size]
        if chain == _chain_of(before, table, body):
            entries = list(ENTRY.iter_unpack(table))
            link, place = Link(before, chain, first, entries[-1][0]), len(table)
            for index, time_ns, size, extra in entries:
                middle = place + size
                found.append(Record(index, time_ns, body[place:middle], body[middle : middle + extra], link))
                place = middle + extra
            if place != len(body):  # the link of a single record does not cover the size of its message
                found = []
    if not found:
        raise Unfit("the hash does not follow from the group and those before it")
    return found


def _record_2(content: bytes, at: int, before: bytes) -> list[Record]:
    size, extra, index, time_ns, chain, _ = RECORD_2.unpack_from(content, at)
    start = at + RECORD_2.size
    body = content[start : start + size + extra]
    if chain != _single(before, index, time_ns, size, body):
        raise Unfit("the hash does not follow from the record and those before it")
    return [Record(index, time_ns, body[:size], body[size:], Link(before, chain, index, index))]


def never_written(tail: bytes, offset: int, kind: int) -> bool:
    """Return whether a crash can have left these last bytes of a file, which begin at `offset` and are no whole group.

    The disk takes sectors in any order, and the file's length may come before all of them: a group that lacks one was never
    acknowledged. A group behind it says otherwise.
    """
    if not any(tail):
        return True
    if kind == FORMAT:
        at = tail.find(MARK, 1)
        while at >= 0:
            if needed(tail[at : at + HEADER.size], kind):
                return False
            at = tail.find(MARK, at + 1)
    elif not len(tail) <= needed(tail, kind):
        return False
    first = SECTOR_BYTES - offset % SECTOR_BYTES
    sectors = [tail[:first], *(tail[at : at + SECTOR_BYTES] for at in range(first, len(tail), SECTOR_BYTES))]
    return not all(any(sector) for sector in sectors)
