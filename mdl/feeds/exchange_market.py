"""Turns the exchange's message frames and books into vendor-shaped events: T a trade, Q a new top, L2 the depth. Pure.

Invariant: a symbol's levels are those the exchange showed after the last message applied; every trade (`trdMatchID`) of a
message is one T, in the message's order. Depth is conflated: its last state always leaves, `every_ns` apart at the least.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta
from fractions import Fraction
from typing import Annotated, Literal

import msgspec
from msgspec import Meta, Struct, field

TRADE = "Trade"
DEPTH_EVERY_NS = 50_000_000
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)  # all that decoding arbitrary input raises

Index = Annotated[int, Meta(ge=0)]
Lots = Annotated[int, Meta(ge=0)]
Price = Annotated[float, Meta(gt=0, lt=1e12)]
Time = Annotated[datetime, Meta(tz=True)]
_encode = msgspec.json.Encoder().encode


class BadFrame(ValueError):
    """A frame, or an answer of the gateway, that is not of the exchange's shapes."""


class Store(Struct):
    """A message store; what it holds, its messages say."""

    store_id: str = field(name="storeId")


class Instrument(Struct):
    """A contract: the price of one tick and the amount of the base asset in one contract, as decimals."""

    symbol: str
    tick_size: str = field(name="tickSize", default="1")
    lot_size: str = field(name="lotSize", default="1")


class Level(Struct):
    """What a price shows, in contracts."""

    price: Price
    lots: Lots = field(name="qty")


class Snapshot(Struct):
    """All levels of a symbol after the command `index`."""

    symbol: str
    index: Index = field(name="messageIndex")
    at: Time = field(name="timestamp")
    bids: list[Level]
    asks: list[Level]


class Execution(Struct):
    """What of an execution a trade is made of; the other fields and other executions are not looked at."""

    symbol: str
    kind: str = field(name="execType")
    trade_id: str | None = field(name="trdMatchID", default=None)
    lots: int = field(name="lastQty", default=0)
    price: float | None = field(name="lastPx", default=None)


class Update(Struct):
    """What a level shows after the command; 0 = it is gone."""

    symbol: str
    side: Literal["Buy", "Sell"]
    price: Price
    lots: Lots = field(name="qty")


class Message(Struct):
    """Everything of one command."""

    index: Index = field(name="messageIndex")
    at: Time = field(name="timestamp")
    previous: Index | None = field(name="prevMessageIndex", default=None)
    executions: list[list[Execution]] = []
    updates: list[Update] = field(name="bookUpdates", default=[])


_decode: Callable[[bytes | str], Message | str] = msgspec.json.Decoder(Message | str).decode


def read_frame(data: bytes | str) -> Message | str:
    """Return a message, or the text with which the exchange explains why it closes.  Raises: BadFrame."""
    try:
        return _decode(data)
    except UNREADABLE as error:
        raise BadFrame(str(error)) from None


class Cursor:
    """Where we are in the store: the index of the last message that was applied, None = take everything stored."""

    def __init__(self) -> None:
        self.index: int | None = None
        self.life = 0  # positions of another life than the present one mean nothing

    def judge(self, message: Message) -> Literal["next", "seen", "hole"]:
        """Say whether a message follows, was applied already, or follows after messages that we were not given."""
        if self.index is None:
            return "next"
        if message.index <= self.index:
            return "seen"
        return "hole" if message.previous is not None and message.previous > self.index else "next"

    def restart(self) -> None:
        """Take everything stored from now on; what was known before says nothing about it."""
        self.index = None
        self.life += 1

    def meet(self, newest: int) -> bool:
        """Hear the newest index of the exchange; return whether it is another one than before: it knows less than we do."""
        if self.index is None or newest >= self.index:
            return False
        self.restart()
        return True


class Scale:
    """Whole units of a decimal step.  Raises: ValueError when the step is no number above zero."""

    def __init__(self, step: str) -> None:
        fraction = Fraction(step)
        if fraction <= 0:
            raise ValueError(f"{step} is not above zero")
        self._numerator, self._denominator = fraction.numerator, fraction.denominator

    def amount(self, units: int) -> int | float:
        """Return the amount, correctly rounded: 3 units of 0.1 are 0.3."""
        whole = units * self._numerator
        return whole if self._denominator == 1 else whole / self._denominator

    def units(self, amount: float) -> int:
        """Return the nearest number of units."""
        return round(amount * self._denominator / self._numerator)


class Side:
    """The levels of one side. A level's rank is its price for asks and its negated price for bids: the best is the lowest."""

    def __init__(self, sign: int) -> None:
        self._sign = sign
        self._ranks: list[int] = []
        self._lots: dict[int, int] = {}

    def put(self, ticks: int, lots: int) -> None:
        """Set what a level shows."""
        rank = self._sign * ticks
        if not lots:
            if self._lots.pop(rank, 0):
                del self._ranks[bisect_left(self._ranks, rank)]
            return
        if rank not in self._lots:
            insort(self._ranks, rank)
        self._lots[rank] = lots

    def best(self, depth: int) -> list[tuple[int, int]]:
        """Return up to `depth` levels as (ticks, lots), best first."""
        return [(self._sign * rank, self._lots[rank]) for rank in self._ranks[:depth]]


class Book:
    """One symbol: its levels, and what was told of them last."""

    def __init__(self, instrument: Instrument) -> None:
        self.symbol = instrument.symbol
        self.tick, self.lot = Scale(instrument.tick_size), Scale(instrument.lot_size)
        self.due_ns = 0  # the next depth may leave
        self._sides = {"Buy": Side(-1), "Sell": Side(1)}
        self._index = -1  # of the snapshot below it all
        self._ms = 0
        self._told_top: list[list[tuple[int, int]]] = [[], []]
        self._told_depth: list[list[tuple[int, int]]] = [[], []]

    def seed(self, snapshot: Snapshot) -> None:
        """Take a snapshot instead of all levels."""
        self._index, self._ms = snapshot.index, milliseconds(snapshot.at)
        self._sides = {"Buy": Side(-1), "Sell": Side(1)}
        for side, levels in (("Buy", snapshot.bids), ("Sell", snapshot.asks)):
            for level in levels:
                self._sides[side].put(self.tick.units(level.price), level.lots)

    def update(self, index: int, ms: int, update: Update) -> None:
        """Set a level, unless the snapshot is younger than the message `index`."""
        if index > self._index:
            self._ms = ms
            self._sides[update.side].put(self.tick.units(update.price), update.lots)

    def quote(self) -> list[bytes]:
        """Return the Q event of a top that changed since the last call; nothing when it did not."""
        top = self._best(1)
        if top == self._told_top:
            return []
        self._told_top = top
        (bid, bid_size), (ask, ask_size) = (self._told(side[0]) if side else (0, 0) for side in top)
        event = {"ev": "Q", "sym": self.symbol, "bp": bid, "bs": bid_size, "ap": ask, "as": ask_size, "t": self._ms}
        return [_encode(event)]

    def depth(self, levels: int) -> list[bytes]:
        """Return the L2 event of a depth that changed since the last call; nothing when it did not."""
        best = self._best(levels)
        if best == self._told_depth:
            return []
        self._told_depth = best
        bids, asks = ([self._told(level) for level in side] for side in best)
        return [_encode({"ev": "L2", "sym": self.symbol, "b": bids, "a": asks, "t": self._ms})]

    def trade(self, execution: Execution, price: float, ms: int) -> bytes:
        """Return the T event; its size is in units of the base asset."""
        size = self.lot.amount(execution.lots)
        return _encode({"ev": "T", "sym": self.symbol, "i": execution.trade_id, "x": 0, "p": price, "s": size, "t": ms})

    def _best(self, levels: int) -> list[list[tuple[int, int]]]:
        return [side.best(levels) for side in self._sides.values()]

    def _told(self, level: tuple[int, int]) -> tuple[int | float, int | float]:
        return self.tick.amount(level[0]), self.lot.amount(level[1])


class Market:
    """All symbols of the exchange. Feed `learn`, `seed`, then `apply`; `depth(now_ns)` as often as `due_ns` says."""

    def __init__(self, levels: int = 20, every_ns: int = DEPTH_EVERY_NS) -> None:
        self.malformed = 0  # trades and levels that could not be used
        self._levels = levels
        self._every_ns = every_ns
        self._books: dict[str, Book] = {}
        self._changed: dict[str, Book] = {}

    @property
    def symbols(self) -> list[str]:
        """The symbols that were learned, in that order."""
        return list(self._books)

    @property
    def due_ns(self) -> int | None:
        """When the next depth is due (monotonic); None when every depth is told."""
        return min((book.due_ns for book in self._changed.values()), default=None)

    def learn(self, instruments: Iterable[Instrument]) -> None:
        """Take new symbols in; those that are known stay as they are. One without usable steps is counted and left out."""
        for instrument in instruments:
            if instrument.symbol in self._books:
                continue
            try:
                self._books[instrument.symbol] = Book(instrument)
            except (ValueError, ZeroDivisionError):
                self.malformed += 1

    def seed(self, snapshot: Snapshot) -> list[bytes]:
        """Take the book of a learned symbol as it is; return its Q event when the top is another."""
        book = self._books[snapshot.symbol]
        book.seed(snapshot)
        self._changed[book.symbol] = book
        return book.quote()

    def unknown(self, message: Message) -> set[str]:
        """Return the symbols that a message says something of and that were not learned."""
        named = {update.symbol for update in message.updates}
        named |= {execution.symbol for group in message.executions for execution in group if execution.kind == TRADE}
        return named - self._books.keys()

    def apply(self, message: Message) -> list[bytes]:
        """Return the T events of a message in its order, then a Q event for each symbol whose top changed."""
        ms = milliseconds(message.at)
        events = self._trades(message, ms)
        touched: dict[str, Book] = {}
        for update in message.updates:
            book = self._books.get(update.symbol)
            if book is None:
                self.malformed += 1
                continue
            book.update(message.index, ms, update)
            touched[book.symbol] = book
        for book in touched.values():
            events += book.quote()
        self._changed |= touched
        return events

    def depth(self, now_ns: int) -> list[bytes]:
        """Return the L2 events that are due."""
        events: list[bytes] = []
        for book in [book for book in self._changed.values() if book.due_ns <= now_ns]:
            del self._changed[book.symbol]
            if told := book.depth(self._levels):
                events += told
                book.due_ns = now_ns + self._every_ns
        return events

    def _trades(self, message: Message, ms: int) -> list[bytes]:
        found: dict[str, bytes] = {}  # taker and maker report the same trade
        for group in message.executions:
            for execution in group:
                if execution.kind != TRADE or execution.trade_id in found:
                    continue
                book, price = self._books.get(execution.symbol), execution.price
                if book is None or not execution.trade_id or execution.lots <= 0 or price is None or price <= 0:
                    self.malformed += 1
                    continue
                found[execution.trade_id] = book.trade(execution, price, ms)
        return list(found.values())


def milliseconds(at: datetime) -> int:
    """Return the time in ms since the Unix epoch."""
    return (at - EPOCH) // timedelta(milliseconds=1)
