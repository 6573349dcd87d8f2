"""What an earlier leader had alone leaves its journal only after every command of it stands in a file."""

from __future__ import annotations

import json
import os
from collections import Counter
from pathlib import Path

import pytest

from engine.access.keys import Role
from engine.journal.reader import read
from engine.recovery.inspection import line as line_of
from engine.recovery.inspection import verify
from engine.recovery.replay import recover
from engine.recovery.snapshot import snapshot
from engine.recovery.snapshot_files import FileSnapshotStore
from engine.standby import set_aside
from engine.standby.line import Leader, Line
from engine.standby.parting import NothingShared, Parting, parting
from engine.standby.set_aside import finish, listed, rewind
from service.errors import OperatorError
from tests.engine.gateway.ground import exchange
from tests.engine.standby.parted import NOW_NS, files, parted
from tests.engine.standby.rig import Copy, alike, in_step

LEADER = "http://leader:8181"


async def place(old: Path, new: Path) -> Parting:
    """Return where the journals of two folders part."""
    async with exchange(new / "journal") as ground:
        key = ground.key(Role.REPLICA)["Authorization"].removeprefix("Bearer ")
        found = await parting(Line(Leader(ground.url, key)), "old", 0, old / "journal")
    assert found is not None
    return found


def snapshotted(folder: Path, *indices: int) -> None:
    """Leave snapshots of some moments."""
    from engine.recovery.replay import Follower

    follower = Follower(folder / "journal", folder / "snapshots")
    for index in indices:
        follower.follow(index)
        made = snapshot(follower.state, follower.last_index, follower.chain, NOW_NS, follower.time_ns)
        FileSnapshotStore(folder / "snapshots").write_generation(made)
    follower.close()


async def test_every_command_is_in_the_journal_or_set_aside_and_the_rest_is_followed(tmp_path: Path) -> None:
    """Nothing is in neither; what is set aside reads as `journal dump` printed it; the standby then is its leader's twin."""
    old, new = parted(tmp_path)
    before = [json.loads(line_of(record)) for record in read(old / "journal")]
    snapshotted(old, 200, 250, 500)
    at = await place(old, new)
    done = rewind(old, at, LEADER, NOW_NS)
    assert done is not None
    kept = [json.loads(line_of(record)) for record in read(old / "journal")]
    aside = [json.loads(one) for one in listed(old, files=False)]
    assert kept + aside == before
    assert done.commands == len(aside) > 100
    assert kept[-1]["index"] == done.last_index
    (about,) = (json.loads(one) for one in listed(old, files=True))
    assert about["after"] == done.last_index
    assert (about["leader"], about["leaderTerm"], about["commands"]) == (LEADER, 1, done.commands)
    assert (about["first"], about["last"]) == (aside[0]["index"], aside[-1]["index"])
    assert FileSnapshotStore(old / "snapshots").sequences()[-1] <= done.last_index
    assert FileSnapshotStore(old / "snapshots").read_latest("A") is not None
    assert recover(old / "journal", old / "snapshots").last_index == done.last_index
    assert verify(old / "journal", old / "snapshots")["snapshotsCompared"] >= 1
    assert rewind(old, at, LEADER, NOW_NS) is None, "there is nothing to set aside twice"
    async with exchange(new / "journal") as ground:
        copy = Copy(ground, old / "journal")
        copy.start()
        await in_step(ground, copy)
        assert copy.state.digest() == ground.digest
        await copy.stop()
        alike(ground.folder, old / "journal")


@pytest.mark.parametrize("dies", range(8))
async def test_a_crash_in_between_is_finished_by_the_next_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dies: int
) -> None:
    """After any file operation: before the file is complete nothing has changed, after that nothing is done twice or lost."""
    old, new = parted(tmp_path, segment_bytes_max=15_000)
    snapshotted(old, 200, 500)
    before = Counter(line_of(record) for record in read(old / "journal"))
    at = await place(old, new)

    class Killed(BaseException):
        """The machine stops here."""

    left = [dies]

    def dying(original):  # type: ignore[no-untyped-def]
        def step(*args, **kwargs):  # type: ignore[no-untyped-def]
            if left[0] == 0:
                raise Killed
            left[0] -= 1
            return original(*args, **kwargs)

        return step

    with monkeypatch.context() as patched:
        patched.setattr(Path, "unlink", dying(Path.unlink))
        patched.setattr(Path, "replace", dying(Path.replace))
        patched.setattr(os, "fsync", dying(os.fsync))
        with pytest.raises(Killed):
            rewind(old, at, LEADER, NOW_NS)
    begun = (old / set_aside.REWIND).exists()
    finish(old)
    recover(old / "journal", old / "snapshots")
    if not begun:
        assert Counter(line_of(record) for record in read(old / "journal")) == before
        assert list(listed(old, files=False)) == []
        assert rewind(old, at, LEADER, NOW_NS) is not None
    aside = [one.encode() for one in listed(old, files=False)]
    assert Counter([*(line_of(record) for record in read(old / "journal")), *aside]) == before
    finish(old)
    theirs, own = files(new), files(old)
    assert all(theirs[name].startswith(content) for name, content in own.items())


async def test_nobody_is_rewound_for_a_leader_of_no_later_term_or_without_a_snapshot_to_go_back_to(tmp_path: Path) -> None:
    """Two that lead in the same term are for people to decide; a journal whose beginning is archived needs an older snapshot."""
    old, new = parted(tmp_path)
    at = await place(old, new)
    with pytest.raises(OperatorError, match="nobody was replaced"):
        rewind(old, at._replace(leader_term=0), LEADER, NOW_NS)
    snapshotted(old, 500)
    first, *_ = files(old)
    (old / "journal" / first).unlink()
    unchanged = files(old)
    with pytest.raises(NothingShared):
        rewind(old, at, LEADER, NOW_NS)
    assert files(old) == unchanged
    assert list(listed(old, files=True)) == []


def test_a_file_that_cannot_be_read_is_said(tmp_path: Path) -> None:
    """One line, with the file's name; a folder without any has none."""
    assert list(listed(tmp_path, files=True)) == []
    (tmp_path / set_aside.FOLDER).mkdir()
    (tmp_path / set_aside.FOLDER / "1-2.jsonl").write_text("")
    with pytest.raises(OperatorError, match=r"Cannot read .*1-2\.jsonl"):
        list(listed(tmp_path, files=False))
