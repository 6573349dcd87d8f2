"""A standby's place is found behind every group, and what follows is read to the committed end and not beyond."""

from __future__ import annotations

from pathlib import Path

from engine.journal.format import PREFACE, START
from engine.journal.journal import open_journal
from engine.journal.reader import read, segments
from engine.standby.assembly import Assembly
from engine.standby.source import Bytes, Place, find
from tests.engine.standby.test_assembly import written


def taken(source: Bytes, end: tuple[Path | None, int], assembly: Assembly) -> list[int]:
    """Read to the end; return the indices that came."""
    found: list[int] = []
    while True:
        begins, content = source.take(end, 100)
        if begins is not None:
            assembly.announce(begins)
        elif content:
            found += [record.command_index for record in assembly.take(content).records]
        else:
            source.close()
            return found


def test_every_group_is_a_place_to_go_on_from(tmp_path: Path) -> None:
    """Whatever a standby has, it gets exactly what follows."""
    folder = written(tmp_path / "journal", 40)
    records, last = list(read(folder)), segments(folder)[-1]
    end = last, last.stat().st_size
    assert taken(Bytes(folder, None), end, Assembly(None, 0, 0)) == [record.command_index for record in records]
    for record in records:
        if record.command_index != record.link.last_index:
            continue
        own = max(int(path.stem) for path in segments(folder) if int(path.stem) <= record.command_index)
        place = find(folder, record.command_index, record.chain, own)
        assert place is not None
        assembly = Assembly(record.chain, record.command_index + 1, 3)
        later = [one.command_index for one in records if one.command_index > record.command_index]
        assert taken(Bytes(folder, place), end, assembly) == later
    assert find(folder, records[5].command_index, b"x" * 16, -1) is None


def test_an_empty_segment_is_not_begun_twice(tmp_path: Path) -> None:
    """A standby that has a segment's first bytes only goes on behind them; one that lacks them gets them."""
    folder = written(tmp_path / "journal", 40)
    path = segments(folder)[3]
    before = [record for record in read(folder) if record.command_index < int(path.stem)][-1]
    assert find(folder, int(path.stem) - 1, before.chain, int(path.stem)) == Place(path, PREFACE.size)
    assert find(folder, int(path.stem) - 1, before.chain, int(segments(folder)[2].stem)) == Place(path, 0)


def test_what_is_not_committed_is_not_read(tmp_path: Path) -> None:
    """Bytes behind the end may be taken back by a disk that refuses."""
    journal = open_journal(tmp_path)
    assert Bytes(tmp_path, None).take(journal.end, 100) == (None, b"")
    journal.append(1, 1, b"one")
    journal.commit()
    end = journal.end
    journal.append(2, 2, b"two")
    journal.commit()
    source, assembly = Bytes(tmp_path, None), Assembly(START, 0, 0)
    assert taken(source, end, assembly) == [1]
    assert taken(source, journal.end, assembly) == [2]
    journal.close()
