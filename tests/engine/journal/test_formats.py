"""Journals of other versions: that of format 2 (`format_2/`, written by the version before) is read and continued, a newer one
refused."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from engine.core.exchange import Exchange
from engine.journal.format import FORMAT, PREFACE, format_of
from engine.journal.journal import open_journal
from engine.journal.reader import JournalTooNew, Tail, first_bytes, read, segments
from engine.recovery.replay import recover
from engine.stores.message_builder import MessageBuilder
from tests.engine.lives import journaled, life

FORMAT_2 = Path(__file__).parent / "format_2"  # `journaled(folder, life(4, 80), segment_bytes_max=15_000)` of that version
DIGEST_2 = "29d26607437b9f9cdd9af1dd03f71c7bae3ca2c93e0b0c9190ceb42418c64b2c"
CHAIN_2 = "0330eea3639e493235e0e66e6f51d597"


@pytest.fixture
def old(tmp_path: Path) -> Path:
    """A copy of the journal of format 2."""
    shutil.copytree(FORMAT_2, tmp_path / "old")
    return tmp_path / "old"


def test_a_journal_of_the_format_before_is_read_and_continued(old: Path, tmp_path: Path) -> None:
    """The same state, the same chain; what comes goes into segments of this format, for a tail that follows as well."""
    found = recover(old, tmp_path / "none")
    assert (found.state.digest(), found.chain.hex(), found.last_index) == (DIGEST_2, CHAIN_2, 80)
    before, tail = [path.read_bytes() for path in segments(old)], Tail(old, 70)
    followed = tail.take()
    exchange = journaled(old, life(4, 200)[80:], Exchange(MessageBuilder, found.state))
    while records := tail.take():
        followed += records
    assert followed == [record for record in read(old) if record.command_index > 70]
    paths = segments(old)
    assert [path.read_bytes() for path in paths[:3]] == before
    assert [format_of(first_bytes(path)[:8]) for path in paths] == [2, 2, 2] + [FORMAT] * (len(paths) - 3)
    assert len(paths) > 3
    again = recover(old, tmp_path / "none")
    assert again.state.digest() == exchange.state.digest()
    assert {record.link.last_index - record.link.first_index for record in read(old)} > {0}, "groups, of one record and of more"


@pytest.mark.parametrize("zeros", [0, 30])
def test_a_torn_end_of_the_format_before_is_cut(old: Path, zeros: int) -> None:
    """Its last record, in part or never written, is gone; the journal goes on behind the one before."""
    known, path = list(read(old)), segments(old)[-1]
    content = path.read_bytes()
    path.write_bytes(content[: len(content) - 40 - zeros] + bytes(zeros))
    journal = open_journal(old)
    assert journal.last_index == known[-2].command_index
    journal.append(1_000, 1, b"after")
    journal.commit()
    assert [record[:4] for record in read(old)][-2:] == [known[-2][:4], (1_000, 1, b"after", b"")]


def test_an_empty_segment_of_the_format_before_takes_no_records(old: Path) -> None:
    """It may have the name of the next one, which replaces it."""
    path = segments(old)[-1]
    path.write_bytes(path.read_bytes()[: PREFACE.size])
    known = list(read(old))
    journal = open_journal(old)
    journal.append(int(path.stem), 1, b"after")
    journal.commit()
    assert list(read(old))[:-1] == known
    assert format_of(first_bytes(path)[:8]) == FORMAT


def test_a_journal_of_a_newer_version_is_refused_in_one_line(tmp_path: Path) -> None:
    """And left as it is."""
    journaled(tmp_path / "new", life(4, 20))
    (path,) = segments(tmp_path / "new")
    content = path.read_bytes().replace(b"TLJRNL03", b"TLJRNL04")
    path.write_bytes(content)
    for use in (open_journal, lambda folder: list(read(folder)), lambda folder: recover(folder, tmp_path)):
        with pytest.raises(JournalTooNew, match=r"has format 4, this version reads up to 3\. Start the version that wrote it"):
            use(tmp_path / "new")
    assert path.read_bytes() == content
