"""`promote` begins a term in the journal of a standby that does not run, and refuses what is none, in one line."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import pytest

from engine.core import commands as cm
from engine.core.events import TermBegan, decode
from engine.journal.journal import open_journal
from engine.journal.reader import read
from engine.journal.sequencer import TERM_GAP, Sequencer
from engine.recovery.replay import recover
from engine.recovery.snapshot import restore, snapshot
from engine.standby import command
from engine.standby import role as roles
from engine.standby.role import Role
from engine.stores.message_builder import MessageBuilder
from service.clock import ManualClock
from service.errors import OperatorError
from tests.engine.lives import rebuilt

GIVEN = argparse.Namespace(replication="")


async def stopped(folder: Path) -> int:
    """Leave a standby's folder with some commands; return its last index."""
    journal = folder / "journal"
    journal.mkdir(parents=True)
    sequencer = Sequencer(*rebuilt(journal), lambda: rebuilt(journal), MessageBuilder, ManualClock())
    for made in (cm.CreateInstrument(cm.Instrument("X"), 100), cm.CreateStore(""), cm.Deposit(1, 10**9)):
        await sequencer.submit(made)
    await sequencer.close()
    roles.write(folder, Role("standby", 4, "http://127.0.0.1:1"))
    return sequencer.committed_index


async def test_a_stopped_standby_is_promoted_from_its_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Later than every term it knew of, behind a gap of indices; the folder leads from then on, its snapshots know the term."""
    last = await stopped(tmp_path)
    command.run(tmp_path, GIVEN, 10**18)
    said = json.loads(capsys.readouterr().out)
    assert (said["term"], said["index"]) == (5, last + TERM_GAP)
    assert roles.read(tmp_path) == Role("leader", 5)
    *_, newest = read(tmp_path / "journal")
    assert decode(newest.payload)[1:] == [TermBegan(5)]
    recovered = recover(tmp_path / "journal", tmp_path / "snapshots")
    assert recovered.state.term == 5
    files = snapshot(recovered.state, recovered.last_index, recovered.chain, 10**18, recovered.time_ns)
    assert restore(files).state.digest() == recovered.state.digest()
    assert restore(files).state.term == 5
    open_journal(tmp_path / "journal").close()
    with pytest.raises(OperatorError, match="is the leader of term 5"):
        command.run(tmp_path, GIVEN, 10**18)


def test_what_is_no_standby_is_not_promoted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An engine that was always alone, a standby that lacks a part, an engine that does not answer."""
    with pytest.raises(OperatorError, match="is no standby"):
        command.run(tmp_path, GIVEN, 10**18)
    roles.write(tmp_path, Role("standby", 0, "http://127.0.0.1:1", filling=True))
    with pytest.raises(OperatorError, match="does not have all"):
        command.run(tmp_path, GIVEN, 10**18)
    roles.write(tmp_path, Role("standby", 0, "http://127.0.0.1:1"))
    monkeypatch.setattr(command, "ANSWER_S", 0.1)
    held = roles.lock(tmp_path)
    with pytest.raises(OperatorError, match="has not answered"):
        command.run(tmp_path, GIVEN, 10**18)
    assert roles.read_promotion(tmp_path) is None, "what nobody answered is not found by a later start"
    roles.os.close(held)
