"""Segments that nobody needs go to the archive whole; what is needed never leaves."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from engine.core.state import Store
from engine.journal.reader import segments
from engine.journal.retention import archive_segments, done_index
from engine.recovery.replay import recover
from tests.engine.lives import journaled, life, records
from tests.engine.recovery.test_replay import snapshotted


def test_the_lowest_need_decides() -> None:
    """Of the oldest snapshot, every store and the stream."""
    stores = [Store("a", 1, 70), Store("b", 1, 90)]
    assert done_index(100, stores, 80) == 70
    assert done_index(100, stores, 60) == 60
    assert done_index(50, stores, 60) == 50
    assert done_index(100, [], 1 << 63) == 100


@pytest.mark.parametrize("foreign", [False, True])
def test_only_whole_segments_below_it_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, foreign: bool) -> None:
    """At every index: each segment is in one of the two places with all its bytes; nothing above the index is gone."""
    journal, archive = tmp_path / "journal", tmp_path / "archive"
    journaled(journal, life(1, 300))
    whole, last = {path.name: path.read_bytes() for path in segments(journal)}, segments(journal)[-1]
    indices = [record.command_index for record in records(journal)]
    assert len(whole) > 5
    if foreign:
        really = os.rename

        def other_disk(source: Path, target: Path) -> None:
            if Path(source).parent != Path(target).parent:
                raise OSError(errno.EXDEV, "Invalid cross-device link")
            really(source, target)

        monkeypatch.setattr(os, "rename", other_disk)
    moved: list[str] = []
    for done in range(300):
        moved += archive_segments(journal, archive, done)
        assert [record.command_index for record in records(journal)][-1] == indices[-1]
        assert {index for index in indices if index > done} <= {record.command_index for record in records(journal)}
    assert moved == sorted(whole)[:-1]
    assert segments(journal) == [last]
    assert {path.name: path.read_bytes() for path in [*segments(archive), last]} == whole
    assert not list(archive.glob("*.part"))


def test_a_disk_that_refuses_moves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The journal is whole, and what had been moved by then is in the archive."""
    journal, archive = tmp_path / "journal", tmp_path / "archive"
    journaled(journal, life(1, 300))
    names, really, calls = [path.name for path in segments(journal)], os.rename, 0

    def full(source: Path, target: Path) -> None:
        nonlocal calls
        calls += 1
        if calls > 2:
            raise OSError(errno.ENOSPC, "No space left on device")
        really(source, target)

    monkeypatch.setattr(os, "rename", full)
    with pytest.raises(OSError, match="No space"):
        archive_segments(journal, archive, 300)
    assert [path.name for path in segments(archive)] == names[:2]
    assert [path.name for path in segments(journal)] == names[2:]


@pytest.mark.parametrize("keeps", [True, False])
def test_recovery_needs_nothing_of_the_archive(tmp_path: Path, keeps: bool) -> None:
    """As long as the snapshots kept are what was asked; also from the oldest of them, and when there is no archive."""
    journal, snapshots = tmp_path / "journal", tmp_path / "snapshots"
    journaled(journal, life(1, 600))
    expected = recover(journal, snapshots).state.digest()
    oldest = snapshotted(journal, snapshots, 300)
    newest = snapshotted(journal, snapshots, 500)
    assert archive_segments(journal, tmp_path / "archive" if keeps else None, done_index(oldest, [], 1 << 63))
    assert recover(journal, snapshots).state.digest() == expected
    (snapshots / f"exchange.{newest:020d}.snapshot.json").unlink()
    found = recover(journal, snapshots)
    assert (found.state.digest(), found.snapshot_index) == (expected, oldest)
    assert (tmp_path / "archive").exists() == keeps
