"""The journal returns what it was given: over restarts, crashes at every byte, damage at every byte and full disks."""

from __future__ import annotations

import errno
import os
from itertools import groupby, pairwise
from operator import attrgetter
from pathlib import Path

import pytest

from engine.journal.format import END, ENTRY, HEADER, PREFACE, SECTOR_BYTES, START, chained
from engine.journal.journal import JournalRefused, begin_journal, open_journal
from engine.journal.reader import JournalDamaged, JournalTooNew, Tail, beginning, read, segments
from service.errors import OperatorError

Sent = tuple[int, int, bytes, bytes]  # index, time, payload, message
AFTER, AGAIN = (1_000, 1, b"after", b""), (500, 2, b"again", b"{}")
SENT: list[Sent] = [(3 * n + 2, 1_000 + n, bytes([n % 251]) * (n % 40), b'{"n":%d}' % n * (n % 3)) for n in range(30)]


def sent(folder: Path, after_index: int = -1) -> list[Sent]:
    """Return what can be read, without the chain."""
    return [record[:4] for record in read(folder, after_index)]


def written(folder: Path, records: list[Sent] = SENT, segment_bytes_max: int = 1 << 20) -> Path:
    """Write records in groups of three; return the folder."""
    journal = open_journal(folder, segment_bytes_max)
    for count, record in enumerate(records, 1):
        journal.append(*record)
        if count % 3 == 0:
            journal.commit()
    journal.commit()
    journal.close()
    return folder


def test_what_was_committed_comes_back(tmp_path: Path) -> None:
    """With its holes between indices, from any index on; what was only appended does not."""
    written(tmp_path)
    journal = open_journal(tmp_path)
    journal.append(1_000, 5, b"never committed")
    journal.close()
    assert sent(tmp_path) == SENT
    assert sent(tmp_path, after_index=32) == [record for record in SENT if record[0] > 32]
    assert open_journal(tmp_path).last_index == SENT[-1][0]


def test_an_empty_folder_is_an_empty_journal(tmp_path: Path) -> None:
    """It is made when it is not there."""
    assert open_journal(tmp_path / "new").last_index == -1
    assert list(read(tmp_path / "new")) == []


def test_a_journal_goes_on_over_restarts_and_segments(tmp_path: Path) -> None:
    """Small segments, a restart after each record."""
    for record in SENT:
        written(tmp_path, [record], segment_bytes_max=200)
    assert len(segments(tmp_path)) > 5
    assert sent(tmp_path) == SENT
    assert sent(tmp_path, after_index=50) == [record for record in SENT if record[0] > 50]


def ends_of(records: list[Sent] = SENT) -> list[int]:
    """Return where the groups of three end in their file, the first bytes of all before them."""
    ends = [PREFACE.size]
    for at in range(0, len(records), 3):
        bodies = sum(ENTRY.size + len(record[2]) + len(record[3]) for record in records[at : at + 3])
        ends.append(ends[-1] + HEADER.size + bodies + len(END))
    return ends


def test_a_crash_at_any_byte_leaves_whole_groups(tmp_path: Path) -> None:
    """More than 1,000 lengths of the last segment, with and without zeros behind: whole groups are read, the rest is cut."""
    whole = written(tmp_path / "whole")
    (source,) = segments(whole)
    content, ends = source.read_bytes(), ends_of()
    assert len(content) == ends[-1] > 1_000
    cut = tmp_path / "cut"
    cut.mkdir()
    path = cut / source.name
    for length in range(len(content)):
        path.write_bytes(content[:length] + bytes(length % 3 * 50))  # some file systems leave zeros
        kept = SENT[: 3 * max(0, sum(end <= length for end in ends) - 1)]
        if length % 3 and length not in (0, *ends):
            continue  # zeros behind a part of a sector: the next test
        assert sent(cut) == kept
        written(cut, [AFTER])
        assert sent(cut) == [*kept, AFTER]
        for left in segments(cut):
            left.unlink()


@pytest.mark.parametrize("late", [False, True])
def test_sectors_that_were_never_written_are_cut(tmp_path: Path, late: bool) -> None:
    """Any of the last group's, in any order; but a whole group behind them was acknowledged after them: that is damage."""
    large: list[Sent] = [(n, n, bytes([n]) * 900, b"") for n in range(1, 10)]
    (path,) = segments(written(tmp_path, large))
    content, ends = path.read_bytes(), ends_of(large)
    begin, end = (ends[1], ends[2]) if late else (ends[2], ends[3])
    places = range(begin // SECTOR_BYTES, -(-end // SECTOR_BYTES))
    assert len(places) > 5
    for place in places:
        first, last = max(begin, place * SECTOR_BYTES), min(end, (place + 1) * SECTOR_BYTES)
        path.write_bytes(content[:first] + bytes(last - first) + content[last:])
        if late:
            with pytest.raises(JournalDamaged) as damage:
                written(tmp_path, [AFTER])
            assert damage.value.index == 4
            continue
        assert sent(tmp_path) == large[:6]
        written(tmp_path, [AFTER])
        assert sent(tmp_path) == [*large[:6], AFTER]


def test_a_flipped_bit_anywhere_halts_with_its_index(tmp_path: Path) -> None:
    """Every byte of the file, the last group's too: it was committed, it must not be cut."""
    (path,) = segments(written(tmp_path))
    content, ends = path.read_bytes(), ends_of()
    owner = [SENT[0][0]] * ends[1]
    for at, (begin, end) in enumerate(pairwise(ends[1:]), 1):
        owner += [SENT[3 * at - 1][0] + 1] * (end - begin)  # the lowest that may be in it: damage does not tell its index
    assert len(content) == len(owner) > 1_000
    for at in range(len(content)):
        path.write_bytes(content[:at] + bytes([content[at] ^ (1 << at % 8)]) + content[at + 1 :])
        with pytest.raises((JournalDamaged, JournalTooNew)) as damage:
            list(read(tmp_path))
        if isinstance(damage.value, JournalDamaged):
            assert damage.value.index == owner[at]
            assert str(damage.value.index) in str(damage.value)
        else:
            assert at < PREFACE.size
        with pytest.raises((JournalDamaged, JournalTooNew)):
            open_journal(tmp_path)
    path.write_bytes(content)
    assert sent(tmp_path) == SENT


def test_a_missing_or_torn_segment_in_the_middle_halts(tmp_path: Path) -> None:
    """Only the last one may end early."""
    paths = segments(written(tmp_path, segment_bytes_max=200))
    content = paths[2].read_bytes()
    paths[2].write_bytes(content[:-1])
    with pytest.raises(JournalDamaged, match="later segment"):
        list(read(tmp_path))
    paths[2].unlink()
    with pytest.raises(JournalDamaged, match="does not follow") as damage:
        list(read(tmp_path))
    assert damage.value.index == int(paths[3].stem)


@pytest.mark.parametrize("call", ["write", "fdatasync"])
def test_a_full_disk_loses_nothing_and_service_resumes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str) -> None:
    """Half a group on the disk is taken back; the journal refuses until it is opened again, then goes on."""
    written(tmp_path)
    journal, really = open_journal(tmp_path), os.write

    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    def half(file: int, content: memoryview) -> int:
        monkeypatch.setattr(os, "write", full)
        return really(file, content[:7])

    monkeypatch.setattr(os, call, half if call == "write" else full)
    journal.append(500, 1, b"refused")
    with pytest.raises(JournalRefused, match="No space left"):
        journal.commit()
    monkeypatch.undo()
    journal.append(501, 1, b"too early")
    with pytest.raises(JournalRefused):
        journal.commit()
    journal.close()
    assert sent(tmp_path) == SENT
    written(tmp_path, [AGAIN])
    assert sent(tmp_path) == [*SENT, AGAIN]


def test_a_tail_follows_a_journal_that_is_being_written(tmp_path: Path) -> None:
    """Group by group over small segments: every record once, in order, each with the chain that its successor builds on."""
    tail, found = Tail(tmp_path, after_index=SENT[4][0]), []
    assert tail.take() == []
    for count in range(0, len(SENT), 3):
        written(tmp_path, SENT[count : count + 3], segment_bytes_max=200)
        if count % 2:
            found += tail.take()
    while records := tail.take():
        found += records
    assert [record[:4] for record in found] == SENT[5:]
    assert found[-1].chain == open_journal(tmp_path).chain
    assert found == list(read(tmp_path, SENT[4][0]))


def test_a_record_larger_than_one_read_comes_back(tmp_path: Path) -> None:
    """Five megabytes, then a small one."""
    large = [(1, 1, bytes(5 << 20), b"x" * 100), (2, 2, b"small", b"")]
    written(tmp_path, large)
    assert sent(tmp_path) == large


def test_a_journal_may_begin_where_another_one_ended(tmp_path: Path) -> None:
    """Same chain, same bytes from there on, also when nothing was written before it is opened again."""
    whole = list(read(written(tmp_path / "whole", segment_bytes_max=200)))
    begin_journal(tmp_path / "rest", whole[8].chain, whole[8].command_index).close()
    assert beginning(tmp_path / "rest") == (whole[8].command_index + 1, whole[8].chain)
    assert list(read(tmp_path / "rest")) == []
    assert list(read(written(tmp_path / "rest", SENT[9:]))) == whole[9:]
    with pytest.raises(OperatorError, match="There is a journal"):
        begin_journal(tmp_path / "rest", START, 0)
    assert beginning(tmp_path / "whole") == (SENT[0][0], START)
    assert beginning(tmp_path / "empty") == (0, START)


def test_a_chain_can_be_checked_without_a_journal(tmp_path: Path) -> None:
    """Group by group, messages included."""
    chain, groups = START, 0
    for link, records in groupby(read(written(tmp_path)), attrgetter("link")):
        assert link.before == chain
        chain = chained(chain, list(records))
        assert chain == link.chain
        groups += 1
    assert groups == 10
