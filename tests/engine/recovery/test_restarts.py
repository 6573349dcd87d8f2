"""An exchange rebuilt from its events has the same state, and gives the same answers from then on."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from engine.core import commands as cm
from engine.core.accounts import Ledger
from engine.core.events import decode, encode
from engine.core.exchange import Exchange
from engine.core.state import CLIENT_IDS_MAX, State
from engine.journal.journal import open_journal
from engine.journal.reader import read
from engine.stores.message_builder import MessageBuilder
from tests.engine.core.test_accounts import random_command
from tests.engine.core.test_exchange import GOOD, Desk

COUNT = 600


def commands(seed: int) -> list[tuple[int, cm.Command]]:
    """Return a random life: two contracts, then anything."""
    dice = random.Random(seed)
    listed: list[tuple[int, cm.Command]] = [
        (index, cm.CreateInstrument(cm.Instrument("AB"[index], taker_fee_ppm=600, maker_fee_ppm=-200), 100)) for index in (0, 1)
    ]
    return listed + [(index, random_command(dice, index)) for index in range(2, COUNT)]


@pytest.mark.parametrize("seed", range(6))
def test_after_a_restart_the_journal_goes_on_byte_for_byte(tmp_path: Path, seed: int) -> None:
    """Eight restarts, the last group lost each time and sent again: the journal equals that of an uninterrupted run."""
    whole, lives = Exchange(MessageBuilder), commands(seed)
    expected = [(i, i, encode(events)) for i, command in lives if (events := whole.decide(i, i, command))]
    dice, folder = random.Random(seed), tmp_path / "journal"
    for stop in [*sorted(dice.sample(range(COUNT), 8)), COUNT]:
        state, journal = State(), open_journal(folder, segment_bytes_max=4_000)
        for record in read(folder):
            for event in decode(record.payload):
                state.apply(event)
        exchange = Exchange(MessageBuilder, state)
        for index, command in lives[journal.last_index + 1 : stop]:
            if events := exchange.decide(index, index, command):
                journal.append(index, index, encode(events))
            if index % 7 == 0:
                journal.commit()
        if stop == COUNT:
            journal.commit()
            assert exchange.state.digest() == whole.state.digest()
        journal.close()
    assert [record[:3] for record in read(folder)] == expected


def test_the_oldest_closed_client_ids_are_forgotten_first() -> None:
    """An open order's id is never free, however old."""
    desk = Desk()
    desk.do(GOOD)
    for number in range(CLIENT_IDS_MAX):
        desk.index += 1
        desk.exchange.decide(desk.index, 0, cm.PlaceOrder(2, "XPERP", f"a{number}", 1, 1, 200, None, cm.TimeInForce.IOC))
    ids = desk.exchange.state.ledger.accounts[2].client_ids
    assert len(ids) == CLIENT_IDS_MAX
    desk.exchange.decide(desk.index + 1, 0, cm.PlaceOrder(2, "XPERP", "last", 1, 1, 200))
    assert len(ids) == CLIENT_IDS_MAX
    assert "a0" not in ids
    assert {"a1", "last"} <= ids.keys()


def test_money_that_appears_from_nowhere_ends_the_process() -> None:
    """The running sum is an assertion, not a report."""
    ledger = Ledger()
    ledger.deposit(1, 100)
    ledger.check()
    ledger._credit(ledger.accounts[1], 1)
    with pytest.raises(AssertionError, match="money is 101"):
        ledger.check()
