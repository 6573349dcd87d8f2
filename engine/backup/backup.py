"""Takes a backup of an exchange's folder, also while the engine writes on, and puts one back into an empty folder.

What is copied is what a crash at that moment would have left: whole groups of the journal, the newest snapshot that belongs
to them, and what was set aside (`standby/set_aside.py`), which is nowhere else. The copy is recovered before it is given out,
and again before it is put in place: one that does not come up is none.
"""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from engine.core.units import iso
from engine.journal.journal import sync_folder
from engine.journal.reader import Scan, first_bytes, is_torn_preface, segments
from engine.recovery.replay import IMPORTING, NotOneHistory, Recovered, recover
from engine.recovery.snapshot_files import FileSnapshotStore
from engine.recovery.snapshot_format import SnapshotInvalid
from engine.standby import role as roles
from engine.standby import set_aside
from engine.standby.command import promote_stopped
from engine.standby.role import Role
from service import backup
from service.backup import BackupInvalid
from service.errors import OperatorError

KIND = "an exchange"
KEYS = "keys.json"
STAGING, PUTTING = "backup.tmp", "restore.tmp"
HARMLESS = {"lock", "lost+found", PUTTING}  # in a folder that counts as empty
TRIES = 3
READ_BYTES = 4 << 20


def take(folder: Path, keys: Path, out: IO[bytes], now_ns: int) -> dict[str, Any]:
    """Write a backup of an exchange; return what it says of itself.

    Raises: OperatorError when there is nothing that could be recovered; OSError for `out`. Cost: closed segments are linked, the
    last one is copied, records after the newest snapshot are applied (5 µs each), and all of it is written out.
    """
    _ensure_whole(folder)
    with _staging(folder) as staging:
        try:
            recovered = _copied(folder, staging)
            for path in [keys, *folder.glob("*.key")]:  # secrets of the exchange's own making; hashes of all others
                if path.is_file():
                    _copy(path, staging / (KEYS if path == keys else path.name), path.stat().st_size)
            aside = _copy_aside(folder / set_aside.FOLDER, staging / set_aside.FOLDER)
        except OSError as error:
            what = f"{folder} cannot be copied: {(error.strerror or str(error)).lower()}"
            raise OperatorError(what, "Run it as the engine's user, with room for one segment on its disk", 3) from None
        files = {str(path.relative_to(staging)): path for path in sorted(staging.rglob("*")) if path.is_file()}
        about = {
            "index": recovered.last_index, "chain": recovered.chain.hex(), "digest": recovered.state.digest(),
            "time": iso(recovered.time_ns), "snapshot": recovered.snapshot_index, "term": recovered.state.term,
            "setAside": aside,
        }  # fmt: skip
        backup.pack(out, KIND, iso(now_ns), files, about)
        return about


def put_back(source: IO[bytes], folder: Path, keys: Path, exact: bool, now_ns: int) -> dict[str, Any]:
    """Make a backup the exchange of an empty folder; return what was restored.

    It begins a new term, a million indices later, so that no id of what came after the backup is given a second time, unless it
    is to be `exact`.  Raises: OperatorError, BackupInvalid, with the folder as it was; OSError.
    """
    held = roles.lock(folder)
    try:
        if there := sorted({path.name for path in folder.iterdir()} - HARMLESS):
            what = f"{folder} is not empty: it has {', '.join(there[:4])}"
            raise OperatorError(
                what, "Set ENGINE_DIR to an empty folder; keep what is in this one, until the restored one is right", 3
            )
        staging = folder / PUTTING
        shutil.rmtree(staging, ignore_errors=True)
        try:
            staging.mkdir()
            about = backup.unpack(source, KIND, staging).about
            _compare(recover(staging / "journal", staging / "snapshots"), about)
            _put_in_place(staging, folder, keys)
        finally:
            shutil.rmtree(staging, ignore_errors=True)
        if exact:
            return about
        promotion = promote_stopped(folder, Role("leader", int(about["term"])), now_ns)
        return {**about, "term": promotion.term, "goesOnAt": promotion.index}
    finally:
        os.close(held)


def _ensure_whole(folder: Path) -> None:
    if not segments(folder / "journal"):
        raise OperatorError(f"There is no journal in {folder}", "Set ENGINE_DIR as the engine has it", 3)
    if (folder / "journal" / IMPORTING).exists():
        raise OperatorError(f"A stream is being imported into {folder}", "Take the backup when that is done", 3)
    if (folder / set_aside.REWIND).exists():
        what = f"What the engine in {folder} alone has is set aside and not yet taken out of its journal"
        raise OperatorError(what, "Start the engine, which finishes that, and take the backup then", 3)
    found = roles.read(folder)
    if found is not None and found.filling:
        raise OperatorError(f"The standby in {folder} does not have all of the leader's journal yet", "Wait until it follows", 3)


@contextmanager
def _staging(folder: Path) -> Iterator[Path]:
    """Give an empty folder on the journal's disk, where links cost nothing; one backup at a time."""
    staging = folder / STAGING
    try:
        staging.mkdir(exist_ok=True)
    except OSError as error:
        what = f"{folder} cannot be written: {(error.strerror or str(error)).lower()}"
        raise OperatorError(what, "Run it as the engine's user, on the engine's own volume", 3) from None
    handle = os.open(staging, os.O_RDONLY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise OperatorError(f"Another backup of {folder} is being taken", "Wait for its end", 3) from None
        try:
            _empty(staging)
            yield staging
        finally:
            shutil.rmtree(staging, ignore_errors=True)
    finally:
        os.close(handle)


def _copied(folder: Path, staging: Path) -> Recovered:
    """Copy snapshot and journal until they are of one piece: meanwhile the engine may archive what the snapshot needs."""
    for attempt in range(TRIES):
        _empty(staging)
        _copy_snapshot(folder / "snapshots", staging / "snapshots")
        _copy_journal(folder / "journal", staging / "journal")
        try:
            return recover(staging / "journal", staging / "snapshots")
        except NotOneHistory:
            if attempt == TRIES - 1:
                raise
    raise AssertionError("a try returns or raises")


def _copy_snapshot(source: Path, target: Path) -> None:
    target.mkdir()
    store = FileSnapshotStore(source)
    for sequence in reversed(store.sequences()):
        with suppress(SnapshotInvalid, OSError):  # damaged, or removed just now: the one before serves as well
            FileSnapshotStore(target).write_generation(store.read_generation(sequence))
            return


def _copy_journal(source: Path, target: Path) -> None:
    target.mkdir()
    *closed, last = segments(source)
    for path in closed:
        try:
            _link(path, target / path.name)
        except FileNotFoundError:  # archived or pruned, and so is all before it
            _empty(target)
    if not is_torn_preface(first_bytes(last)):
        scan = Scan(last)
        try:
            while scan.take():
                pass
        finally:
            scan.close()
        _copy(last, target / last.name, scan.offset)


def _copy_aside(source: Path, target: Path) -> int:
    """Copy the files of what was set aside, each of which never changes once it has its name; return how many there are."""
    target.mkdir()
    paths = sorted(source.glob("*.jsonl"))
    for path in paths:
        _link(path, target / path.name)
    return len(paths)


def _link(source: Path, target: Path) -> None:
    """Give a file that nobody changes a second name.  Raises: FileNotFoundError."""
    try:
        os.link(source, target)
    except FileNotFoundError:
        raise
    except OSError:  # a file system without hard links
        _copy(source, target, source.stat().st_size)


def _copy(source: Path, target: Path, size: int) -> None:
    """Copy the first bytes of a file that only grows."""
    with source.open("rb") as file, target.open("wb") as copy:
        while size > 0 and (part := file.read(min(size, READ_BYTES))):
            copy.write(part)
            size -= len(part)


def _compare(recovered: Recovered, about: dict[str, Any]) -> None:
    found = {"index": recovered.last_index, "chain": recovered.chain.hex(), "digest": recovered.state.digest()}
    if wrong := [name for name, value in found.items() if about.get(name) != value]:
        raise BackupInvalid(f"What the backup recovers to has another {' and '.join(wrong)} than it says")


def _put_in_place(staging: Path, folder: Path, keys: Path) -> None:
    """Move everything in, the journal last: an engine refuses snapshots without one, so that half is never taken for all."""
    for path in sorted(staging.iterdir(), key=lambda path: path.name == "journal"):
        target = keys if path.name == KEYS else folder / path.name
        if path.name == KEYS and target.exists():
            continue  # the keys that count elsewhere are not those of the past
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.move(path, target)
    sync_folder(folder)


def _empty(folder: Path) -> None:
    for path in folder.iterdir():
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()
