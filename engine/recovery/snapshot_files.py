"""Writes and reads the files of snapshots: whole generations or none, whatever cuts the writing short.

`{market}.{sequence}.snapshot.json` for each market, then `exchange.{sequence}.snapshot.json`: a generation counts when its
exchange file is there and every market is the one that this file names by hash. `snapshot_metadata.jsonl` has one row a market's
file, so that tools need not open them. A file is written under another name, synced
and renamed, and the folder is synced before the exchange file appears. `{market}.snapshot.json` and `exchange.snapshot.json`
are links to the newest. One writer a folder.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from urllib.parse import quote

import msgspec
import structlog

from engine.journal.journal import sync_folder, write_all
from engine.recovery.snapshot import Restored, restore
from engine.recovery.snapshot_format import Generation, SnapshotInvalid, StoredExchange, StoredSnapshot, decode, encode

KEPT = 3
EXCHANGE = "exchange"
METADATA = "snapshot_metadata.jsonl"
NAME_LENGTH_MAX = 120  # file systems take 255 bytes, of which sequence and endings need some
NUMBERED = re.compile(r"(.+)\.(\d{20})\.snapshot\.json")
log = structlog.get_logger()


class FileSnapshotStore:
    """The snapshots of a folder, of which the newest `kept` generations stay."""

    def __init__(self, folder: Path | str, kept: int = KEPT) -> None:
        self.folder = Path(folder)
        self._kept = kept

    # One market

    def write(self, snapshot: StoredSnapshot) -> None:
        """Keep a market's snapshot by itself. Returns when it is on the disk.

        Raises: FileExistsError for another content of a file that a generation has, OSError; then nothing has changed.
        """
        self._prepare()
        name, content = file_name(snapshot.market), encode(snapshot)
        file = _numbered(name, snapshot.engine_sequence)
        if snapshot.engine_sequence in self.sequences() and (self.folder / file).exists():
            if (self.folder / file).read_bytes() != content:
                raise FileExistsError(f"{file} belongs to a snapshot of the whole exchange")
            return
        self._put(file, content)
        sync_folder(self.folder)
        self._point(name, snapshot.engine_sequence)
        self._forget()
        self._describe([snapshot])

    def read_latest(self, market: str) -> StoredSnapshot | None:
        """Return a market's newest valid snapshot, or None; what cannot be read is passed over with a warning.

        Raises: SnapshotTooNew.
        """
        name = file_name(market)
        numbered = [_numbered(name, sequence) for sequence in reversed(self._sequences(name))]
        for file in [f"{name}.snapshot.json", *numbered]:
            try:
                return self._read_market(file, market)
            except FileNotFoundError:
                continue
            except (SnapshotInvalid, OSError) as error:
                log.warning("snapshot_passed_over", file=file, error=str(error))
        return None

    def metadata(self) -> list[SnapshotMetadata]:
        """Return a row for each market's snapshot that is kept, newest first, without reading the snapshots.

        Rows that cannot be read are left out: the snapshots are the truth, and each one says the same of itself.
        """
        rows: list[SnapshotMetadata] = []
        with contextlib.suppress(OSError, msgspec.DecodeError):
            rows = _ROWS.decode_lines((self.folder / METADATA).read_bytes())
        rows = [row for row in rows if (self.folder / row.file).exists()]
        return sorted(rows, key=lambda row: (-row.engine_sequence, row.market))

    # The whole exchange

    def write_generation(self, generation: Generation) -> None:
        """Keep a snapshot of everything. Returns when it is on the disk.  Raises: OSError; the generations before are there."""
        sequence = generation.exchange.engine_sequence
        if self._has(generation):
            return  # to write it again would, for a moment, break what is there
        self._prepare()
        for market in generation.markets:
            self._put(_numbered(file_name(market.market), sequence), encode(market))
        sync_folder(self.folder)
        self._put(_numbered(EXCHANGE, sequence), encode(generation.exchange))
        sync_folder(self.folder)
        for market in generation.markets:
            self._point(file_name(market.market), sequence)
        self._point(EXCHANGE, sequence)
        self._forget()
        self._describe(generation.markets)

    def sequences(self) -> list[int]:
        """Return the sequences that have an exchange file, rising."""
        return self._sequences(EXCHANGE)

    def restored(self) -> Iterator[Restored]:
        """Yield what can be restored, newest first; what cannot is passed over with a warning.

        Raises: SnapshotTooNew.
        """
        for sequence in reversed(self.sequences()):
            try:
                yield restore(self.read_generation(sequence))
            except (SnapshotInvalid, OSError) as error:
                log.warning("snapshot_passed_over", sequence=sequence, error=str(error))

    def read_generation(self, sequence: int) -> Generation:
        """Return the files of one generation, each valid.  Raises: SnapshotInvalid, SnapshotTooNew, OSError."""
        exchange = decode((self.folder / _numbered(EXCHANGE, sequence)).read_bytes(), StoredExchange)
        if exchange.engine_sequence != sequence:
            raise SnapshotInvalid(f"it is of sequence {exchange.engine_sequence}")
        files = [(_numbered(file_name(market.market), sequence), market.market) for market in exchange.markets]
        return Generation(exchange, [self._read_market(file, market) for file, market in files])

    def forget_after(self, index: int) -> None:
        """Remove what is later than `index`, newest first; an exchange file goes before its markets.  Raises: OSError."""
        numbers = self._numbers()
        for name in sorted(numbers, key=lambda name: name != EXCHANGE):
            kept = [sequence for sequence in numbers[name] if sequence <= index]
            for sequence in reversed(numbers[name][len(kept) :]):
                (self.folder / _numbered(name, sequence)).unlink()
            if kept:
                self._point(name, kept[-1])
            else:
                (self.folder / f"{name}.snapshot.json").unlink(missing_ok=True)
        if numbers:
            sync_folder(self.folder)

    def _read_market(self, file: str, market: str) -> StoredSnapshot:
        stored = decode((self.folder / file).read_bytes(), StoredSnapshot)
        if stored.market != market:
            raise SnapshotInvalid(f"{file} is of {stored.market}")
        return stored

    def _has(self, generation: Generation) -> bool:
        try:
            there = self.read_generation(generation.exchange.engine_sequence).exchange
        except (OSError, SnapshotInvalid):
            return False
        return (there.chain, there.state_digest) == (generation.exchange.chain, generation.exchange.state_digest)

    # Files

    def _prepare(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        for left in self.folder.glob("*.tmp"):
            left.unlink()

    def _put(self, name: str, content: bytes) -> None:
        """Make a file appear with all its bytes on the disk."""
        path = self.folder / f"{name}.tmp"
        try:
            file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o640)
            try:
                write_all(file, content)
                os.fsync(file)
            finally:
                os.close(file)
            os.replace(path, self.folder / name)
        except OSError:
            path.unlink(missing_ok=True)
            raise

    def _point(self, name: str, sequence: int) -> None:
        """Let the file without a number be the numbered one."""
        source, newest = self.folder / _numbered(name, sequence), self.folder / f"{name}.snapshot.json"
        link = newest.with_name(f"{newest.name}.tmp")
        try:
            os.link(source, link)
        except OSError:  # a file system without hard links
            self._put(newest.name, source.read_bytes())
        else:
            os.replace(link, newest)
            link.unlink(missing_ok=True)  # replacing a name by another one of the same file does nothing
        sync_folder(self.folder)

    def _describe(self, snapshots: list[StoredSnapshot]) -> None:
        """Add the rows of what was just written. A fault here takes nothing of the snapshots and is only said."""
        news = [metadata_of(one) for one in snapshots]
        names = {row.file for row in news}
        rows = [*news, *(row for row in self.metadata() if row.file not in names)]
        try:
            self._put(METADATA, b"".join(msgspec.json.encode(row) + b"\n" for row in rows))
        except OSError as error:
            log.warning(
                "snapshot_metadata_not_written", error=str(error), fix="The snapshots are complete; the next one writes it"
            )

    def _sequences(self, name: str) -> list[int]:
        return self._numbers().get(name, [])

    def _numbers(self) -> dict[str, list[int]]:
        """Return name → sequences that there are files of, rising."""
        found: dict[str, list[int]] = {}
        for path in sorted(self.folder.glob("*.snapshot.json")):
            if match := NUMBERED.fullmatch(path.name):
                found.setdefault(match[1], []).append(int(match[2]))
        return found

    def _forget(self) -> None:
        """Remove what is older than the kept ones; an exchange file goes before its markets."""
        numbers = self._numbers()
        generations = numbers.pop(EXCHANGE, [])
        kept = set(generations[-self._kept :])
        for sequence in generations[: -self._kept]:
            (self.folder / _numbered(EXCHANGE, sequence)).unlink()
        for name, sequences in numbers.items():
            for sequence in sequences[: -self._kept]:
                if sequence not in kept:
                    (self.folder / _numbered(name, sequence)).unlink()


class SnapshotMetadata(msgspec.Struct, rename="camel", frozen=True):
    """A row about one market's snapshot. `createdAt` in ms; the stream's entries after `lastRedisStreamId` go on from it."""

    market: str
    engine_sequence: int
    last_redis_stream_id: str
    created_at: int
    file: str
    sha256: str


_ROWS = msgspec.json.Decoder(SnapshotMetadata)


def metadata_of(stored: StoredSnapshot) -> SnapshotMetadata:
    """Return the row of a market's snapshot."""
    file = _numbered(file_name(stored.market), stored.engine_sequence)
    return SnapshotMetadata(
        stored.market, stored.engine_sequence, stored.last_redis_stream_id, stored.created_at, file, stored.sha256
    )


def file_name(market: str) -> str:
    """Return how a market's files begin: no separators, no dots, never that of the exchange, no two alike."""
    name = quote(market, safe="").replace(".", "%2E").replace("~", "%7E")
    if name == EXCHANGE:
        return "%65xchange"
    if len(name) > NAME_LENGTH_MAX:
        return f"{name[: NAME_LENGTH_MAX - 40]}~{sha256(market.encode()).hexdigest()[:32]}"
    return name


def _numbered(name: str, sequence: int) -> str:
    return f"{name}.{sequence:020d}.snapshot.json"
