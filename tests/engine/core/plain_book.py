"""A book of plain lists that anyone can follow: the reference of engine/core/book.py."""

from __future__ import annotations

from dataclasses import dataclass, field

from engine.core.book import ACCEPTED, CANCEL_REJECTED, CANCELED, MODIFIED, MODIFY_REJECTED, TRADE, Report
from engine.core.commands import BUY


@dataclass
class Resting:
    """One order in the book."""

    side: int
    order_id: int
    price: int
    size: int


@dataclass
class PlainBook:
    """All resting orders in one list, in the order in which they came; everything is looked for from the start."""

    reports: list[Report] = field(default_factory=list)
    resting: list[Resting] = field(default_factory=list)

    def place(self, sequence: int, side: int, order_id: int, price: int, size: int, ioc: int = 0) -> None:
        self.reports.append((ACCEPTED, sequence, side, order_id, price, size))
        self._enter(sequence, Resting(side, order_id, price, size), ioc)

    def cancel(self, sequence: int, order_id: int) -> None:
        order = self._take(order_id)
        if order is None:
            self.reports.append((CANCEL_REJECTED, sequence, order_id))
        else:
            self.reports.append((CANCELED, sequence, order.side, order_id, order.price))

    def modify(self, sequence: int, order_id: int, price: int, size: int) -> None:
        order = self._take(order_id)
        if order is None:
            self.reports.append((MODIFY_REJECTED, sequence, order_id))
            return
        self.reports.append((MODIFIED, sequence, order.side, order_id, price, size))
        self._enter(sequence, Resting(order.side, order_id, price, size), 0)

    def queue(self, side: int) -> list[tuple[int, int, int]]:
        """Return a side's (price, order id, open quantity) in the order in which they would trade."""
        sign = -1 if side == BUY else 1
        own = [order for order in self.resting if order.side == side]
        return [(o.price, o.order_id, o.size) for o in sorted(own, key=lambda order: sign * order.price)]

    def _take(self, order_id: int) -> Resting | None:
        for order in self.resting:
            if order.order_id == order_id:
                self.resting.remove(order)
                return order
        return None

    def _enter(self, sequence: int, taker: Resting, ioc: int) -> None:
        while taker.size:
            against = self.queue(1 - taker.side)
            if not against or (against[0][0] > taker.price if taker.side == BUY else against[0][0] < taker.price):
                break
            maker = next(order for order in self.resting if order.order_id == against[0][1])
            size = min(maker.size, taker.size)
            self.reports.append((TRADE, sequence, maker.price, size, maker.order_id, taker.order_id))
            maker.size -= size
            taker.size -= size
            if not maker.size:
                self.resting.remove(maker)
        if taker.size and ioc:
            self.reports.append((CANCELED, sequence, taker.side, taker.order_id, taker.price))
        elif taker.size:
            self.resting.append(taker)
