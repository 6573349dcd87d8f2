"""The journal's tools as operators call them: exit codes, JSON lines, any index, also while somebody writes."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from engine.core.events import VERSION
from engine.core.exchange import Exchange
from engine.journal.journal import open_journal
from engine.journal.reader import segments
from engine.recovery.inspection import state_at
from engine.recovery.snapshot import snapshot
from engine.recovery.snapshot_files import FileSnapshotStore
from engine.stores.message_builder import MessageBuilder
from service.errors import OperatorError
from tests.engine.lives import answers, journaled, life, rebuilt, records
from tests.stack import ROOT

COUNT = 250
LIFE = life(4, COUNT)


def run(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "engine", "journal", "--folder", str(folder), *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=180, check=False)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """An engine's folder: a journal in segments and a snapshot in the middle."""
    exchange = Exchange(MessageBuilder)
    journaled(tmp_path / "journal", LIFE[:120], exchange)
    record = records(tmp_path / "journal")[-1]
    made = snapshot(exchange.state, record.command_index, record.chain, record.time_ns, record.time_ns)
    FileSnapshotStore(tmp_path / "snapshots").write_generation(made)
    journaled(tmp_path / "journal", LIFE[120:], exchange)
    return tmp_path


def test_a_journal_is_verified_while_the_engine_has_it_open(folder: Path) -> None:
    """Counts, both ends, the version of the events, the snapshots that were compared; exit code 0."""
    journal = open_journal(folder / "journal")
    done = run(folder, "verify")
    journal.close()
    found: dict[str, Any] = json.loads(done.stdout)
    known = records(folder / "journal")
    assert done.returncode == 0, done.stderr
    assert (found["records"], found["last"]["index"]) == (len(known), known[-1].command_index)
    assert (found["snapshotsCompared"], found["segments"]) == (1, len(segments(folder / "journal")))
    assert found["eventsVersion"] == VERSION


def test_damage_ends_with_its_index(folder: Path) -> None:
    """One line, exit code 3, for each of the tools that comes across it."""
    path = segments(folder / "journal")[0]
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    for arguments in (("verify",), ("dump",), ("state", "--at", "119")):
        done = run(folder, *arguments)
        if arguments[0] != "state":  # that begins at the snapshot, behind the damage
            assert (done.returncode, "damaged at index" in done.stderr) == (3, True), done.stderr
            assert "Traceback" not in done.stderr


def test_records_are_printed_one_a_line(folder: Path) -> None:
    """A range of them, with events by name and the message as it was sent."""
    known = records(folder / "journal")
    first, last = known[20].command_index, known[40].command_index
    done = run(folder, "dump", "--from", str(first), "--to", str(last))
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert [line["index"] for line in lines] == [record.command_index for record in known[20:41]]
    for line, record in zip(lines, known[20:41], strict=True):
        assert (line["chain"], line["timeNs"]) == (record.chain.hex(), record.time_ns)
        assert line["message"] == (json.loads(record.message) if record.message else None)
        assert all("type" in event for event in line["events"])


def test_the_state_after_any_command_is_what_the_exchange_had(folder: Path) -> None:
    """Before the snapshot, at it, after it, and between two records."""
    exchange, digests = Exchange(MessageBuilder), {}
    for command in LIFE:
        list(answers(exchange, [command]))
        digests[command[0]] = exchange.state.digest()
    last = records(folder / "journal")[-1].command_index
    for index in (1, 60, 119, 120, 121, 200, last):
        found = json.loads(state_at(folder / "journal", folder / "snapshots", index))
        assert found["digest"] == found["exchange"]["stateDigest"] == digests[index]
    done = run(folder, "state", "--at", "60")
    assert json.loads(done.stdout)["digest"] == digests[60]


def test_what_cannot_be_shown_says_why(folder: Path, tmp_path: Path) -> None:
    """Beyond the end, no journal, no number, segments that are archived."""
    done = run(folder, "state", "--at", "99999")
    assert (done.returncode, "ends at index" in done.stderr) == (3, True)
    done = run(tmp_path / "nowhere", "verify")
    assert (done.returncode, "There is no journal" in done.stderr) == (3, True)
    assert run(folder, "state", "--at", "-1").returncode == 2
    segments(folder / "journal")[0].unlink()
    with pytest.raises(OperatorError, match="archived segments"):
        state_at(folder / "journal", folder / "snapshots", 5)


def test_the_tools_change_nothing(folder: Path) -> None:
    """Neither files nor the engine that goes on afterwards."""
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    for arguments in (("verify",), ("dump", "--to", "3"), ("state", "--at", "5")):
        assert run(folder, *arguments).returncode == 0
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before
    state, journal = rebuilt(folder / "journal")
    journal.close()
    assert state.orders
