"""Journals that earlier versions wrote are read, and gone on with, as they are; one of a later version is refused by its number."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from engine.core import commands as cm
from engine.core import events as ev
from engine.core.commands import BUY, Leg, More, PlaceOrder
from engine.core.exchange import Exchange
from engine.journal.journal import open_journal
from engine.recovery.replay import RecordUnknown, recover
from engine.recovery.snapshot import restore, snapshot
from engine.recovery.snapshot_files import FileSnapshotStore
from engine.stores.message_builder import MessageBuilder
from tests.engine.lives import START_NS, journaled, rebuilt, records

FILES = Path(__file__).parent


@pytest.fixture(params=["version1", "version2"])
def version(request: pytest.FixtureRequest) -> str:
    """1: 130 commands of all kinds, open orders. 2: 150, linked orders and trails; it ends between the steps of a funding."""
    return str(request.param)


@pytest.fixture
def folder(version: str, tmp_path: Path) -> Path:
    """A copy of an old journal."""
    return Path(shutil.copytree(FILES / version / "journal", tmp_path / "journal"))


def test_an_old_journal_gives_the_state_that_its_version_had(folder: Path, version: str) -> None:
    """Digest for digest: with no snapshot, and through a snapshot of today."""
    recovered = recover(folder, folder / "none")
    assert (bool(recovered.state.work), recovered.state.version) == (version == "version2", int(version[-1]))
    digest = (FILES / version / "digest.txt").read_text().strip()
    assert recovered.state.digest() == digest
    assert recovered.state.orders
    made = snapshot(recovered.state, recovered.last_index, recovered.chain, START_NS)
    assert restore(made).state.digest() == digest


def test_an_old_journal_goes_on(folder: Path) -> None:
    """The first new record says the version, once; what follows may be what the old version did not know."""
    state, journal = rebuilt(folder)
    journal.close()
    index, count = records(folder)[-1].command_index + 1, len(records(folder))
    exchange = Exchange(MessageBuilder, state)
    bracket = PlaceOrder(9, "A", "new", BUY, 1, 90, more=More(take_profit=Leg("profit", price_ticks=105)))
    commands: list[cm.Command] = [cm.ResumeAll(), cm.Deposit(9, 10**6), bracket]
    journaled(folder, [(index + n, START_NS * 2, command) for n, command in enumerate(commands)], exchange)
    written = [event for record in records(folder)[count:] for event in ev.decode(record.payload)]
    assert [event for event in written if isinstance(event, ev.SchemaSet)] == written[:1] == [ev.SchemaSet(ev.VERSION)]
    store = FileSnapshotStore(folder / "snapshots")
    again = recover(folder, store.folder)
    assert again.state.digest() == exchange.state.digest()
    assert any(order.held for order in again.state.orders.values())
    store.write_generation(snapshot(again.state, again.last_index, again.chain, START_NS))
    assert recover(folder, store.folder).state.digest() == exchange.state.digest()


def test_a_later_version_is_named(folder: Path) -> None:
    """One line says from which index on, and what to start; nothing is changed."""
    before = records(folder)
    journal = open_journal(folder)
    index = before[-1].command_index + 1
    journal.append(index, START_NS * 2, ev.encode([ev.SchemaSet(ev.VERSION + 1)]), b"")
    journal.commit()
    journal.close()
    with pytest.raises(RecordUnknown, match=f"index {index} .* version {ev.VERSION + 1}") as refused:
        recover(folder, folder / "none")
    assert refused.value.exit_code == 3
    assert records(folder)[:-1] == before
