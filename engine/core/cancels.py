"""Cancels many orders: as many at once as a step has room for, the rest in later steps.

What is left is noted in one event for a whole account, and as good as cancelled from then on: it trades no more, reserves no
money, and its owner does not find it. So many accounts may ask at one moment, and nobody waits for all of their orders.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import islice

from engine.core.events import CancelReason, CancelsDone, CancelsNoted, Event
from engine.core.matching import Matching
from engine.core.state import LEG_STEP, Order, State

FEW = 4  # orders that make nobody wait: no more events than an ordinary order


class Cancels:
    """Mass cancels and their steps. `emit` applies an event to the state and keeps it."""

    def __init__(self, state: State, matching: Matching, emit: Callable[[Event], None]) -> None:
        self._state = state
        self._matching = matching
        self._emit = emit

    def each(self, orders: Iterable[Order], reason: CancelReason) -> None:
        """Cancel these orders; one that is noted keeps its reason."""
        for order in orders:
            if order.order_id in self._state.orders:  # not taken along by a linked one
                self._matching.cancel(order, reason)

    def own(self, number: int, symbol: str, reason: CancelReason, room: int) -> None:
        """Cancel what an account has open, in one contract or ("") all, as far as there is room, and note the rest.

        While others are noted already, whoever has more than a few is noted only.
        """
        orders, noted = self._state.orders, self._state.work.cancels
        due = list(self._state.ledger.accounts[number].orders)
        if symbol:
            due = [order_id for order_id in due if orders[order_id].terms.symbol == symbol]
        if any(account == number for account, _ in noted):
            due = [order_id for order_id in due if not self._state.noted(orders[order_id])]
        if noted and len(due) > FEW:
            room = 0
        self.each([orders[order_id] for order_id in due[:room]], reason)
        if later := tuple(order_id for order_id in due[room:] if order_id in orders):
            self._emit(CancelsNoted(number, symbol, later[-1] % LEG_STEP, reason, later))  # the last one is the youngest

    def first_of(self, number: int) -> None:
        """Take out the first few noted orders of an account that asks for something, so that new ones always have room."""
        for symbol in [symbol for one, symbol in self._state.work.cancels if one == number]:
            self.each(list(islice(self._state.noted_of(number, symbol), FEW)), CancelReason.REQUESTED)

    def take_out(self, most: int) -> None:
        """Take out noted orders, up to a number."""
        for number, symbol in list(self._state.work.cancels):
            due = list(islice(self._state.noted_of(number, symbol), max(0, most)))
            most -= len(due) + 1
            self.each(due, CancelReason.REQUESTED)
            if most < 0:
                return
            self._emit(CancelsDone(number, symbol))
