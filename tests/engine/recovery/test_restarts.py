"""An exchange rebuilt from its events has the same state, and gives the same answers from then on."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from engine.core import commands as cm
from engine.core.accounts import Ledger
from engine.core.commands import BUY, SELL
from engine.core.events import encode
from engine.core.exchange import STEP, Exchange
from engine.core.state import CLIENT_IDS_MAX, State
from engine.journal.journal import open_journal
from engine.journal.reader import read
from engine.recovery.replay import replay
from engine.recovery.snapshot import restore, snapshot
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


def heavy(seed: int) -> list[tuple[int, cm.Command]]:
    """Return a life with steps: many orders and holders, mass cancels, a funding and the end of a contract, all under way at once."""
    dice = random.Random(seed)
    made: list[cm.Command] = [cm.CreateStore(""), *(cm.CreateInstrument(cm.Instrument(name), 100) for name in "AB")]
    made += [cm.Deposit(account, 10**9) for account in range(1, 80)]
    for account in range(2, 80):
        made += [cm.PlaceOrder(1, "A", f"a{account}", SELL, 1, 100), cm.PlaceOrder(account, "A", "held", BUY, 1, 100)]
    made += [
        cm.PlaceOrder(dice.randint(2, 6), dice.choice("AB"), f"o{number}", SELL, 1, dice.randint(101, 120))
        for number in range(400)
    ]
    ends: list[cm.Command] = [
        cm.KillSwitch(2, True),
        cm.CancelAll(3),
        cm.CancelAll(4, "B"),
        cm.CancelAll(5, "A"),
        cm.Fund("A", 100),
    ]
    dice.shuffle(ends)
    steps: list[cm.Command] = [cm.Proceed(16)] * 60
    made += [
        *ends,
        cm.Proceed(16),
        cm.CancelAll(4),
        *steps,
        cm.Delist("A", True),
        cm.PlaceOrder(7, "B", "x", BUY, 30, 120),
        *steps,
    ]
    return list(enumerate(made))


@pytest.mark.parametrize("stored", [False, True])
@pytest.mark.parametrize("lives", [*map(commands, range(6)), *map(heavy, range(3))])
def test_after_a_restart_the_journal_goes_on_byte_for_byte(
    tmp_path: Path, lives: list[tuple[int, cm.Command]], stored: bool
) -> None:
    """Eight restarts, the last group lost each time and sent again: the journal equals that of an uninterrupted run.

    Each from all records, or from a snapshot and the records after it.
    """
    is_heavy = isinstance(lives[0][1], cm.CreateStore)
    step, count = 16 if is_heavy else STEP, len(lives)
    whole = Exchange(MessageBuilder, step=step)
    expected = [(i, i, encode(events), whole.message) for i, command in lives if (events := whole.decide(i, i, command))]
    dice, folder = random.Random(count), tmp_path / "journal"
    generation = None
    for stop in [*sorted(dice.sample(range(count // 2, count), 8)), count]:
        state, journal = State(), open_journal(folder, segment_bytes_max=4_000)
        restored = restore(generation) if generation is not None else None
        state = restored.state if restored is not None else state
        replay(state, read(folder, restored.last_index if restored is not None else -1))
        exchange = Exchange(MessageBuilder, state, step)
        if stored and journal.last_index >= 0:
            generation = snapshot(state, journal.last_index, bytes(16), 1)
        for index, command in lives[journal.last_index + 1 : stop]:
            if events := exchange.decide(index, index, command):
                journal.append(index, index, encode(events), exchange.message)
            if index % 7 == 0:
                journal.commit()
        if stop == count:
            journal.commit()
            assert exchange.state.digest() == whole.state.digest()
        journal.close()
    assert [record[:4] for record in read(folder)] == expected
    assert not whole.state.work
    written = b"".join(payload for _, _, payload, _ in expected)
    steps = b"cancels.noted", b"cancels.done", b"funding.begun", b"funding.ended", b"delisting.begun", b"instrument.delisted"
    assert all(name in written for name in steps) == is_heavy


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
