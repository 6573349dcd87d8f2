"""Makes the order flow of a plausible market from a seed: an endless, repeatable stream of commands for benchmarks and tests.

The same seed gives the same commands on every machine. The stream follows its own book, so that nearly every cancel and amend
finds its order: what the exchange refuses is a fault of one of the two.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from random import Random

from engine.bots.market import FAIR_TICKS, LISTED, Walk
from engine.core.book import TRADE, Book
from engine.core.commands import (
    BUY,
    SELL,
    AmendOrder,
    CancelOrder,
    Command,
    CreateInstrument,
    Deposit,
    Fund,
    Instrument,
    PlaceOrder,
    SetMark,
    TimeInForce,
)

ACCOUNTS = 100
MAKERS = 80  # accounts 1 to 80 quote, 81 to 100 take: nobody meets itself
MONEY_UNITS = 10**14  # of each account: 100 million, so that margin never decides
OPEN_MIN, OPEN_MAX = 300, 1_000  # open orders of a symbol, after the first few hundred commands
MARK_EVERY, FUND_EVERY = 500, 20_000  # commands
PLACE, CANCEL, AMEND = 0.45, 0.40, 0.05  # shares; the rest takes


@dataclass(slots=True)
class Resting:
    """An order of the stream that is open in its own book."""

    account: int
    cl_ord_id: str
    side: int
    price_ticks: int
    size_lots: int
    filled_lots: int
    slot: int  # in the list that dice choose from


class Flow:
    """One symbol's order flow and the book that it makes."""

    def __init__(self, instrument: Instrument, dice: Random) -> None:
        self.symbol = instrument.symbol
        self.walk = Walk(dice, FAIR_TICKS[instrument.symbol], 1.0)
        self._dice = dice
        self._book = Book()
        self._open: dict[int, Resting] = {}
        self._ids: list[int] = []  # of the open orders, in no order, for an even choice in O(1)

    @property
    def open_orders(self) -> int:
        return len(self._ids)

    def next(self, number: int, name: str) -> Command:
        """Return the next command; `number` (rising) and `name` identify the order, if it is one. Cost: O(fills)."""
        self.walk.step()
        roll = self._dice.random()
        if len(self._ids) < OPEN_MIN or (roll < PLACE and len(self._ids) < OPEN_MAX):
            return self._place(number, name)
        if roll < PLACE + CANCEL:
            return self._cancel()
        if roll < PLACE + CANCEL + AMEND:
            return self._amend()
        return self._take(number, name)

    def _place(self, number: int, name: str) -> PlaceOrder:
        """Quote at some distance from the fair price without trading."""
        side = self._dice.randrange(2)
        order = Resting(self._dice.randint(1, MAKERS), name, side, self._quote(side), self._size(50), 0, len(self._ids))
        self._book.rest(side, number, order.price_ticks, order.size_lots)
        self._open[number] = order
        self._ids.append(number)
        return PlaceOrder(order.account, self.symbol, name, side, order.size_lots, order.price_ticks)

    def _quote(self, side: int) -> int:
        """Return a price of `side`, mostly near the fair one, never one that would trade."""
        away = 1 + int(self._dice.expovariate(0.05))
        opposite = self._book.best(1 - side)
        if side == BUY:
            price = self.walk.ticks - away
            return price if opposite is None else min(price, opposite - 1)
        price = self.walk.ticks + away
        return price if opposite is None else max(price, opposite + 1)

    def _size(self, most: int) -> int:
        return 1 + int(most * self._dice.random() ** 2)

    def _choose(self) -> int:
        return self._ids[self._dice.randrange(len(self._ids))]

    def _cancel(self) -> CancelOrder:
        number = self._choose()
        self._book.remove(number)
        order = self._forget(number)
        return CancelOrder(order.account, order.cl_ord_id)

    def _forget(self, number: int) -> Resting:
        order, last = self._open.pop(number), self._ids.pop()
        if last != number:
            self._ids[order.slot] = last
            self._open[last].slot = order.slot
        return order

    def _amend(self) -> AmendOrder:
        """Make an order smaller in its place, or move it to another price."""
        number = self._choose()
        order = self._open[number]
        leaves = order.size_lots - order.filled_lots
        if leaves > 1 and self._dice.random() < 0.5:
            order.size_lots -= self._dice.randrange(1, leaves)
            self._book.resize(number, order.size_lots - order.filled_lots)
            return AmendOrder(order.account, order.cl_ord_id, size_lots=order.size_lots)
        self._book.remove(number)
        price = self._quote(order.side)
        order.price_ticks = price if price != order.price_ticks else price + (-1 if order.side == BUY else 1)
        self._book.rest(order.side, number, order.price_ticks, leaves)
        return AmendOrder(order.account, order.cl_ord_id, price_ticks=order.price_ticks)

    def _take(self, number: int, name: str) -> PlaceOrder:
        """Take from the side that is priced worse than fair, else from either, now and then through several levels."""
        dice, fair = self._dice, self.walk.ticks
        ask, bid = self._book.best(SELL), self._book.best(BUY)
        side = dice.randrange(2)
        if ask is not None and ask < fair:
            side = BUY
        elif bid is not None and bid > fair:
            side = SELL
        account, size = dice.randint(MAKERS + 1, ACCOUNTS), self._size(150 if dice.random() < 0.1 else 8)
        limit = None if dice.random() < 0.3 else (fair + 100 if side == BUY else fair - 100)
        self._match(number, side, size, limit)
        kind = TimeInForce.GTC if limit is None else TimeInForce.IOC
        return PlaceOrder(account, self.symbol, name, side, size, limit, time_in_force=kind)

    def _match(self, number: int, side: int, size: int, limit: int | None) -> None:
        """Do in the own book what the exchange will do; a market order ends far beyond where any order rests."""
        self._book.place(number, side, number, limit if limit is not None else (1 - side) * 2**40, size, ioc=1)
        for report in self._book.reports:
            if report[0] == TRADE:
                maker = self._open[report[4]]
                maker.filled_lots += report[3]
                if maker.filled_lots == maker.size_lots:
                    self._forget(report[4])
        self._book.reports.clear()


def prologue() -> Iterator[Command]:
    """Yield what makes the market: both contracts, then the money of every account."""
    for instrument in LISTED:
        yield CreateInstrument(instrument, FAIR_TICKS[instrument.symbol])
    for account in range(1, ACCOUNTS + 1):
        yield Deposit(account, MONEY_UNITS)


def commands(seed: int, count: int) -> Iterator[Command]:
    """Yield `count` commands: the prologue (102), then two symbols' flow of 100 accounts.

    45 % place, 40 % cancel, 5 % amend, 10 % take (market and IOC orders), a mark every 500 commands, funding every 20,000.
    Client ids begin with the seed, so that streams of different seeds can follow each other. Cost: 3 µs a command.
    """
    dice = Random(seed)
    flows = [Flow(instrument, dice) for instrument in LISTED]
    for number, command in enumerate(prologue()):
        if number == count:
            return
        yield command
    for number in range(ACCOUNTS + len(LISTED), count):
        flow = flows[dice.random() < 0.4]
        if number % FUND_EVERY == 0:
            yield Fund(flow.symbol, dice.randint(-100, 100))
        elif number % MARK_EVERY == 0:
            yield SetMark(flow.symbol, flow.walk.ticks)
        else:
            yield flow.next(number, f"{seed}-{number}")
