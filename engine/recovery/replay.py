"""Recovers the state after the journal's last record, from the newest valid snapshot and the records after it.

The newest valid snapshot counts only when the journal has its index with its chain: then both tell one history, and what the
journal has after it is applied. Damage halts with the index. The same `replay` serves the journal and the Redis stream, which
`streams/restore.py` turns back into a journal first.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable
from operator import attrgetter
from pathlib import Path
from typing import NamedTuple

import msgspec

from engine.core.events import decode
from engine.core.linked import ids_of
from engine.core.state import State
from engine.journal.format import START, Record
from engine.journal.reader import Tail, beginning, read, segments
from engine.recovery.snapshot import MS_NS, Restored
from engine.recovery.snapshot_files import FileSnapshotStore
from service.errors import OperatorError

IMPORTING = "importing"  # a file in a journal's folder while a Redis stream is being imported into it
ALL = 1 << 63
SPARE = 10_000  # times of closed orders that are kept until it pays to look for them


class Recovered(NamedTuple):
    """A state and the last record in it: index (-1 = none yet), chain, time (0 = not known).

    `snapshot_index` is where it began (-1 = without a snapshot), `replayed` how many records came after.
    """

    state: State
    last_index: int
    chain: bytes
    snapshot_index: int
    replayed: int
    time_ns: int


class NotOneHistory(OperatorError):
    """Snapshot and journal do not belong together, or there is something missing between them."""

    def __init__(self, what: str, fix: str) -> None:
        super().__init__(what, fix, exit_code=3)


class RecordUnknown(OperatorError):
    """A record is as it was written, but this version does not know what it says."""

    def __init__(self, index: int, why: str) -> None:
        super().__init__(f"The record at index {index} has unknown events: {why}", "Start the version that wrote it", exit_code=3)
        self.index = index


def recover(journal_folder: Path, snapshot_folder: Path) -> Recovered:
    """Return the state after the journal's last record.

    Raises: JournalDamaged, NotOneHistory, RecordUnknown, SnapshotTooNew; AssertionError or KeyError for records that do not
    follow from those before. Cost: 5 µs a record after the snapshot.
    """
    follower = Follower(journal_folder, snapshot_folder)
    try:
        follower.follow()
    finally:
        follower.close()
    return Recovered(
        follower.state, follower.last_index, follower.chain, follower.snapshot_index, follower.replayed, follower.time_ns
    )


def replay(state: State, records: Iterable[Record], accepted_ms: dict[int, int] | None = None) -> int:
    """Apply records, oldest first; return how many. `accepted_ms` is told when each order was accepted.

    Raises: RecordUnknown; AssertionError or KeyError, with the index in a note, for what does not follow.
    """
    apply, orders, count = state.apply, state.orders, 0
    for index, time_ns, payload, message, _ in records:
        try:
            for event in decode(payload):
                apply(event)
        except msgspec.DecodeError as error:
            raise RecordUnknown(index, str(error)) from error
        except (AssertionError, KeyError) as error:
            error.add_note(f"while the record at index {index} was applied")
            raise
        if message:
            state.message_index = index
        if accepted_ms is not None:
            accepted_ms.update((one, time_ns // MS_NS) for one in ids_of(index) if one in orders)
        count += 1
    return count


class Follower:
    """A state that begins at the newest snapshot and follows a journal, which may be growing meanwhile.

    Raises, when it is made: NotOneHistory, JournalDamaged, SnapshotTooNew.
    """

    def __init__(self, journal_folder: Path, snapshot_folder: Path) -> None:
        if (journal_folder / IMPORTING).exists():
            fix = "Import the stream again; what is in the folder is replaced"
            raise NotOneHistory(f"The import of a stream into {journal_folder} was interrupted", fix)
        restored = next(FileSnapshotStore(snapshot_folder).restored(), None)
        self.state = restored.state if restored else State()
        self.last_index, self.chain, self.time_ns = (restored.last_index, restored.chain, restored.time_ns) if restored else _NONE
        self.snapshot_index = self.last_index
        self.replayed = 0
        self.accepted_ms = restored.accepted_ms if restored else {}
        self._tail = Tail(journal_folder, self.last_index - 1 if restored else -1)
        self._pending: list[Record] = []
        try:
            self._connect(journal_folder, restored)
        except BaseException:
            self.close()
            raise

    def follow(self, until_index: int = ALL) -> None:
        """Apply what the journal has up to `until_index`.  Raises: as `replay`, JournalDamaged."""
        while records := self._pending or self._tail.take():
            cut = bisect_right(records, until_index, key=attrgetter("command_index"))
            self._pending = records[cut:]
            self._apply(records[:cut])
            if self._pending:
                return

    def close(self) -> None:
        """Let go of the journal."""
        self._tail.close()

    def _apply(self, records: list[Record]) -> None:
        if records:
            self.replayed += replay(self.state, records, self.accepted_ms)
            self.last_index, self.chain, self.time_ns = records[-1].command_index, records[-1].chain, records[-1].time_ns
        if len(self.accepted_ms) > 2 * len(self.state.orders) + SPARE:
            orders = self.state.orders
            self.accepted_ms = {order_id: ms for order_id, ms in self.accepted_ms.items() if order_id in orders}

    def _connect(self, folder: Path, restored: Restored | None) -> None:
        """See that the journal goes on where the state is; what was read for that is not read again."""
        first, before = beginning(folder)
        if before == self.chain and self.last_index < first:
            return
        if restored is None:
            what = f"The journal begins at index {first}, and there is no valid snapshot of what came before"
            raise NotOneHistory(what, "Put the archived segments back into its folder, or a snapshot into the snapshots' folder")
        index = self.last_index
        if before != START and first > index:
            what = f"The snapshot is of index {index}, the journal begins at {first} and does not follow it"
            raise NotOneHistory(what, "Put the archived segments back into the journal's folder")
        self._pending = self._tail.take()
        if not self._pending:
            known = f"ends at index {_last(folder)}" if segments(folder) else "is empty"
            what = f"The snapshot is of index {index}, the journal {known}: its end was lost"
            raise NotOneHistory(what, _IMPORT)
        found = self._pending.pop(0)
        if (found.command_index, found.chain) != (index, self.chain):
            what = f"The snapshot of index {index} and the journal tell two histories"
            raise NotOneHistory(what, f"{_IMPORT}, if the snapshot is right")


_NONE = (-1, START, 0)
_IMPORT = (
    "Import the Redis stream into an empty journal folder (engine/README.md, Recovery); to go on without what is lost, move the "
    "snapshots away"
)


def _last(folder: Path) -> int:
    """Return the index of a journal's last record."""
    last = int(segments(folder)[-1].stem) - 1
    for record in read(folder, last):
        last = record.command_index
    return last
