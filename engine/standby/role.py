"""Keeps on the disk whether an engine leads or follows, so that no start makes two leaders of them.

`ENGINE_DIR/role.json` is there for an engine that has followed, was promoted, or stopped for a later leader; one that has always
been alone has none. `promote.json` is how `python -m engine promote` asks a standby that runs.
"""

from __future__ import annotations

import fcntl
import os
from pathlib import Path
from typing import Literal, TypeVar

import msgspec

from engine.journal.journal import sync_folder
from service.errors import OperatorError

ROLE, PROMOTE = "role.json", "promote.json"
T = TypeVar("T")
Kind = Literal["leader", "standby", "deposed"]
AGAIN = "To make it a standby, set ENGINE_FOLLOW to that engine, and ENGINE_REWIND=true: what it alone has is set aside in a file"


class Role(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What an engine is, in which term it began (or heard of the later leader), and whom it follows.

    `filling` is a standby that does not have all that the leader had at its first connection: it cannot be promoted.
    """

    role: Kind
    term: int
    leader: str = ""
    filling: bool = False


class Promotion(msgspec.Struct, frozen=True, omit_defaults=True, rename="camel"):
    """What was asked, and what became of it. `missing` is how much the leader had more when it was heard last."""

    replication: str = ""  # "" = as ENGINE_REPLICATION says
    failed: str = ""
    term: int = 0
    index: int = 0
    missing: int = -1
    heard_ms_ago: int = -1


def read(folder: Path) -> Role | None:
    """Return an engine's role, None for one that has always been alone.  Raises: OperatorError."""
    return read_file(folder / ROLE, Role)


def write(folder: Path, role: Role) -> None:
    """Keep a role; the disk has it when this returns.  Raises: OSError."""
    write_file(folder / ROLE, role)


def read_promotion(folder: Path) -> Promotion | None:
    """Return what was asked or answered, None for nothing.  Raises: OperatorError."""
    return read_file(folder / PROMOTE, Promotion)


def write_promotion(folder: Path, promotion: Promotion) -> None:
    """Ask, or answer.  Raises: OSError."""
    write_file(folder / PROMOTE, promotion)


def forget_promotion(folder: Path) -> None:
    """Remove what was asked and answered."""
    (folder / PROMOTE).unlink(missing_ok=True)


def to_follow(found: Role | None, follow: str, folder: Path) -> str:
    """Return whom an engine that starts follows, "" when it leads. `follow` is what it was told to.  Raises: OperatorError."""
    if found is None or found.role == "leader":
        return follow if found is None else ""  # who was promoted leads, whatever it was started with
    if follow:
        return follow
    if found.role == "deposed":
        raise OperatorError(f"Another engine leads since term {found.term}: {folder} is that of an earlier leader", AGAIN, 3)
    fix = "Set ENGINE_FOLLOW, or make it the leader: python -m engine promote"
    raise OperatorError(f"{folder} is that of a standby of {found.leader}", fix, 3)


def lock(folder: Path) -> int:
    """Return the open lock of the engine's folder.  Raises: OperatorError when another process has it."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        handle = os.open(folder / "lock", os.O_RDWR | os.O_CREAT, 0o640)
    except OSError as error:
        raise OperatorError(f"Cannot use ENGINE_DIR {folder}: {error}", "Give a folder that can be written") from None
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(handle)
        raise OperatorError(f"Another engine has {folder}", "Stop it, or set ENGINE_DIR to another folder", 3) from None
    return handle


def read_file(path: Path, kind: type[T]) -> T | None:
    """Return what a file says, None when there is none.  Raises: OperatorError."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=kind)
    except FileNotFoundError:
        return None
    except (OSError, msgspec.DecodeError) as error:
        raise OperatorError(
            f"Cannot read {path}: {error}", "Restore it; without it nobody knows whether this engine leads", 3
        ) from None


def write_file(path: Path, what: msgspec.Struct) -> None:
    """Write a file whole or not at all; the disk has it when this returns.  Raises: OSError."""
    new = path.with_name(f"{path.name}.new")
    with new.open("wb") as file:
        file.write(msgspec.json.encode(what))
        file.flush()
        os.fsync(file.fileno())
    new.replace(path)
    sync_folder(path.parent)
