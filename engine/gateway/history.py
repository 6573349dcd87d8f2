"""Answers which orders an account closed and what it traded: the last 100,000 commands and more, read from the journal.

Nothing is noted while orders are executed: a question reads what the journal has more than the last one saw, in slices between
which orders go on, so that an engine that nobody asks pays nothing and a restart forgets nothing. What is older is in the OMS.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple, TypeVar

from msgspec import UNSET
from msgspec.structs import replace

from engine.core import events as ev
from engine.core.state import Order
from engine.journal.format import Record
from engine.journal.reader import Tail

COMMANDS = 100_000  # that are always there
KEPT = 2 * COMMANDS  # commands, before the older half is forgotten
SLICE = 500  # records that are looked at at a time: about 3 ms
T = TypeVar("T")
Place = tuple[int, int]  # index of the command, number within it: what newest first means


class Past(NamedTuple):
    """An order as it was last: closed when `closed` is set."""

    order: Order
    accepted_ns: int
    place: Place  # where it was closed, or accepted while it is open
    closed_ns: int = 0
    reason: ev.CancelReason | None = None


class Fill(NamedTuple):
    """One side of one trade."""

    place: Place
    time_ns: int
    trade_id: int
    order: Order  # terms and id; its quantities are those of the last event
    size_lots: int
    price_ticks: int
    fee_units: int
    is_taker: bool


class Question(NamedTuple):
    """What is asked for; None is anything. Times in ns, both included; `before` is where the page before ended."""

    account: int
    symbol: str | None = None
    order_id: int | None = None
    cl_ord_id: str | None = None
    from_ns: int | None = None
    to_ns: int | None = None
    before: Place | None = None

    def wants(self, order: Order, time_ns: int, place: Place) -> bool:
        """Return whether an order, or a fill of it, at a time and a place is asked for."""
        terms = order.terms
        return (
            terms.account == self.account
            and self.symbol in (None, terms.symbol)
            and self.order_id in (None, order.order_id)
            and self.cl_ord_id in (None, terms.cl_ord_id)
            and (self.from_ns is None or time_ns >= self.from_ns)
            and (self.to_ns is None or time_ns <= self.to_ns)
            and (self.before is None or place < self.before)
        )


class History:
    """The orders and fills of the journal's end. `committed` returns up to which index it may be believed."""

    def __init__(self, folder: Path, committed: Callable[[], int]) -> None:
        self._folder = folder
        self._committed = committed
        self._asking = asyncio.Lock()
        self._begin(0)

    def _begin(self, after_index: int) -> None:
        self.since_index = after_index  # orders that came after this are all there, and all that they traded
        self._position = after_index
        self._open: dict[int, Past] = {}
        self._closed: deque[Past] = deque()
        self._fills: deque[Fill] = deque()

    async def orders(self, question: Question, limit: int) -> list[Past]:
        """Return closed orders, newest first; open ones too when one order is asked for.

        Raises: JournalDamaged. Cost: O(what came since the last question + what is kept).
        """
        await self._catch_up()
        found: Iterable[Past] = reversed(self._closed)
        if question.order_id is not None or question.cl_ord_id is not None:
            found = sorted([*self._open.values(), *self._closed], key=lambda past: past.place, reverse=True)
        return _first(
            (one for one in found if question.wants(one.order, one.closed_ns or one.accepted_ns, one.place)), limit
        )  # fmt: skip

    async def fills(self, question: Question, limit: int) -> list[Fill]:
        """Return fills, newest first.  Raises and cost: as `orders`."""
        await self._catch_up()
        return _first((one for one in reversed(self._fills) if question.wants(one.order, one.time_ns, one.place)), limit)

    async def _catch_up(self) -> None:
        async with self._asking:
            limit = self._committed()
            if limit - self._position > COMMANDS:
                self._begin(limit - COMMANDS)
            tail, loop = Tail(self._folder, self._position), asyncio.get_running_loop()
            try:
                while self._position < limit and (records := await loop.run_in_executor(None, tail.take)):
                    known = [record for record in records if record.command_index <= limit]
                    for at in range(0, len(known), SLICE):
                        self._take(known[at : at + SLICE])
                        await asyncio.sleep(0)
                    if len(known) < len(records):
                        break
            finally:
                tail.close()
            self._position = max(self._position, limit)
            self._forget(limit)

    def _take(self, records: list[Record]) -> None:
        for record in records:
            for number, event in enumerate(ev.decode(record.payload)):
                self._note(event, record.time_ns, (record.command_index, 2 * number))  # a trade has two places
            self._position = record.command_index

    def _note(self, event: ev.Event, time_ns: int, place: Place) -> None:
        match event:
            case ev.OrderAccepted():
                terms = event.order
                order = Order(event.order_id, terms, terms.size_lots, terms.price_ticks, terms.stop_ticks, event.expire_ns)
                order.link = event.link
                self._open[event.order_id] = Past(order, time_ns, place)
            case ev.Traded():
                self._traded(event, time_ns, place)
            case ev.OrderCanceled() if event.order_id in self._open:
                self._close(event.order_id, time_ns, place, event.reason)
            case ev.OrderAmended() if event.order_id in self._open:
                order = self._open[event.order_id].order
                order.size_lots, order.price_ticks, order.stop_ticks = event.size_lots, event.price_ticks, event.stop_ticks
            case ev.OrderTriggered() if event.order_id in self._open:
                self._open[event.order_id].order.stop_ticks = None
                self._open[event.order_id].order.link = UNSET
            case ev.OrderReleased() if event.order_id in self._open:
                order = self._open[event.order_id].order
                order.size_lots = event.size_lots
                order.link = UNSET if order.link is UNSET else replace(order.link, held=False)
            case ev.StopsTrailed():
                for order_id, stop_ticks in event.moves:
                    if order_id in self._open:
                        self._open[order_id].order.stop_ticks = stop_ticks
            case _:
                pass

    def _traded(self, event: ev.Traded, time_ns: int, place: Place) -> None:
        sides = ((event.maker_id, event.maker_fee_units, False), (event.taker_id, event.taker_fee_units, True))
        for order_id, fee, is_taker in sides:
            if order_id not in self._open:
                continue  # it came before what is kept
            order = self._open[order_id].order
            order.filled_lots += event.size_lots
            order.cost_units += event.size_lots * event.price_ticks  # lots times ticks: the contract makes money of it
            spot = place[0], place[1] + is_taker
            self._fills.append(Fill(spot, time_ns, event.trade_id, order, event.size_lots, event.price_ticks, fee, is_taker))
            if not order.leaves_lots:
                self._close(order_id, time_ns, spot, None)

    def _close(self, order_id: int, time_ns: int, place: Place, reason: ev.CancelReason | None) -> None:
        past = self._open.pop(order_id)
        self._closed.append(past._replace(place=place, closed_ns=time_ns, reason=reason))

    def _forget(self, limit: int) -> None:
        """Forget what is older than is promised, once that is as much again."""
        if limit - self.since_index <= KEPT:
            return
        self.since_index = limit - COMMANDS
        while self._closed and self._closed[0].place[0] <= self.since_index:
            self._closed.popleft()
        while self._fills and self._fills[0].place[0] <= self.since_index:
            self._fills.popleft()


def _first(found: Iterable[T], limit: int) -> list[T]:
    return [one for one, _ in zip(found, range(limit), strict=False)]
