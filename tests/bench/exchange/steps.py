"""How long do the orders of others wait while one command, or one moment, gives the exchange very much to do?

One process, one event loop, a journal with fdatasync a group and a message store, so that every frame is built and journaled
too. An order that rests, and then its cancel, come every 2 ms, on an account and in a contract of their own, each measured from
the moment at which it was due; percentiles are of all of them from the heavy command to the end of its last step. `idle` is the
same with nothing else to do, `p99_ratio` a p99 ÷ that of `idle`. Excluded: making the orders and holders, HTTP, the network. The
folder is TMPDIR's.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from itertools import count
from pathlib import Path

import uvloop

from engine.core import commands as cm
from engine.core.commands import BUY, SELL, PlaceOrder, TimeInForce
from engine.core.state import State
from engine.journal.journal import open_journal
from engine.journal.sequencer import Outcome, Sequencer
from engine.stores.message_builder import MessageBuilder
from service.run import GC_THRESHOLD

EVERY_S = 0.002
ORDERS, HOLDERS, LOTS = 54_000, 66_000, 60_000
MOST_LOTS = 1_000_000  # of one order, as instruments have it unless they say otherwise
SHARE = 1_000  # orders of one account
BATCH = 200
MONEY = 10**12
CROWD, HELD = "CROWD", "HELD"  # contracts: of many orders, of many holders
BIG, PROBE = 1, 2  # accounts: who does it, who is measured
FIRST = 1_000  # number of the first of the many accounts


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--tiny", action="store_true", help="a hundredth of the work, for the tests; its numbers mean nothing")
    parser.add_argument("--only", default="", help="some of the cases, with commas")
    given = parser.parse_args()
    gc.collect()
    gc.freeze()
    gc.set_threshold(*GC_THRESHOLD)  # as every process of ours
    uvloop.run(measure(100 if given.tiny else 1, [name for name in given.only.split(",") if name]))


@dataclass
class Desk:
    """A sequencer with a store, and the numbers of a full or a tiny run."""

    sequencer: Sequencer
    scale: int
    names: count[int] = field(default_factory=lambda: count(1))

    def of(self, number: int) -> int:
        """Return a number of the full workload at this run's size."""
        return max(2, number // self.scale)

    async def send(self, *commands: cm.Command) -> None:
        """Carry out many commands, and all that they leave."""
        for at in range(0, len(commands), BATCH):
            await asyncio.gather(*(self.sequencer.submit(one) for one in commands[at : at + BATCH]))
        await self.done()

    async def done(self) -> None:
        """Wait until nothing is left to be done."""
        state = self.sequencer.state
        while state.work or state.due(time.time_ns()):
            await self.sequencer.submit(cm.Tick())

    def order(self, account: int, symbol: str, side: int, lots: int, price: int | None, **terms: object) -> PlaceOrder:
        return PlaceOrder(account, symbol, f"o{next(self.names)}", side, lots, price, **terms)  # type: ignore[arg-type]

    async def crowd(self, total: int, lots: int = 1, **terms: object) -> None:
        """Let accounts of 1,000 orders each offer in one contract."""
        number = self.of(total)
        share = min(SHARE, number)
        offers = [self.order(FIRST + n // share, CROWD, SELL, lots, 10_001 + n % 997, **terms) for n in range(number)]
        await self.send(*offers)
        assert len(self.sequencer.state.orders) >= number


# What is done: each returns the commands that are measured, after it has prepared for them.


async def expiry(desk: Desk) -> list[cm.Command]:
    """54,000 orders reach their end in the same nanosecond."""
    ends_ns = time.time_ns() + 20 * 10**9 // desk.scale
    await desk.crowd(ORDERS, time_in_force=TimeInForce.GTD, expire_ns=ends_ns)
    await asyncio.sleep((ends_ns - time.time_ns()) / 1e9)
    return []


async def cancel_all(desk: Desk) -> list[cm.Command]:
    """50 accounts of 1,000 orders each cancel all of them at the same moment."""
    await desk.crowd(50_000)
    return [cm.CancelAll(account) for account in owners(desk)]


async def kill_switch(desk: Desk) -> list[cm.Command]:
    """The same with their kill switches."""
    await desk.crowd(50_000)
    return [cm.KillSwitch(account, True) for account in owners(desk)]


async def iceberg(desk: Desk) -> list[cm.Command]:
    """An order of 60,000 lots meets an iceberg that shows a hundredth, beside others at its price."""
    lots = desk.of(LOTS)
    offers = [desk.order(account, CROWD, SELL, lots, 10_001, display_lots=max(1, lots // 100)) for account in (FIRST, FIRST + 1)]
    await desk.send(*offers)
    return [desk.order(BIG, CROWD, BUY, lots, 10_001)]


async def sweep(desk: Desk) -> list[cm.Command]:
    """An order of 1,000,000 lots takes 40,000 others, 25 lots each."""
    await desk.crowd(40_000, 25)
    return [desk.order(BIG, CROWD, BUY, MOST_LOTS // desk.scale, 10_998)]


async def funding(desk: Desk) -> list[cm.Command]:
    """66,000 holders pay at once."""
    return [cm.Fund(HELD, 100)]


async def mark(desk: Desk) -> list[cm.Command]:
    """The margin of 66,000 holders is looked at."""
    return [cm.SetMark(HELD, 10_001)]


async def deleverage(desk: Desk) -> list[cm.Command]:
    """Who is on the other side of all 66,000 is closed, and there is no insurance: each of them takes a part."""
    account, units = desk.sequencer.state.ledger.accounts[BIG], desk.of(HOLDERS) * 1_100
    await desk.send(cm.Withdraw(BIG, account.balance_units - units))
    return [cm.SetMark(HELD, 10_700)]


async def delisting(desk: Desk) -> list[cm.Command]:
    """A contract of 66,000 holders and 50,000 orders is closed."""
    await hold(desk)
    number = desk.of(50_000)
    await desk.send(*(desk.order(FIRST + n // SHARE, HELD, BUY, 1, 9_000 + n % 997) for n in range(number)))
    return [cm.Delist(HELD, settle=True)]


async def hold(desk: Desk) -> None:
    """Let 66,000 accounts buy one lot each of account 1."""
    accounts = range(FIRST, FIRST + desk.of(HOLDERS))
    await desk.send(cm.Deposit(BIG, MONEY), *(cm.Deposit(account, MONEY) for account in accounts))
    await desk.send(cm.SetMark(HELD, 10_000), desk.order(BIG, HELD, SELL, len(accounts), 10_000))
    await desk.send(*(desk.order(account, HELD, BUY, 1, 10_000) for account in accounts))
    assert len(desk.sequencer.state.ledger.contracts[HELD].holders) > len(accounts)


CASES = (expiry, cancel_all, kill_switch, iceberg, sweep, funding, mark, deleverage, delisting)


def owners(desk: Desk) -> list[int]:
    return [number for number, account in desk.sequencer.state.ledger.accounts.items() if len(account.orders) > 1]


async def measure(scale: int, only: list[str]) -> None:
    """Prepare and measure one case after the other in one exchange."""
    async with exchange() as sequencer:
        desk = Desk(sequencer, scale)
        await desk.send(
            cm.CreateStore("bench"), *(cm.CreateInstrument(cm.Instrument(one), 10_000) for one in (CROWD, HELD, "PROBE")),
            cm.Deposit(PROBE, MONEY),
        )  # fmt: skip
        await hold(desk)
        idle = await probe(desk, [], seconds=4.0 / scale)
        report("idle", idle, p99_ms(idle), "nothing else to do", scale)
        for case in CASES:
            if only and case.__name__ not in only:
                continue
            commands = await case(desk)
            waits = await probe(desk, commands)
            report(case.__name__, waits, p99_ms(idle), " ".join((case.__doc__ or "").split()), scale)
            state = sequencer.state
            await desk.send(*(cm.KillSwitch(number, False) for number, one in state.ledger.accounts.items() if one.killed))
            await desk.send(*(cm.CancelAll(number) for number, one in state.ledger.accounts.items() if one.orders))


@asynccontextmanager
async def exchange() -> AsyncIterator[Sequencer]:
    """Make a sequencer with a journal of its own."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "journal"
        sequencer = Sequencer(State(), open_journal(path), lambda: (State(), open_journal(path)), MessageBuilder)
        yield sequencer
        await sequencer.close()


async def probe(desk: Desk, commands: list[cm.Command], seconds: float = 0.0) -> list[float]:
    """Send the commands, and an order every 2 ms until all is done and for `seconds`; return how long each answer took."""
    waits: list[float] = []
    refused: list[object] = []
    left = 0

    def answered(sent_s: float, outcome: asyncio.Future[Outcome]) -> None:
        nonlocal left
        left -= 1
        refused.extend(event for event in outcome.result().events if "Rejected" in type(event).__name__)
        if sent_s:
            waits.append(time.perf_counter() - sent_s)

    def send(command: cm.Command, sent_s: float = 0.0) -> None:
        nonlocal left
        left += 1
        desk.sequencer.submit(command).add_done_callback(partial(answered, sent_s))

    began_s = due_s = time.perf_counter()
    for command in commands:
        send(command)
    state, name = desk.sequencer.state, ""
    while left or state.work or state.due(time.time_ns()) or due_s < began_s + seconds:
        while due_s <= time.perf_counter():  # also those that were due while the loop was busy
            one = desk.order(PROBE, "PROBE", BUY, 1, 9_500) if not name else cm.CancelOrder(PROBE, name)
            name = one.cl_ord_id if isinstance(one, PlaceOrder) else ""
            send(one, due_s)
            due_s += EVERY_S
        await asyncio.sleep(max(0.0, due_s - time.perf_counter()))
    assert not refused, f"the exchange refused {refused[0]}"
    return waits


def p99_ms(waits: list[float]) -> float:
    return round(1_000 * sorted(waits)[int(len(waits) * 0.99)], 2)


def report(name: str, waits: list[float], idle_ms: float, workload: str, scale: int) -> None:
    """Print one JSON line."""
    line = {"bench": "steps", "figure": f"{name}_p99_ms", "value": p99_ms(waits), "unit": "ms", "workload": workload}
    more = {"p99_ratio": round(p99_ms(waits) / idle_ms, 1), "max_ms": round(1_000 * max(waits), 1), "orders": len(waits)}
    took = {"seconds": round(len(waits) * EVERY_S, 2), "size": f"1/{scale}"}
    print(json.dumps({**line, **more, **took, "excludes": "making orders and holders, HTTP, network"}), flush=True)


if __name__ == "__main__":
    main()
