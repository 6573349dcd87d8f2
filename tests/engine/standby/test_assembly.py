"""Bytes of a journal become the groups they were, however they are cut; nothing else passes."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from engine.journal.format import PREFACE, START, Record, Unfit
from engine.journal.journal import open_journal
from engine.journal.reader import read, segments
from engine.standby.assembly import Assembly

OLD = Path(__file__).parents[1] / "journal" / "format_2"


def written(folder: Path, groups: int, segment_bytes: int = 400) -> Path:
    """Write a journal of several small segments."""
    journal, dice = open_journal(folder, segment_bytes), random.Random(3)
    index = 0
    for _ in range(groups):
        for _ in range(dice.randint(1, 4)):
            index += dice.randint(1, 3)
            journal.append(index, index, dice.randbytes(dice.randint(0, 60)), dice.randbytes(dice.choice((0, 9))))
        journal.commit()
    journal.close()
    return folder


@pytest.mark.parametrize("size", [1, 7, 64, 1_000_000])
def test_groups_come_out_as_they_were_written(tmp_path: Path, size: int) -> None:
    """Byte by byte or all at once, over the ends of segments."""
    folder = written(tmp_path / "journal", 40)
    assembly, records, copies = Assembly(None, 0, 0), [], []
    for path in segments(folder):
        assembly.announce(int(path.stem))
        content, copied = path.read_bytes(), b""
        for at in range(0, len(content), size):
            whole = assembly.take(content[at : at + size])
            copied += (whole.beginning.content if whole.beginning else b"") + whole.content
            records += whole.records
        copies.append(copied)
    assert records == list(read(folder))
    assert copies == [path.read_bytes() for path in segments(folder)]


def test_a_journal_of_the_older_format_is_copied_as_it_is() -> None:
    """One record a group, its own header."""
    records: list[Record] = []
    assembly, paths = Assembly(START, 0, 0), sorted(OLD.rglob("*.journal"))
    for path in paths:
        assembly.announce(int(path.stem))
        for at in range(0, path.stat().st_size, 50):
            records += assembly.take(path.read_bytes()[at : at + 50]).records
    assert records == list(read(paths[0].parent))


def test_one_flipped_bit_anywhere_is_found(tmp_path: Path) -> None:
    """In the preface, a header, a table or a payload: the group with it does not pass, nor anything behind it."""
    (path,) = segments(written(tmp_path / "journal", 12, 1 << 20))
    content = path.read_bytes()
    whole = [record.command_index for record in read(path.parent)]
    for at in range(len(content)):
        broken = bytearray(content)
        broken[at] ^= 1 << at % 8
        assembly = Assembly(None, 0, 0)
        assembly.announce(int(path.stem))
        passed: list[int] = []
        try:
            for start in range(0, len(broken), 200):
                passed += [record.command_index for record in assembly.take(bytes(broken[start : start + 200])).records]
        except Unfit:
            pass
        assert passed == whole[: len(passed)]
        assert len(passed) < len(whole), f"byte {at} was not looked at"


def test_what_does_not_follow_is_refused(tmp_path: Path) -> None:
    """Another chain, an index that was there, groups without a segment, a segment within a group, a newer format."""
    (path,) = segments(written(tmp_path / "journal", 3, 1 << 20))
    content = path.read_bytes()
    for chain, next_index in ((bytes(15) + b"x", 0), (START, 1_000)):
        assembly = Assembly(chain, next_index, 0)
        with pytest.raises(Unfit):  # noqa: PT012  # one of the two, as the case may be
            assembly.announce(int(path.stem))
            assembly.take(content)
    with pytest.raises(Unfit, match="before a segment"):
        Assembly(START, 0, 0).take(content)
    within = Assembly(START, 0, 0)
    within.announce(int(path.stem))
    within.take(content[:-1])
    with pytest.raises(Unfit, match="within a group"):
        within.announce(10**6)
    newer = Assembly(START, 0, 0)
    newer.announce(int(path.stem))
    with pytest.raises(Unfit, match="format 9"):
        newer.take(content[:6] + b"09" + content[8 : PREFACE.size])
