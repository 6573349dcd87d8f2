"""Packs a backup into one tar file, its table of contents first, and takes it out again only when every file of it is whole.

A name `-` is stdin or stdout, so that a backup leaves a container by `docker compose exec` or `kubectl exec`. A file appears
under its name when it is complete, readable for its owner only.
"""

from __future__ import annotations

import contextlib
import io
import os
import sys
import tarfile
from collections.abc import Callable, Iterator, Mapping
from hashlib import sha256
from pathlib import Path, PurePosixPath
from typing import IO, Any

import msgspec

from service import VERSION
from service.errors import OperatorError

FORMAT = 1
TABLE = "backup.json"
TABLE_BYTES_MAX = 64 << 20
PART_BYTES = 1 << 20
ANOTHER = "Give another backup; nothing was changed"


class Entry(msgspec.Struct, frozen=True):
    """One file of a backup."""

    name: str
    bytes: int
    sha256: str


class Table(msgspec.Struct, frozen=True):
    """What a backup holds. `kind` says of what it is, `about` what its maker says of it."""

    kind: str
    made_at: str
    about: dict[str, Any]
    files: list[Entry]
    version: str = VERSION
    format: int = FORMAT


class BackupInvalid(OperatorError):
    """A file is no backup, is cut, was changed, or is one of something else."""

    def __init__(self, what: str, fix: str = ANOTHER) -> None:
        super().__init__(what, fix, exit_code=3)


def pack(out: IO[bytes], kind: str, made_at: str, files: Mapping[str, Path], about: Mapping[str, Any]) -> None:
    """Write a backup of files, which nobody changes meanwhile, by name.  Raises: OSError."""
    entries = [Entry(name, path.stat().st_size, _digest(path)) for name, path in files.items()]
    table = msgspec.json.encode(Table(kind, made_at, dict(about), entries))
    with tarfile.open(fileobj=out, mode="w|") as tar:
        tar.addfile(_member(TABLE, len(table)), io.BytesIO(table))
        for entry, path in zip(entries, files.values(), strict=True):
            with path.open("rb") as file:
                tar.addfile(_member(entry.name, entry.bytes), file)


def unpack(source: IO[bytes], kind: str, folder: Path) -> Table:
    """Take a backup's files out into an empty folder, as they were packed.  Raises: BackupInvalid, OSError."""
    try:
        with tarfile.open(fileobj=source, mode="r|") as tar:
            members = iter(tar)
            table = _table(tar, next(members, None), kind)
            for entry in table.files:
                _take(tar, next(members, None), entry, folder)
            if next(members, None) is not None:
                raise BackupInvalid("The backup holds more than its table of contents says")
            return table
    except tarfile.TarError as error:
        raise BackupInvalid(f"This is no backup, or a part of one: {error}") from None


@contextlib.contextmanager
def reading(name: str) -> Iterator[IO[bytes]]:
    """Give the bytes of a file, or of stdin.  Raises: OperatorError when there are none."""
    if name == "-":
        yield sys.stdin.buffer
        return
    with contextlib.ExitStack() as stack:
        try:
            file = stack.enter_context(Path(name).open("rb"))
        except OSError as error:
            what = f"{name} cannot be read: {(error.strerror or str(error)).lower()}"
            raise OperatorError(what, "Name a backup, or - for stdin") from None
        yield file


def write(name: str, make: Callable[[IO[bytes]], None]) -> None:
    """Have a new file, or stdout, written by `make`; a file that was not completed is not left.  Raises: OperatorError."""
    if name == "-":
        if sys.stdout.isatty():
            raise OperatorError("A backup is no text for a terminal", "Name a file, or lead stdout into one: … backup - > FILE")
        make(sys.stdout.buffer)
        sys.stdout.buffer.flush()
        return
    path, part = Path(name), Path(f"{name}.part")
    if path.exists():
        raise OperatorError(f"{name} is there already", "Give a new name: a backup is never written over another one")
    try:
        try:
            handle = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            with open(handle, "wb") as file:
                make(file)
                file.flush()
                os.fsync(handle)
            os.rename(part, path)
        except BaseException:
            part.unlink(missing_ok=True)
            raise
    except OSError as error:
        what = f"{name} cannot be written: {(error.strerror or str(error)).lower()}"
        raise OperatorError(what, "Give a file on a disk with room that this user may write", 3) from None


def _table(tar: tarfile.TarFile, member: tarfile.TarInfo | None, kind: str) -> Table:
    content = tar.extractfile(member) if member is not None and member.isreg() and member.name == TABLE else None
    if content is None or member is None or member.size > TABLE_BYTES_MAX:
        raise BackupInvalid("This is no backup: it does not begin with a table of contents")
    try:
        table = msgspec.json.decode(content.read(), type=Table)
    except msgspec.DecodeError as error:
        raise BackupInvalid(f"The backup's table of contents cannot be read: {error}") from None
    if table.format > FORMAT:
        raise BackupInvalid(
            f"The backup has format {table.format}, this version reads up to {FORMAT}", "Use the version that made it"
        )
    if table.kind != kind:
        raise BackupInvalid(f"This is a backup of {table.kind}, and not of {kind}")
    return table


def _take(tar: tarfile.TarFile, member: tarfile.TarInfo | None, entry: Entry, folder: Path) -> None:
    path = PurePosixPath(entry.name)
    if path.is_absolute() or ".." in path.parts:
        raise BackupInvalid(f"The backup names a file outside of itself: {entry.name}")
    content = tar.extractfile(member) if member is not None and member.isreg() and member.name == entry.name else None
    if content is None:
        raise BackupInvalid(f"The backup ends before {entry.name}: it is a part of one")
    target, hashing = folder / path, sha256()
    target.parent.mkdir(parents=True, exist_ok=True)
    with open(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        while part := content.read(PART_BYTES):
            hashing.update(part)
            file.write(part)
        file.flush()
        os.fsync(file.fileno())
    if (hashing.hexdigest(), target.stat().st_size) != (entry.sha256, entry.bytes):
        raise BackupInvalid(f"{entry.name} is not what was backed up: the backup is damaged")


def _member(name: str, size: int) -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.size, member.mode = size, 0o600
    return member


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        hashing = sha256()
        while part := file.read(PART_BYTES):
            hashing.update(part)
    return hashing.hexdigest()
