"""Makes the journal anew of the Redis stream, byte for byte, for the day when its disk is lost.

An entry's id is `{index}-0`; fields `time` (ns), `events` (the record's payload), `message`, `chain` and `prev` (the chain
before, both hex). Every chain is computed again: a missing, changed or doubled entry halts with its index. A stream whose
beginning was trimmed needs a snapshot that reaches it.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import redis

from engine.journal.journal import SEGMENT_BYTES_MAX, Journal, begin_journal, open_journal, sync_folder
from engine.journal.reader import START, Record, chained, segments
from engine.recovery.replay import IMPORTING, NotOneHistory
from engine.recovery.snapshot import Restored
from engine.recovery.snapshot_files import FileSnapshotStore
from engine.streams.entries import EVENTS_STREAM
from service.errors import OperatorError

PAGE = 1_000  # entries a round trip
TIMEOUT_S = 30


class Entry(NamedTuple):
    """A record and the chain before it."""

    record: Record
    before: bytes


class Imported(NamedTuple):
    """What a journal was made of."""

    first_index: int
    last_index: int
    records: int


class StreamBroken(OperatorError):
    """The stream does not hold the journal's records one after the other; `index` is the first one in doubt."""

    def __init__(self, stream: str, index: int, why: str) -> None:
        fix = "Import another copy of the stream, or begin at the newest snapshot if that is of this index or a later one"
        super().__init__(f"The stream {stream} is broken at index {index}: {why}", fix, exit_code=3)
        self.index = index


def import_from(url: str, journal_folder: Path, snapshot_folder: Path, from_snapshot: bool = False) -> Imported:
    """`import_stream` from the Redis at a URL.  Raises: OperatorError."""
    client = redis.Redis.from_url(url, socket_timeout=TIMEOUT_S, socket_connect_timeout=TIMEOUT_S)
    try:
        return import_stream(client, journal_folder, snapshot_folder, from_snapshot)
    except redis.RedisError as error:
        raise OperatorError(f"Redis did not give the stream: {error}", "See that it runs and try again", exit_code=3) from None
    finally:
        client.close()


def import_stream(
    client: redis.Redis, journal_folder: Path, snapshot_folder: Path, from_snapshot: bool = False, stream: str = EVENTS_STREAM,
    segment_bytes_max: int = SEGMENT_BYTES_MAX,
) -> Imported:  # fmt: skip
    """Make a journal of all that the stream has, ready for `recover`. An import that was interrupted is begun again.

    `from_snapshot` begins the journal at the newest snapshot, for a stream that is broken before it or does not reach it:
    consumers cannot have what came before, and what the stream does not have after it is lost.
    Raises: StreamBroken, NotOneHistory, OperatorError, redis.RedisError; the folder is empty then.
    """
    marker = journal_folder / IMPORTING
    journal_folder.mkdir(parents=True, exist_ok=True)
    if segments(journal_folder) and not marker.exists():
        raise OperatorError(f"There is a journal in {journal_folder}", "Move it away and import into an empty folder")
    newest = next(FileSnapshotStore(snapshot_folder).restored(), None)
    if from_snapshot and newest is None:
        raise NotOneHistory(f"There is no valid snapshot in {snapshot_folder}", "Give the folder with the snapshots")
    marker.touch()
    sync_folder(journal_folder)
    copy = _Copy(journal_folder, newest, segment_bytes_max)
    try:
        copy.empty()
        if newest is not None and from_snapshot:
            copy.begin(newest.chain, newest.last_index)
        for entry in entries(client, stream, newest.last_index if newest is not None and from_snapshot else -1):
            copy.take(entry)
        imported = copy.finish(stream)
    except BaseException:
        copy.empty()
        marker.unlink()
        raise
    marker.unlink()
    sync_folder(journal_folder)
    return imported


def records(client: redis.Redis, after_index: int = -1, stream: str = EVENTS_STREAM) -> Iterator[Record]:
    """Yield the stream's records above an index, oldest first.  Raises: StreamBroken, redis.RedisError."""
    return (entry.record for entry in entries(client, stream, after_index))


def entries(client: redis.Redis, stream: str = EVENTS_STREAM, after_index: int = -1) -> Iterator[Entry]:
    """Yield the stream's entries above an index, each seen to follow the one before.  Raises: StreamBroken, redis.RedisError."""
    start, chain = f"({after_index}-0" if after_index >= 0 else "-", b""
    while page := _page(client, stream, start):
        for name, fields in page:
            entry = _entry(stream, name, fields)
            if chain and entry.before != chain:
                raise StreamBroken(stream, entry.record.command_index, "what comes before it is missing or another")
            chain = entry.record.chain
            yield entry
        start = f"({page[-1][0].decode()}"


def _page(client: redis.Redis, stream: str, start: str) -> list[tuple[bytes, dict[bytes, bytes]]]:
    page: Any = client.xrange(stream, min=start, count=PAGE)
    return list(page)


def _entry(stream: str, name: bytes, fields: dict[bytes, bytes]) -> Entry:
    number, _, rest = name.decode().partition("-")
    index = int(number)
    try:
        time_ns, payload, message = int(fields[b"time"]), fields[b"events"], fields[b"message"]
        chain, before = (bytes.fromhex(fields[key].decode()) for key in (b"chain", b"prev"))
    except (KeyError, ValueError) as error:
        raise StreamBroken(stream, index, f"it is no record: {error!r}") from error
    if rest != "0" or len(before) != len(START) or chained(before, index, time_ns, payload, message) != chain:
        raise StreamBroken(stream, index, "its hash does not follow from what it holds")
    return Entry(Record(index, time_ns, payload, message, chain), before)


class _Copy:
    """The journal that is being made; it must meet the newest snapshot, if there is one."""

    def __init__(self, folder: Path, newest: Restored | None, segment_bytes_max: int) -> None:
        self._folder = folder
        self._newest = newest
        self._segment_bytes_max = segment_bytes_max
        self._journal: Journal | None = None
        self._first_index = -1
        self._count = 0
        self._met = newest is None

    def empty(self) -> None:
        """Remove what there is of it."""
        self._let_go()
        for path in segments(self._folder):
            path.unlink()

    def begin(self, chain: bytes, last_index: int) -> None:
        """Begin behind a record that the journal will not have."""
        if chain == START:
            self._journal = open_journal(self._folder, self._segment_bytes_max)
        else:
            self._journal = begin_journal(self._folder, chain, last_index, self._segment_bytes_max)
        self._first_index = last_index + 1
        self._met = self._newest is None or chain == self._newest.chain

    def take(self, entry: Entry) -> None:
        """Append a record.  Raises: NotOneHistory."""
        record = entry.record
        if self._journal is None:
            self._check_reach(entry)
            self.begin(entry.before, record.command_index - 1)
        assert self._journal is not None
        if entry.before != self._journal.chain:
            raise self._apart()
        self._journal.append(*record[:4])
        self._count += 1
        self._met = self._met or (self._newest is not None and record.chain == self._newest.chain)
        if self._count % PAGE == 0:
            self._journal.commit()

    def finish(self, stream: str) -> Imported:
        """Write the end.  Raises: NotOneHistory, when stream and snapshot do not meet."""
        newest, last = self._newest, self._journal.last_index if self._journal else -1
        if not self._met and newest is not None and last < newest.last_index:
            ends = f"ends at index {last}" if last >= 0 else "is empty"
            what = f"The stream {stream} {ends}, the newest snapshot is of {newest.last_index}"
            raise NotOneHistory(what, "Give the Redis that the engine wrote to, or begin at the snapshot")
        if not self._met:
            raise self._apart()
        if self._journal is None:
            raise NotOneHistory(f"The stream {stream} is empty", "Give the Redis that the engine wrote to")
        self._journal.commit()
        self._let_go()
        return Imported(self._first_index, last, self._count)

    def _check_reach(self, entry: Entry) -> None:
        """See that nothing is missing before a stream's first entry."""
        newest, index = self._newest, entry.record.command_index
        if entry.before == START or (newest is not None and (newest.last_index >= index or newest.chain == entry.before)):
            return
        snapshot = "there is no snapshot" if newest is None else f"the newest snapshot is of {newest.last_index}"
        what = f"The stream begins at index {index}, {snapshot}: what is between is lost"
        raise NotOneHistory(what, "Give a snapshot that reaches the stream")

    def _apart(self) -> NotOneHistory:
        assert self._newest is not None
        what = f"The snapshot of index {self._newest.last_index} and the stream tell two histories"
        return NotOneHistory(what, "Give the Redis and the snapshots of one engine, or move the wrong snapshots away")

    def _let_go(self) -> None:
        if self._journal is not None:
            self._journal.close()
            self._journal = None
