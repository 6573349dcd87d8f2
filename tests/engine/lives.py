"""Makes random lives of the exchange from a seed: every kind of command on three badly named markets, journaled or not."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import msgspec

from engine.core import commands as cm
from engine.core.commands import BUY, SELL
from engine.core.events import decode, encode
from engine.core.exchange import Exchange
from engine.core.state import State
from engine.journal.format import Record
from engine.journal.journal import Journal, open_journal, probe
from engine.journal.reader import read
from engine.stores.message_builder import MessageBuilder
from tests.engine.core.linked_orders import linked_order
from tests.engine.core.test_accounts import random_command

# Listed neither by name nor by age of anything else: the order in which markets are walked must survive, too.
MARKETS = ("B", "exchange", "a/b.c~", "A")
START_NS = 1_700_000_000_000_000_000
STEP_NS = 40_000_000_000  # 2,000 commands are a day: Day orders expire
Life = list[tuple[int, int, cm.Command]]


def life(seed: int, count: int = 600) -> Life:
    """Return (index, time in ns, command): four contracts, most lives with stores, some money, then anything."""
    dice = random.Random(seed)
    made: list[cm.Command] = [
        cm.CreateInstrument(cm.Instrument(symbol, taker_fee_ppm=600, maker_fee_ppm=-200), 100) for symbol in MARKETS
    ]
    if seed % 3:
        made += [cm.CreateStore("zeta"), cm.CreateStore("")]
    made += [cm.Deposit(account, 4_000) for account in range(7)]
    names: list[tuple[int, str]] = []
    for index in range(len(made) + 1, count + 1):
        command = _command(dice, index, names)
        if isinstance(command, cm.PlaceOrder):
            names = [*names[-25:], (command.account, command.cl_ord_id)]
        made.append(command)
    return [(index, START_NS + index * STEP_NS, command) for index, command in enumerate(made, 1)]


def _command(dice: random.Random, index: int, names: list[tuple[int, str]]) -> cm.Command:
    kind = dice.random()
    account, name = dice.choice(names) if names else (1, "none")
    size, price = dice.randint(1, 60), max(1, 100 + round(dice.gauss(0, 4)))
    if kind < 0.05:
        return cm.CancelOrder(account, name)
    if kind < 0.14:
        return cm.AmendOrder(account, name, *dice.choice(((size, None, None), (None, price, None), (None, None, price))))
    if kind < 0.20:
        return linked_order(dice, dice.randint(1, 6), dice.choice(MARKETS), str(index))
    if kind < 0.32:
        return _resting(dice, index, size, price)
    if kind < 0.38:
        return dice.choice(_rare(dice, account, index))
    match command := random_command(dice, index):
        case cm.PlaceOrder() | cm.Fund():
            return msgspec.structs.replace(command, symbol=dice.choice(MARKETS))
        case cm.SetMark():
            return cm.SetMark(dice.choice(MARKETS), max(1, 100 + round(dice.gauss(0, 6))))
        case cm.Deposit() | cm.Withdraw():
            return cm.Deposit(command.account, 10 * command.amount_units)
        case cm.CancelAllAfter() | cm.CancelAll() if dice.random() < 0.8:
            return cm.Resume("manual")
    return command


def _resting(dice: random.Random, index: int, size: int, price: int) -> cm.PlaceOrder:
    """Return an iceberg, a post-only order, an order with an end, or a stop far away."""
    ends = START_NS + (index + dice.randint(1, 80)) * STEP_NS
    life, expire = dice.choice(((cm.TimeInForce.GTC, 0), (cm.TimeInForce.DAY, 0), (cm.TimeInForce.GTD, ends)))
    side, stop = dice.choice((BUY, SELL)), dice.choice((None, None, max(1, price + dice.choice((-9, 9)))))
    price += -5 if side == BUY else 5
    return cm.PlaceOrder(
        dice.randint(1, 6), dice.choice(MARKETS), str(index), side, size, price, stop, life,
        post_only=stop is None and dice.random() < 0.3, display_lots=dice.choice((0, dice.randint(1, size))), expire_ns=expire,
    )  # fmt: skip


def _rare(dice: random.Random, account: int, index: int) -> tuple[cm.Command, ...]:
    return (
        cm.KillSwitch(account, dice.random() < 0.2),
        cm.KillSwitch(dice.randint(1, 6), False),
        cm.KillSwitch(dice.randint(1, 6), False),
        cm.CancelAll(account),
        cm.Delist("a/b.c~", dice.random() < 0.3),
        cm.CancelAllAfter(account, dice.randint(0, 60) * STEP_NS),
        cm.Suspend("store:zeta"),
        cm.Resume("store:zeta"),
        cm.Resume("store:zeta"),
        cm.CreateStore("zeta"),
        cm.CreateStore("late"),
        cm.DeleteStore("late"),
        cm.PurgeStore("zeta", index - 1 - dice.randint(0, 20)),
        cm.ConfigureStore("", dice.randint(1, 10**7)),
        cm.CheckLiveness(f"c{index}", "oms"),
        cm.Tick(),
        cm.Deposit(account, 10**5),
    )


def answers(exchange: Exchange, commands: Life) -> Iterator[tuple[int, int, bytes, bytes]]:
    """Yield what the journal would get: index, time, events, message; nothing for commands without events."""
    for index, time_ns, command in commands:
        if events := exchange.decide(index, time_ns, command):
            yield index, time_ns, encode(events), exchange.message


def journaled(folder: Path, commands: Life, exchange: Exchange | None = None, segment_bytes_max: int = 20_000) -> Exchange:
    """Let an exchange live and write what it does behind what the folder has; return it."""
    exchange = exchange or Exchange(MessageBuilder)
    journal = open_journal(folder, segment_bytes_max)
    for number, answer in enumerate(answers(exchange, commands)):
        journal.append(*answer)
        if number % 7 == 0:
            journal.commit()
    journal.commit()
    journal.close()
    return exchange


def records(folder: Path) -> list[Record]:
    """Return all records of a journal."""
    return list(read(folder))


def rebuilt(folder: Path, probing: bool = True) -> tuple[State, Journal]:
    """Recover the plainest way, every record from the first one; return the state and the journal, open."""
    if probing:
        probe(folder)
    journal, state = open_journal(folder), State()
    for record in read(folder):
        for event in decode(record.payload):
            state.apply(event)
        state.message_index = record.command_index if record.message else state.message_index
    return state, journal
