"""Moves the journal's segments that nobody needs any more to an archive, or removes them.

Needed are: what follows the oldest snapshot kept, what a message store has not purged, what the Redis stream does not have yet.
A segment is in the archive, with all its bytes on the disk, before it leaves the journal; without an archive it is gone.
"""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterable
from itertools import pairwise
from pathlib import Path

from engine.core.state import Store
from engine.journal.journal import sync_folder
from engine.journal.reader import segments


def done_index(snapshot_index: int, stores: Iterable[Store], written_index: int) -> int:
    """Return the highest index that nobody needs any more.

    `snapshot_index` is the oldest snapshot's; `written_index` that up to which other readers (the stream) have everything.
    """
    return min([snapshot_index, written_index, *(store.purged_index for store in stores)])


def archive_segments(journal_folder: Path, archive_folder: Path | None, done: int) -> list[str]:
    """Move the segments that hold nothing above `done`, oldest first; return their names. The last one always stays.

    Without an archive they are removed. Raises: OSError; what has not been moved is where it was.
    """
    paths = segments(journal_folder)
    moved = [path for path, after in pairwise(paths) if int(after.stem) <= done + 1]
    if archive_folder is None:
        for path in moved:
            path.unlink()
            sync_folder(journal_folder)  # one by one, so that a crash leaves no hole
        return [path.name for path in moved]
    if moved:
        archive_folder.mkdir(parents=True, exist_ok=True)
    for path in moved:
        _move(path, archive_folder / path.name)
    return [path.name for path in moved]


def _move(source: Path, target: Path) -> None:
    try:
        os.rename(source, target)
    except OSError as error:
        if error.errno != errno.EXDEV:  # another file system: copy, then remove
            raise
        part = target.with_suffix(".part")
        shutil.copyfile(source, part)
        with part.open("rb") as file:
            os.fsync(file.fileno())
        part.rename(target)
        sync_folder(target.parent)
        source.unlink()
    sync_folder(target.parent)
    sync_folder(source.parent)
