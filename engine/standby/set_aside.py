"""Takes commands out of a journal that the leader never had, after each of them stands in a file that stays.

`ENGINE_DIR/set-aside/FIRST-LAST.jsonl` has one JSON object a command, as `journal dump` prints them; its first line says behind
which index they stood and whose history goes on instead. `rewind.json` is there from when that file is complete until the
journal and the snapshots are cut: a crash in between is finished by the next start, whatever it is told to be.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from engine.core.units import iso
from engine.journal.format import START, Record
from engine.journal.journal import sync_folder
from engine.journal.reader import beginning, read, segments
from engine.recovery.inspection import line
from engine.recovery.replay import recover
from engine.recovery.snapshot_files import FileSnapshotStore
from engine.standby.parting import NothingShared, Parting
from engine.standby.role import read_file, write_file
from engine.standby.source import links
from service.errors import OperatorError

FOLDER, REWIND = "set-aside", "rewind.json"


class Cut(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What is to be done: the journal ends after `size` bytes of `segment`, with command `index`; `file` has what followed."""

    segment: str
    size: int
    index: int
    file: str


class Rewound(NamedTuple):
    """The last command that both have, how many were set aside, and where they are."""

    last_index: int
    commands: int
    file: Path


def rewind(folder: Path, at: Parting, leader: str, now_ns: int) -> Rewound | None:
    """Set aside what an engine's journal has behind `at`, and take it out; None when there is nothing.

    Raises: OperatorError when the leader does not lead in a later term, or no snapshot of before is left; OSError; then nothing
    was changed. Cost: a recovery, and reading one segment and what follows it.
    """
    journal, snapshots = folder / "journal", folder / "snapshots"
    index, surplus = _behind(journal, at)
    first = next(surplus, None)
    if first is None:
        return None
    own_term = recover(journal, snapshots).state.term
    if at.leader_term <= own_term:
        what = f"{leader} leads in term {at.leader_term} and this journal is of term {own_term}: nobody was replaced"
        raise OperatorError(what, "See which of them is the exchange; start the other one with an empty ENGINE_DIR", 3)
    if beginning(journal)[1] != START and not any(one <= index for one in FileSnapshotStore(snapshots).sequences()):
        raise NothingShared(leader)
    (folder / FOLDER).mkdir(exist_ok=True)
    part = folder / FOLDER / "next.tmp"
    about = {"after": index, "leader": leader, "leaderTerm": at.leader_term, "time": iso(now_ns)}
    commands = 0
    with part.open("wb") as file:
        os.fchmod(file.fileno(), 0o640)
        file.write(msgspec.json.encode(about) + b"\n")
        for record in _with(first, surplus):
            file.write(line(record) + b"\n")
            last, commands = record.command_index, commands + 1
        file.flush()
        os.fsync(file.fileno())
    sync_folder(folder / FOLDER)
    cut = Cut(at.segment.name, at.size, index, f"{first.command_index:020d}-{last:020d}.jsonl")
    write_file(folder / REWIND, cut)
    finish(folder)
    return Rewound(index, commands, folder / FOLDER / cut.file)


def finish(folder: Path) -> None:
    """Cut what is set aside, when that was begun and is not done.  Raises: OSError, OperatorError."""
    cut = read_file(folder / REWIND, Cut)
    if cut is None:
        return
    part, journal = folder / FOLDER / "next.tmp", folder / "journal"
    if part.exists():
        part.replace(part.with_name(cut.file))
        sync_folder(part.parent)
    FileSnapshotStore(folder / "snapshots").forget_after(cut.index)
    for path in reversed(segments(journal)):
        if path.name > cut.segment:
            path.unlink()
            sync_folder(journal)  # one by one, newest first: a crash leaves no hole
    with (journal / cut.segment).open("r+b") as file:
        file.truncate(cut.size)
        os.fsync(file.fileno())
    (folder / REWIND).unlink()
    sync_folder(folder)


def _behind(journal: Path, at: Parting) -> tuple[int, Iterator[Record]]:
    """Return the last index that both journals have, and the records behind it."""
    shared = {chain for size, chain in links(at.segment) if size <= at.size}
    first = int(at.segment.stem)
    index, records = first - 1, read(journal, first - 1)
    for record in records:
        if record.chain not in shared:
            return index, _with(record, records)
        index = record.command_index
    return index, iter(())


def _with(first: Record, others: Iterator[Record]) -> Iterator[Record]:
    yield first
    yield from others


# The command that lists them


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add what `set-aside` takes."""
    parser.add_argument("--files", action="store_true", help="one line a file: which commands, when, and who leads instead")


def listed(folder: Path, files: bool) -> Iterator[str]:
    """Yield what was set aside in an engine's folder: a line a command, or a line a file.  Raises: OperatorError."""
    for path in sorted((folder / FOLDER).glob("*.jsonl")):
        try:
            with path.open(encoding="utf-8") as lines:
                about = json.loads(next(lines))
                if files:
                    yield json.dumps({"file": str(path), "commands": sum(1 for _ in lines), **_range(path), **about})
                else:
                    yield from (one.rstrip("\n") for one in lines)
        except (OSError, ValueError, StopIteration) as error:
            raise OperatorError(f"Cannot read {path}: {error}", "Restore it from a copy", 3) from None


def _range(path: Path) -> dict[str, Any]:
    first, _, last = path.stem.partition("-")
    return {"first": int(first), "last": int(last)}
