"""Keeps the keys in one file that the engine and `python -m engine keys` may both change while the other runs.

A change is made under a lock, written beside, synced and renamed: a reader sees the old file or the new one. Nobody but the
owner may read it, although it holds no secret: it says who trades.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
from collections.abc import Iterator
from pathlib import Path

import msgspec

from engine.access.keys import Key, KeyInvalid, KeyRing, Ranges, Role, made, written
from engine.core.units import iso
from service.errors import OperatorError

FORMAT = 1
BYTES_MAX = 16 << 20
ID_LETTERS = "abcdefghijkmnpqrstuvwxyz23456789"  # none that look alike
FIX = "Mend or restore it, or move it away and make new keys: python -m engine keys create"
Mark = tuple[int, int, int]


class _File(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    version: int
    keys: tuple[Key, ...]


class KeyFile:
    """The file of the keys at `path`."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def exists(self) -> bool:
        """Return whether there is a file, readable or not."""
        return self.path.exists()

    def mark(self) -> Mark | None:
        """Return what changes with every change of the file, None while there is none."""
        try:
            found = self.path.stat()
        except OSError:
            return None
        return found.st_mtime_ns, found.st_size, found.st_ino

    def read(self) -> KeyRing:
        """Return the keys; no file holds none.  Raises: OperatorError when it cannot be read or makes no sense."""
        try:
            with self.path.open("rb") as file:
                content = file.read(BYTES_MAX + 1)
        except FileNotFoundError:
            return KeyRing()
        except OSError as error:
            raise OperatorError(f"Cannot read the keys in {self.path}: {error.strerror}", FIX, 3) from None
        try:
            if len(content) > BYTES_MAX:
                raise KeyInvalid(f"it is larger than {BYTES_MAX} bytes")
            file_version = msgspec.json.decode(content, type=_Version).version
            if file_version != FORMAT:
                raise KeyInvalid(f"it is of version {file_version}, this release knows {FORMAT}")
            return KeyRing(msgspec.json.decode(content, type=_File).keys)
        except (ValueError, RecursionError) as error:
            raise OperatorError(f"The keys in {self.path} cannot be used: {error}", FIX, 3) from None

    def create(
        self, now_ns: int, role: Role, name: str = "", accounts: Ranges = (), stores: tuple[str, ...] = (), expires: str = ""
    ) -> tuple[Key, str]:
        """Add a key; return it and its text, which is nowhere else.  Raises: KeyInvalid, OperatorError."""
        with self._changing() as ring:
            key_id = next(i for i in iter(_drawn_id, "") if i not in ring.keys)
            secret = secrets.token_hex(32)
            key = made(key_id, secret, now_ns, role, name, accounts, stores, expires)
            self._write(KeyRing([*ring.keys.values(), key]))
        return key, written(key_id, secret)

    def withdraw(self, key_id: str, now_ns: int) -> Key:
        """Let a key count no longer. It stays in the file, because the journal names it.  Raises: KeyError, OperatorError."""
        with self._changing() as ring:
            key = ring.keys[key_id]
            if not key.withdrawn:
                key = msgspec.structs.replace(key, withdrawn=iso(now_ns))
                self._write(KeyRing([key if one.id == key_id else one for one in ring.keys.values()]))
        return key

    def ensure(self, path: Path, now_ns: int, role: Role, name: str) -> str:
        """Return the key in the file at `path`; make one of `role` and write it there when it has none that counts.

        Raises: OperatorError.
        """
        try:
            text = path.read_text().strip()
        except FileNotFoundError:
            text = ""
        except (OSError, UnicodeDecodeError) as error:
            raise OperatorError(f"Cannot read the key in {path}: {error}", "Move the file away; a new key is made", 3) from None
        caller = self.read().bearer(text, now_ns)
        if caller is not None and caller.role is role:
            return text
        _, text = self.create(now_ns, role, name)
        replace(path, f"{text}\n".encode())
        return text

    @contextlib.contextmanager
    def _changing(self) -> Iterator[KeyRing]:
        """Hold the lock of those who write; yield the keys as they are."""
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            handle = os.open(self.path.with_name(f"{self.path.name}.lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise OperatorError(f"Cannot change {self.path}: {error.strerror}", "Give a folder that can be written", 3) from None
        try:
            fcntl.flock(handle, fcntl.LOCK_EX)
            yield self.read()
        finally:
            os.close(handle)

    def _write(self, ring: KeyRing) -> None:
        content = msgspec.json.format(msgspec.json.encode(_File(FORMAT, tuple(ring.keys.values()))), indent=1)
        replace(self.path, content + b"\n")


class _Version(msgspec.Struct, frozen=True):
    version: int


def replace(path: Path, content: bytes) -> None:
    """Write a file whole or not at all, readable by its owner only.  Raises: OperatorError."""
    own = path.with_name(f".{path.name}.{secrets.token_hex(6)}.new")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(own, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            with open(handle, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            own.replace(path)
        except OSError:
            own.unlink(missing_ok=True)
            raise
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    except OSError as error:
        raise OperatorError(f"Cannot write {path}: {error.strerror}", "Give a folder that can be written", 3) from None


def _drawn_id() -> str:
    return "".join(secrets.choice(ID_LETTERS) for _ in range(8))
