"""service/backup.py: what was packed comes out as it was, or not at all."""

from __future__ import annotations

import io
import os
import tarfile
from pathlib import Path

import pytest

from service import backup
from service.backup import BackupInvalid
from service.errors import OperatorError

FILES = {"a.txt": b"first", "deep/b.bin": os.urandom(3_000_000), "empty": b""}


def packed(folder: Path, kind: str = "a thing") -> bytes:
    paths = {}
    for name, content in FILES.items():
        paths[name] = folder / name
        paths[name].parent.mkdir(parents=True, exist_ok=True)
        paths[name].write_bytes(content)
    out = io.BytesIO()
    backup.pack(out, kind, "2026-11-22T00:00:00Z", paths, {"index": 7})
    return out.getvalue()


def test_what_was_packed_comes_out_as_it_was(tmp_path: Path) -> None:
    """Names, contents, what its maker said of it; the files are the owner's."""
    content = packed(tmp_path / "in")
    table = backup.unpack(io.BytesIO(content), "a thing", tmp_path)
    assert {name: (tmp_path / name).read_bytes() for name in FILES} == FILES
    assert (table.about, [entry.name for entry in table.files]) == ({"index": 7}, list(FILES))
    assert (tmp_path / "a.txt").stat().st_mode & 0o777 == 0o600


def test_a_part_of_a_backup_is_none(tmp_path: Path) -> None:
    """Cut anywhere, empty, or no tar at all: refused, and said so in one line."""
    content = packed(tmp_path / "in")
    end = len(content.rstrip(b"\0"))
    for number, cut in enumerate((0, 100, 600, 1_500, 2_000, end // 2, end - 3_000, end - 600)):
        target = tmp_path / str(number)
        target.mkdir()
        with pytest.raises(BackupInvalid, match=r"no backup|a part of one|damaged"):
            backup.unpack(io.BytesIO(content[:cut]), "a thing", target)
    with pytest.raises(BackupInvalid, match="no backup"):
        backup.unpack(io.BytesIO(b"not a tar" * 200), "a thing", tmp_path)


def test_a_changed_byte_is_found(tmp_path: Path) -> None:
    """In a file; whoever changes the table, too, has made another backup."""
    content = bytearray(packed(tmp_path / "in"))
    content[content.find(b"first")] ^= 1
    with pytest.raises(BackupInvalid, match=r"a\.txt is not what was backed up"):
        backup.unpack(io.BytesIO(bytes(content)), "a thing", tmp_path)


def test_a_backup_of_something_else_is_refused(tmp_path: Path) -> None:
    """Of another kind, of a newer format, with a file outside of itself, with more than it says."""
    content = packed(tmp_path / "in")
    with pytest.raises(BackupInvalid, match="a backup of a thing, and not of another"):
        backup.unpack(io.BytesIO(content), "another", tmp_path)
    newer = content.replace(b'"format":1', b'"format":2')
    with pytest.raises(BackupInvalid, match="format 2, this version reads up to 1"):
        backup.unpack(io.BytesIO(newer), "a thing", tmp_path)
    outside = content.replace(b'"name":"a.txt"', b'"name":"../../x"').replace(b'"bytes":5', b'"bytes":4')
    with pytest.raises(BackupInvalid):
        backup.unpack(io.BytesIO(outside), "a thing", tmp_path)
    out = io.BytesIO(content)
    with tarfile.open(fileobj=out, mode="a") as tar:
        tar.addfile(tarfile.TarInfo("more"))
    with pytest.raises(BackupInvalid, match="more than its table"):
        backup.unpack(io.BytesIO(out.getvalue()), "a thing", tmp_path)


def test_a_file_is_complete_or_not_there(tmp_path: Path) -> None:
    """Neither a failure nor an earlier backup of the same name leaves something behind."""

    def fails(_: object) -> None:
        raise OSError(28, "No space left on device")

    name = str(tmp_path / "b.tar")
    with pytest.raises(OperatorError, match="no space left"):
        backup.write(name, fails)
    assert list(tmp_path.iterdir()) == []
    backup.write(name, lambda out: out.write(b"x") and None)
    with pytest.raises(OperatorError, match="is there already"):
        backup.write(name, lambda out: out.write(b"y") and None)
    with backup.reading(name) as file:
        assert file.read() == b"x"
    with pytest.raises(OperatorError, match="cannot be read"), backup.reading(str(tmp_path / "none")):
        raise AssertionError("it was read")
