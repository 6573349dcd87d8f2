"""Verifies a journal, prints its records, and rebuilds the state after any of them, also while the engine writes on.

`archive` is the folder that older segments went to: they are read as part of the journal. It only reads. What the engine is just
writing may or may not be seen; everything before is complete.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from engine.core.events import VERSION, EventsTooNew, SchemaSet, decode
from engine.core.state import State
from engine.core.units import iso
from engine.journal.format import START, Record
from engine.journal.reader import beginning, read, segments
from engine.recovery.replay import NotOneHistory, RecordUnknown, replay
from engine.recovery.snapshot import Restored, snapshot
from engine.recovery.snapshot_files import FileSnapshotStore
from engine.recovery.snapshot_format import Generation, SnapshotInvalid
from service.errors import OperatorError

NONE = -1  # before the first record
PUT_BACK = "Put the archived segments back into its folder or name theirs with --archive, or ask for a later index"


def verify(journal: Path, snapshots: Path, archive: Path | None = None) -> dict[str, Any]:
    """Read every record, follow the chain, know every event, and compare the snapshots' chains with the journal's.

    Raises: JournalDamaged, RecordUnknown, NotOneHistory, each with the index. Cost: reads the whole journal, 3 µs a record.
    """
    ensure_there(journal, archive)
    marks = _chains(snapshots)
    first, last, records, messages, compared, version = None, None, 0, 0, 0, 1
    for record in read(journal, archive=archive):
        version = _version(record, version)
        if (chain := marks.get(record.command_index)) is not None:
            compared += 1
            if chain != record.chain.hex():
                what = f"The snapshot of index {record.command_index} and the journal tell two histories"
                raise NotOneHistory(what, "Move that snapshot away; an older one, or the whole journal, is used instead")
        first, last = first or record, record
        records, messages = records + 1, messages + bool(record.message)
    return {
        "records": records, "messages": messages, "segments": len(segments(journal, archive)), "first": _place(first),
        "last": _place(last), "eventsVersion": version, "snapshotsCompared": compared,
    }  # fmt: skip


def dump(journal: Path, first_index: int = 0, last_index: int | None = None, archive: Path | None = None) -> Iterator[bytes]:
    """Yield one JSON object a record: index, time, chain, events, and the message as consumers got it.  Raises: as `verify`."""
    ensure_there(journal, archive)
    for record in read(journal, first_index - 1, archive):
        if last_index is not None and record.command_index > last_index:
            return
        yield line(record)


def line(record: Record) -> bytes:
    """Return one record as a JSON object.  Raises: RecordUnknown."""
    message = msgspec.Raw(record.message) if record.message else None
    return msgspec.json.encode(
        {
            "index": record.command_index, "time": iso(record.time_ns), "timeNs": record.time_ns, "chain": record.chain.hex(),
            "events": _decoded(record), "message": message,
        }
    )  # fmt: skip


class Moment(NamedTuple):
    """The exchange after command `last_index`, in the shapes of a snapshot's files."""

    last_index: int
    digest: str
    files: Generation


def state_at(journal: Path, snapshots: Path, index: int, archive: Path | None = None) -> bytes:
    """Return everything that was in the exchange after command `index`, as JSON.  Raises and cost: as `moment`."""
    found = moment(journal, snapshots, index, archive)
    files = found.files
    return msgspec.json.encode(
        {"index": found.last_index, "digest": found.digest, "exchange": files.exchange, "markets": files.markets}
    )


def moment(journal: Path, snapshots: Path, index: int, archive: Path | None = None) -> Moment:
    """Return what was in the exchange after command `index`; `last_index` is the last one that was journaled by then.

    Begins at the newest snapshot that is not later and of the same history.  Raises: as `verify`; OperatorError when the journal
    does not have the index any more, or not yet. Cost: 5 µs a record after the snapshot.
    """
    ensure_there(journal, archive)
    start, records = _start(journal, snapshots, index, archive)
    state, chain, time_ns, found = start.state, start.chain, start.time_ns, start.last_index
    accepted_ms, later = start.accepted_ms, False
    for record in records:
        if later := record.command_index > index:
            break
        replay(state, [record], accepted_ms)
        chain, time_ns, found = record.chain, record.time_ns, record.command_index
    if not later and found < index:
        raise beyond(found, index)
    return Moment(found, state.digest(), snapshot(state, max(0, found), chain, time_ns, time_ns, accepted_ms))


def beyond(last_index: int, index: int) -> OperatorError:
    """Return what to raise when a journal ends before the index that is asked for."""
    return OperatorError(f"The journal ends at index {last_index}, and {index} is asked for", "Give --at an index up to that", 3)


def _start(journal: Path, snapshots: Path, index: int, archive: Path | None) -> tuple[Restored, Iterator[Record]]:
    """Return the state to begin with, and the records after it."""
    begins, before = beginning(journal, archive)
    for restored in FileSnapshotStore(snapshots).restored():
        if restored.last_index > index:
            continue
        records = read(journal, restored.last_index - 1, archive)
        own = next(records, None)
        if own is not None and (own.command_index, own.chain) == (restored.last_index, restored.chain):
            return restored, records
        if before == restored.chain and restored.last_index < begins:
            return restored, read(journal, archive=archive)
    if before != START:
        what = f"The journal begins at index {begins}, and no snapshot of its history is of index {index} or earlier"
        raise OperatorError(what, PUT_BACK, 3)
    return Restored(State(), NONE, START, 0, {}), read(journal, archive=archive)


def ensure_there(journal: Path, archive: Path | None = None) -> None:
    """Raises: OperatorError for a folder without a journal, or an archive that is no folder."""
    if archive is not None and not archive.is_dir():
        raise OperatorError(
            f"There is no archive in {archive}", "Set ENGINE_ARCHIVE_DIR, or give --archive, as the engine has it", 3
        )
    if not segments(journal, archive):
        raise OperatorError(f"There is no journal in {journal}", "Set ENGINE_DIR, or give --folder, as the engine has it", 3)


def _chains(snapshots: Path) -> dict[int, str]:
    """Return the chain that each readable snapshot says the journal has at its index."""
    store, found = FileSnapshotStore(snapshots), {}
    for sequence in store.sequences():
        with contextlib.suppress(SnapshotInvalid, OSError):  # it would be passed over at a start, too
            found[sequence] = store.read_generation(sequence).exchange.chain
    return found


def _decoded(record: Record) -> list[Any]:
    try:
        return decode(record.payload)
    except msgspec.DecodeError as error:
        raise RecordUnknown(record.command_index, str(error)) from error


def _version(record: Record, version: int) -> int:
    for event in _decoded(record):
        if isinstance(event, SchemaSet):
            if event.version > VERSION:
                raise RecordUnknown(record.command_index, str(EventsTooNew(event.version)))
            version = event.version
    return version


def _place(record: Record | None) -> dict[str, Any] | None:
    if record is None:
        return None
    return {"index": record.command_index, "time": iso(record.time_ns), "chain": record.chain.hex()}
