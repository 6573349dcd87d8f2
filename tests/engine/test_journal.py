"""Records in, the same records back: over restarts, crashes at every byte, damage at every byte and full disks."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from engine.journal import HEADER, PREFACE, JournalDamaged, JournalRefused, Record, open_journal, read, segments

RECORDS = [Record(3 * n + 2, 1_000 + n, bytes([n % 251]) * (n % 40)) for n in range(30)]


def written(folder: Path, records: list[Record] = RECORDS, segment_bytes_max: int = 1 << 20) -> Path:
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
    assert list(read(tmp_path)) == RECORDS
    assert list(read(tmp_path, after_index=32)) == [record for record in RECORDS if record.command_index > 32]
    assert open_journal(tmp_path).last_index == RECORDS[-1].command_index


def test_an_empty_folder_is_an_empty_journal(tmp_path: Path) -> None:
    """It is made when it is not there."""
    assert open_journal(tmp_path / "new").last_index == -1
    assert list(read(tmp_path / "new")) == []


def test_a_journal_goes_on_over_restarts_and_segments(tmp_path: Path) -> None:
    """Small segments, a restart after each record."""
    for record in RECORDS:
        written(tmp_path, [record], segment_bytes_max=200)
    assert len(segments(tmp_path)) > 5
    assert list(read(tmp_path)) == RECORDS
    assert list(read(tmp_path, after_index=50)) == [record for record in RECORDS if record.command_index > 50]


def test_a_crash_at_any_byte_loses_nothing_that_was_complete(tmp_path: Path) -> None:
    """More than 1,000 lengths of the last segment: what is whole is read, the rest is cut, writing goes on behind it."""
    whole = written(tmp_path / "whole")
    (source,) = segments(whole)
    content, ends = source.read_bytes(), [PREFACE.size]
    for record in RECORDS:
        ends.append(ends[-1] + HEADER.size + len(record.payload))
    assert len(content) == ends[-1] > 1_000
    cut = tmp_path / "cut"
    cut.mkdir()
    path = cut / source.name
    for length in range(len(content)):
        path.write_bytes(content[:length] + bytes(length % 3 * 50))  # some file systems leave zeros
        kept = RECORDS[: max(0, sum(end <= length for end in ends) - 1)]
        if length % 3 and length not in (0, *ends):
            continue  # a record that ends in zeros is damage unless all of it is zeros
        assert list(read(cut)) == kept
        written(cut, [Record(1_000, 1, b"after")])
        assert list(read(cut)) == [*kept, Record(1_000, 1, b"after")]
        for left in segments(cut):
            left.unlink()


def test_a_flipped_bit_anywhere_halts_with_its_index(tmp_path: Path) -> None:
    """Every byte of the file, the last record's too: it was committed, it must not be cut."""
    (path,) = segments(written(tmp_path))
    content, offset, owner = path.read_bytes(), PREFACE.size, [RECORDS[0].command_index] * PREFACE.size
    for before, record in zip([None, *RECORDS], RECORDS, strict=False):
        lowest = before.command_index + 1 if before else record.command_index  # a damaged header does not tell its index
        owner += [lowest] * HEADER.size + [record.command_index] * len(record.payload)
        offset += HEADER.size + len(record.payload)
    assert len(content) == offset == len(owner) > 1_000
    for at in range(len(content)):
        path.write_bytes(content[:at] + bytes([content[at] ^ (1 << at % 8)]) + content[at + 1 :])
        with pytest.raises(JournalDamaged) as damage:
            list(read(tmp_path))
        assert damage.value.index == owner[at]
        assert str(damage.value.index) in str(damage.value)
        with pytest.raises(JournalDamaged):
            open_journal(tmp_path)
    path.write_bytes(content)
    assert list(read(tmp_path)) == RECORDS


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
    assert list(read(tmp_path)) == RECORDS
    written(tmp_path, [Record(500, 2, b"again")])
    assert list(read(tmp_path)) == [*RECORDS, Record(500, 2, b"again")]
