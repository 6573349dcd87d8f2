"""Makes the journal anew of the Redis stream, group for group, for the day when its disk is lost.

An entry's id is `{index}-0`; fields `time` (ns), `events` (the record's payload), `message`, `chain` and `prev` (of its group
and the one before, both hex), `group` (its first and last index; without it the record is a group by itself). Every chain is
computed again: a missing, changed or doubled entry halts with its index. A stream whose beginning was trimmed needs a snapshot
that reaches it; what is left there of a group that was trimmed is passed over, and so is at the end what has come of a group
that lacks the rest.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import redis

from engine.journal.format import START, Link, Record, chained
from engine.journal.journal import SEGMENT_BYTES_MAX, Journal, begin_journal, open_journal, sync_folder
from engine.journal.reader import segments
from engine.recovery.replay import IMPORTING, NotOneHistory
from engine.recovery.snapshot import Restored
from engine.recovery.snapshot_files import FileSnapshotStore
from engine.streams.entries import EVENTS_STREAM, GROUP_SPAN_MAX
from service.errors import OperatorError

PAGE = 1_000  # entries a round trip
TIMEOUT_S = 30


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
        for group in groups(client, stream, newest.last_index if newest is not None and from_snapshot else -1):
            copy.take(group)
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
    early = groups(client, stream, after_index - GROUP_SPAN_MAX)  # `after_index` may be in the middle of a group
    return (record for group in early for record in group if record.command_index > after_index)


def groups(client: redis.Redis, stream: str = EVENTS_STREAM, after_index: int = -1) -> Iterator[list[Record]]:
    """Yield the stream's whole groups above an index, each seen to follow the one before.

    Raises: StreamBroken, redis.RedisError.
    """
    chain, group = b"", list[Record]()
    for record in _entries(client, stream, after_index):
        index, link = record.command_index, record.link
        if group and link != group[0].link:
            raise StreamBroken(stream, group[-1].command_index, "what follows in its group is missing")
        if not group and index != link.first_index:
            if not chain:
                continue  # the beginning of its group was trimmed
            raise StreamBroken(stream, index, "what comes before it in its group is missing")
        if chain and link.before != chain:
            raise StreamBroken(stream, index, "what comes before it is missing or another")
        group.append(record)
        if index == link.last_index:
            if chained(link.before, group) != link.chain:
                raise StreamBroken(stream, link.first_index, "the hash does not follow from what the group holds")
            chain = link.chain
            yield group
            group = []


def _entries(client: redis.Redis, stream: str, after_index: int) -> Iterator[Record]:
    start = f"({after_index}-0" if after_index >= 0 else "-"
    while page := _page(client, stream, start):
        for name, fields in page:
            yield _entry(stream, name, fields)
        start = f"({page[-1][0].decode()}"


def _page(client: redis.Redis, stream: str, start: str) -> list[tuple[bytes, dict[bytes, bytes]]]:
    page: Any = client.xrange(stream, min=start, count=PAGE)
    return list(page)


def _entry(stream: str, name: bytes, fields: dict[bytes, bytes]) -> Record:
    number, _, rest = name.decode().partition("-")
    index = int(number)
    try:
        time_ns, payload, message = int(fields[b"time"]), fields[b"events"], fields[b"message"]
        chain, before = (bytes.fromhex(fields[key].decode()) for key in (b"chain", b"prev"))
        first, last = (int(part) for part in fields.get(b"group", b"%d-%d" % (index, index)).split(b"-"))
    except (KeyError, ValueError) as error:
        raise StreamBroken(stream, index, f"it is no record: {error!r}") from error
    if rest != "0" or len(before) != len(START) or not first <= index <= last:
        raise StreamBroken(stream, index, "it is no record of this group")
    return Record(index, time_ns, payload, message, Link(before, chain, first, last))


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

    def take(self, group: list[Record]) -> None:
        """Append a group.  Raises: NotOneHistory."""
        link = group[0].link
        if self._journal is None:
            self._check_reach(link)
            self.begin(link.before, link.first_index - 1)
        assert self._journal is not None
        if link.before != self._journal.chain:
            raise self._apart()
        for record in group:
            self._journal.append(*record[:4])
        self._journal.commit(durable=False)
        self._count += len(group)
        self._met = self._met or (self._newest is not None and link.chain == self._newest.chain)

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
        self._journal.sync()
        self._let_go()
        return Imported(self._first_index, last, self._count)

    def _check_reach(self, link: Link) -> None:
        """See that nothing is missing before a stream's first group."""
        newest, index = self._newest, link.first_index
        if link.before == START or (newest is not None and (newest.last_index >= index or newest.chain == link.before)):
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
