"""Writes groups of records to segments on the disk: what was committed survives the process and the machine, whole.

`append` collects, `commit` writes the group and waits for the disk (fdatasync). A group is one piece with one checksum and one
link of the chain (`format.py`) in one segment: after a crash all of it is there or nothing. What a crash leaves at the end of
the last segment is cut when the journal is opened.
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from engine.journal.format import ENTRY, FORMAT, PREFACE, START, Bare, Link, Record, group, preface
from engine.journal.reader import Scan, first_bytes, is_torn_preface, segments
from service.errors import OperatorError

SEGMENT_BYTES_MAX = 64 << 20  # a segment ends with the group that passes this
RECORD_BYTES_MAX = 64 << 20
PROBE_BYTES = 4 << 20


class JournalRefused(OperatorError):
    """The disk did not take a group: none of it is committed, all before it is. Open the journal again to go on."""

    def __init__(self, error: OSError) -> None:
        super().__init__(f"The disk refused the journal's write: {error}", "Make room or mend the disk", exit_code=3)


class Journal:
    """The writing end. One process has it; `open_journal` makes it."""

    def __init__(
        self, folder: Path, segment: Path | None, last: int, chain: bytes, segment_bytes_max: int, kind: int = FORMAT
    ) -> None:
        self._folder = folder
        self._segment_bytes_max = segment_bytes_max
        self._group: list[Bare] = []  # not yet committed
        self._entries: list[bytes] = []
        self._bodies: list[bytes] = []
        self._file = -1
        self._size = segment_bytes_max  # of the segment that takes the next group; without one the first group begins it
        self._segment = segment
        self._made: Path | None = None  # the segment that the group at hand begins
        self.kind = kind  # of the segment, when it is copied
        self._torn = False  # a copy was refused and may have left bytes behind the end
        self._broken = False
        self._cut_bytes: int | None = None  # where a refused write began that is still on the disk
        self.group_bytes = 0  # of the group at hand
        self.chain = chain  # of the last group committed
        self.last_index = last  # of the last record appended
        if segment is not None:
            self._file = os.open(segment, os.O_WRONLY | os.O_APPEND)
            self._size = os.fstat(self._file).st_size

    @property
    def end(self) -> tuple[Path | None, int]:
        """The segment that has the last group committed, and its bytes up to there; what follows may be taken back."""
        return self._segment, self._size if self._segment is not None else 0

    @property
    def segment_index(self) -> int:
        """The first index of that segment, -1 without one."""
        return int(self._segment.stem) if self._segment is not None else -1

    def append(self, index: int, time_ns: int, payload: bytes, message: bytes = b"") -> None:
        """Add a record to the group that the next `commit` writes."""
        assert index > self.last_index, f"index {index} comes after {self.last_index}"
        size, extra = len(payload), len(message)
        assert size + extra <= RECORD_BYTES_MAX, f"record {index} has {size + extra} bytes"
        self._group.append((index, time_ns, payload, message))
        self._entries.append(ENTRY.pack(index, time_ns, size, extra))
        self._bodies += (payload, message)
        self.group_bytes += size + extra
        self.last_index = index

    def commit(self, durable: bool = True) -> list[Record]:
        """Write the group, wait until the disk has it, and return its records.

        Raises: JournalRefused; the disk then has nothing of it. A group that begins a segment is written under another name
        first, so that no reader follows one that is taken back. Without `durable` call `sync` in the end.
        """
        if self._broken:
            raise JournalRefused(OSError("an earlier write failed"))
        if not self._group:
            return []
        content, chain = group(self.chain, self._entries, self._bodies)
        before, self._cut_bytes = self._size, self._size
        try:
            if before >= self._segment_bytes_max:
                self._begin_segment(content)
            else:
                write_all(self._file, content)
                if durable:
                    os.fdatasync(self._file)
                self._size += len(content)
        except OSError as error:
            self._broken = True  # what was decided after the last commit is lost: the state must be rebuilt first
            with suppress(JournalRefused):  # tried again by whoever rebuilds
                self.take_back()
            raise JournalRefused(error) from error
        link = Link(self.chain, chain, self._group[0][0], self._group[-1][0])
        records = [Record(*bare, link) for bare in self._group]
        self.chain, self._cut_bytes, self._made, self.group_bytes = chain, None, None, 0
        self._group.clear()
        self._entries.clear()
        self._bodies.clear()
        return records

    def sync(self) -> None:
        """Wait until the disk has what was committed without that.  Raises: JournalRefused."""
        try:
            if self._file >= 0:
                os.fdatasync(self._file)
        except OSError as error:
            self._broken = True
            raise JournalRefused(error) from error

    # Copied from another engine's journal, byte for byte

    def copy_segment(self, first: bytes, first_index: int, kind: int) -> None:
        """Begin a segment with the first bytes that another journal's has; `kind` is its format.  Raises: JournalRefused."""
        path = segment_path(self._folder, first_index)
        try:
            if self._file >= 0:
                os.fdatasync(self._file)
            self._open_segment(path, first)
        except OSError as error:
            raise JournalRefused(error) from error
        self.chain = PREFACE.unpack(first)[2]
        self.kind, self.last_index = kind, max(self.last_index, first_index - 1)

    def copy(self, content: bytes, chain: bytes, last_index: int) -> None:
        """Add whole groups of another journal; the disk has them when this returns, or none of them.

        `chain` and `last_index` are those behind them.  Raises: JournalRefused; it may be tried again.
        """
        assert self._file >= 0, "a segment comes before its groups"
        try:
            if self._torn:
                os.ftruncate(self._file, self._size)
            self._torn = True
            write_all(self._file, content)
            os.fdatasync(self._file)
        except OSError as error:
            with suppress(OSError):
                os.ftruncate(self._file, self._size)
            raise JournalRefused(error) from error
        self._torn = False
        self._size += len(content)
        self.chain, self.last_index = chain, last_index

    def own(self) -> None:
        """Go on with groups of this engine behind copied ones.  Raises: JournalRefused."""
        try:
            if self._torn:
                os.ftruncate(self._file, self._size)
        except OSError as error:
            raise JournalRefused(error) from error
        if self.kind != FORMAT:
            self._size = self._segment_bytes_max  # the next group begins a segment of this format

    def take_back(self) -> None:
        """Remove what a refused write left on the disk, if it still has to be. Raises: JournalRefused.

        A crash before this succeeds may leave the group, whole: it counts then, although nobody was told; its senders find it.
        """
        if self._cut_bytes is None:
            return
        try:
            if self._made is not None:
                for name in (self._made, unfinished(self._made)):
                    with suppress(FileNotFoundError):
                        os.unlink(name)
                sync_folder(self._folder)
            elif self._file >= 0:
                os.ftruncate(self._file, self._cut_bytes)
        except OSError as error:
            raise JournalRefused(error) from error
        self._cut_bytes = None

    def close(self) -> None:
        """Forget what was not committed and let go of the file."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def _begin_segment(self, content: bytes) -> None:
        """Make a new segment with its first group in it; the one before is on the disk to its end."""
        if self._file >= 0:
            os.fdatasync(self._file)
        path = self._made = segment_path(self._folder, self._group[0][0])
        self._open_segment(path, preface(self._group[0][0], self.chain) + content)

    def _open_segment(self, path: Path, first: bytes) -> None:
        file = os.open(unfinished(path), os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND, 0o640)
        try:
            write_all(file, first)
            os.fdatasync(file)
            os.rename(unfinished(path), path)
            sync_folder(self._folder)
        except OSError:
            os.close(file)
            raise
        self.close()
        self._file, self._size, self._segment = file, len(first), path


def open_journal(folder: Path, segment_bytes_max: int = SEGMENT_BYTES_MAX, copying: bool = False) -> Journal:
    """Check the last segment, cut what a crash left at its end, and return the journal ready to append.

    A segment of an older format ends here, the next group begins one of this format; not when it is a copy that goes on.
    Raises: JournalDamaged, JournalTooNew, OperatorError for a folder that cannot be used. Cost: reads one segment.
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
        scan.close()
        if scan.offset < paths[-1].stat().st_size:
            os.truncate(paths[-1], scan.offset)
        last: Path | None = paths[-1]
        if scan.format != FORMAT and not copying:
            empty = scan.offset == PREFACE.size  # its name may be that of the next segment
            last = _create_segment(folder, scan.index, scan.chain) if empty else None
        return Journal(folder, last, scan.index - 1, scan.chain, segment_bytes_max, scan.format if copying else FORMAT)
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


def _create_segment(folder: Path, index: int, chain: bytes) -> Path:
    """Make a segment that holds nothing yet, on the disk when this returns; one of this name is replaced."""
    path = segment_path(folder, index)
    file = os.open(unfinished(path), os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o640)
    try:
        write_all(file, preface(index, chain))
        os.fdatasync(file)
    finally:
        os.close(file)
    os.rename(unfinished(path), path)
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
