"""Puts the groups of a journal together again from the bytes that arrive, and lets none pass that does not follow.

Each group is checked as when a journal is read from the disk: header, length, its link of the chain from the one before it.
"""

from __future__ import annotations

from typing import NamedTuple
from zlib import crc32

from engine.journal import format as layout
from engine.journal.format import FORMAT, OLDEST_FORMAT, PREFACE, START, Record, Unfit, format_of

GROUP_BYTES_MAX = 1 << 30


class Beginning(NamedTuple):
    """The first bytes of a segment, its first index and format."""

    content: bytes
    first_index: int
    kind: int


class Whole(NamedTuple):
    """What is complete now: a segment that begins, then groups with their bytes; `chain` is that behind the last one."""

    beginning: Beginning | None
    content: bytes
    records: list[Record]
    chain: bytes


class Assembly:
    """The bytes that have arrived and make no whole group yet.

    `kind` is the format of the segment that goes on, 0 = none does; `chain` None is a journal that may begin anywhere.
    """

    def __init__(self, chain: bytes | None, next_index: int, kind: int) -> None:
        self._chain = chain
        self._next_index = next_index  # the lowest that may come
        self._kind = kind
        self._first_index = -1  # of a segment that was announced
        self._rest = bytearray()
        self._needed = 0  # bytes of the group at hand

    def announce(self, first_index: int) -> None:
        """Expect the first bytes of a segment.  Raises: Unfit."""
        if self._rest:
            raise Unfit("a segment ends within a group")
        if first_index < self._next_index:
            raise Unfit(f"a segment begins at index {first_index}, and {self._next_index} is the lowest that may come")
        self._first_index, self._kind = first_index, 0

    def take(self, content: bytes | memoryview) -> Whole:
        """Return what is complete with these bytes.  Raises: Unfit."""
        self._rest += content
        beginning = None
        if self._first_index >= 0:
            if len(self._rest) < PREFACE.size:
                return Whole(None, b"", [], self._chain or START)
            beginning = self._begin(bytes(self._rest[: PREFACE.size]))
            del self._rest[: PREFACE.size]
        return self._groups(beginning)

    def _groups(self, beginning: Beginning | None) -> Whole:
        if self._chain is None or (not self._kind and self._rest):
            raise Unfit("groups come before a segment begins")
        records: list[Record] = []
        at = 0
        if len(self._rest) >= self._needed:
            rest, self._needed = bytes(self._rest), 0
            while (found := layout.take(rest, at, self._kind, self._chain) if rest else None) is not None:
                group, size = found
                if group[0].command_index < self._next_index:
                    raise Unfit(f"index {group[0].command_index} comes where {self._next_index} is the lowest that may")
                at += size
                self._chain, self._next_index = group[0].link.chain, group[-1].command_index + 1
                records += group
            whole = rest[:at]
            del self._rest[:at]
            self._needed = layout.needed(rest[at:], self._kind) if len(rest) > at else 0
            if self._needed > GROUP_BYTES_MAX:
                raise Unfit(f"a group has {self._needed} bytes")
            return Whole(beginning, whole, records, self._chain)
        return Whole(beginning, b"", [], self._chain)

    def _begin(self, content: bytes) -> Beginning:
        magic, first, chain, checksum = PREFACE.unpack(content)
        kind = format_of(magic)
        if kind > FORMAT:
            raise Unfit(f"the leader writes segments of format {kind}, this version reads up to {FORMAT}")
        fits = first == self._first_index and checksum == crc32(content[:-4]) and self._chain in (None, chain)
        if kind < OLDEST_FORMAT or not fits:
            raise Unfit("a segment does not follow the one before it")
        self._kind, self._first_index, self._chain = kind, -1, chain
        return Beginning(content, first, kind)
