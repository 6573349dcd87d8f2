"""Finds a standby's place in the leader's journal, or where two journals part, and reads the bytes that follow it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from engine.journal import format as layout
from engine.journal.format import FORMAT, HEADER, PREFACE, RECORD_2, format_of
from engine.journal.journal import segment_path
from engine.journal.reader import segments

HEAD_BYTES = max(HEADER.size, RECORD_2.size)


class Place(NamedTuple):
    """A place in a journal: a segment and an offset in it; 0 is before the segment's first bytes."""

    segment: Path
    offset: int


def find(folder: Path, index: int, chain: bytes, segment: int) -> Place | None:
    """Return the place behind the group whose link of the chain is `chain`, None when the journal has none.

    `index` is that group's last one, or a higher one below the next group's; `segment` the first index of the segment that the
    standby has last. Reads headers only: some milliseconds.
    """
    for path in reversed([path for path in segments(folder) if int(path.stem) <= index + 1][-2:]):
        for offset, found in links(path):
            if found == chain:
                return Place(path, 0 if offset == PREFACE.size and int(path.stem) != segment else offset)
    return None


def chains(folder: Path, segment: int) -> bytes:
    """Return the links of the chain in a segment, one behind the other; nothing when the journal has no such segment."""
    path = segment_path(folder, segment)
    return b"".join(chain for _, chain in links(path)) if path.exists() else b""


def links(path: Path) -> Iterator[tuple[int, bytes]]:
    """Yield the chain at the segment's beginning, with offset 0, and behind each of its groups."""
    with path.open("rb") as file:
        magic, _, chain, _ = PREFACE.unpack(file.read(PREFACE.size).ljust(PREFACE.size, b"\0"))
        kind, offset = format_of(magic), PREFACE.size
        yield offset, chain
        while size := layout.needed(head := os.pread(file.fileno(), HEAD_BYTES, offset), kind):
            offset += size
            yield offset, (HEADER.unpack_from(head)[4] if kind == FORMAT else RECORD_2.unpack_from(head)[4])


class Bytes:
    """A reader of a journal's bytes that goes on where it stopped."""

    def __init__(self, folder: Path, place: Place | None) -> None:
        """`place` None is the beginning of all there is."""
        self._folder = folder
        self._segment = place.segment if place is not None else None
        self._offset = place.offset if place is not None else 0
        self._announced = place is None or place.offset > 0
        self._file = -1

    def take(self, end: tuple[Path | None, int], size: int) -> tuple[int | None, bytes]:
        """Return the next bytes up to the committed `end`, none at the end; with the first index of a segment that begins.

        Raises: OSError when a segment is gone that should follow.
        """
        last, committed = end
        if last is None:
            return None, b""
        while True:
            if self._segment is not None and not self._announced:
                self._announced = True
                return int(self._segment.stem), b""
            if self._segment is None or (self._segment < last and self._offset >= os.fstat(self._opened()).st_size):
                if not self._step(last):
                    return None, b""
                assert self._segment is not None
                return int(self._segment.stem), b""
            limit = committed if self._segment == last else os.fstat(self._opened()).st_size
            content = os.pread(self._opened(), max(0, min(size, limit - self._offset)), self._offset)
            self._offset += len(content)
            return None, content

    def close(self) -> None:
        """Let go of the file."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def _opened(self) -> int:
        if self._file < 0:
            assert self._segment is not None
            self._file = os.open(self._segment, os.O_RDONLY)
        return self._file

    def _step(self, last: Path) -> bool:
        later = [path for path in segments(self._folder) if path <= last and (self._segment is None or path > self._segment)]
        if not later:
            return False
        self.close()
        self._segment, self._offset = later[0], 0
        return True
