"""One market of the exchange as plain lists that anyone can follow: the reference of engine/core/exchange.py.

It knows orders, positions and cash flows; margin, marks and liquidation are tested elsewhere.
"""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass, field
from fractions import Fraction

from engine.core.commands import BUY, PlaceOrder, SelfTrade, TimeInForce

Log = list[tuple[object, ...]]


@dataclass
class PlainOrder:
    """One open order."""

    order_id: int
    terms: PlaceOrder
    size: int
    price: int | None
    stop: int | None
    filled: int = 0
    shown: int = 0

    @property
    def leaves(self) -> int:
        return self.size - self.filled

    def reaches(self, price: int) -> bool:
        return self.price is None or (price <= self.price if self.terms.side == BUY else price >= self.price)


@dataclass
class PlainExchange:
    """Orders that rest or wait, each kind in one list in the order in which they came there."""

    taker_fee_ppm: int
    maker_fee_ppm: int
    resting: list[PlainOrder] = field(default_factory=list)
    waiting: list[PlainOrder] = field(default_factory=list)
    lots: dict[int, int] = field(default_factory=dict)
    cash: dict[int, int] = field(default_factory=dict)
    last: int | None = None
    log: Log = field(default_factory=list)

    def place(self, order_id: int, terms: PlaceOrder) -> None:
        order = PlainOrder(order_id, terms, terms.size_lots, terms.price_ticks, terms.stop_ticks)
        if terms.reduce_only and not self.reducible(order):
            self.log.append(("rejected", "ReduceOnlyWouldIncrease"))
        elif terms.post_only and terms.stop_ticks is None and self.against(order):
            self.log.append(("rejected", "PostOnlyWouldTrade"))
        else:
            self.log.append(("accepted", order_id))
            self.start(order)
            self.cascade()

    def cancel(self, order_id: int) -> None:
        order = self.find(order_id)
        if order is None:
            self.log.append(("rejected", "UnknownOrder"))
        else:
            self.close(order, "Requested")

    def amend(self, order_id: int, size: int, price: int | None, stop: int | None) -> None:
        order = self.find(order_id)
        if order is None:
            self.log.append(("rejected", "UnknownOrder"))
        elif (price is not None and order.price is None) or (stop is not None and order.stop is None):
            self.log.append(("rejected", "InvalidCombination"))
        elif size <= order.filled or size < order.terms.display_lots:
            self.log.append(("rejected", "InvalidSize"))
        else:
            new_price, new_stop = price or order.price, stop or order.stop
            kept = size <= order.size and new_price == order.price and new_stop == order.stop
            order.size, order.price, order.stop = size, new_price, new_stop
            order.shown = min(order.shown, order.leaves)
            self.log.append(("amended", order_id, kept))
            if not kept:
                self.take_out(order)
                self.start(order)
                self.cascade()

    def find(self, order_id: int) -> PlainOrder | None:
        return next((order for order in self.resting + self.waiting if order.order_id == order_id), None)

    def queue(self, side: int) -> list[tuple[int | None, int, int]]:
        """Return a side's (price, order id, shown lots) in the order in which they would trade."""
        sign = -1 if side == BUY else 1
        own = [order for order in self.resting if order.terms.side == side]
        return [(o.price, o.order_id, o.shown) for o in sorted(own, key=lambda order: sign * (order.price or 0))]

    def take_out(self, order: PlainOrder) -> None:
        self.resting = [other for other in self.resting if other is not order]
        self.waiting = [other for other in self.waiting if other is not order]

    def close(self, order: PlainOrder, reason: str) -> None:
        self.take_out(order)
        self.log.append(("canceled", order.order_id, reason))

    def reducible(self, order: PlainOrder) -> int:
        position = self.lots.get(order.terms.account, 0)
        return max(0, -position if order.terms.side == BUY else position)

    def against(self, order: PlainOrder) -> PlainOrder | None:
        side = 1 - order.terms.side
        found = next((order_id for price, order_id, _ in self.queue(side) if order.reaches(price or 0)), None)
        return None if found is None else self.find(found)

    def start(self, order: PlainOrder) -> None:
        if order.stop is not None:
            self.waiting.append(order)
        else:
            self.enter(order)

    def cascade(self) -> None:
        """Trigger one stop after the other until none is due."""
        while self.last is not None:
            last = self.last
            buys = sorted((o.stop, o.order_id) for o in self.waiting if o.terms.side == BUY and (o.stop or 0) <= last)
            sells = sorted((-(o.stop or 0), o.order_id) for o in self.waiting if o.terms.side != BUY and (o.stop or 0) >= last)
            if not buys + sells:
                return
            order = self.find((buys + sells)[0][1])
            assert order is not None
            self.take_out(order)
            order.stop = None
            self.log.append(("triggered", order.order_id))
            self.enter(order)

    def enter(self, order: PlainOrder) -> None:
        if order.terms.post_only and self.against(order):
            self.close(order, "PostOnlyWouldTrade")
        elif order.terms.time_in_force is TimeInForce.FOK and not self.would_fill(order):
            self.close(order, "FillOrKill")
        elif self.match(order) and order.leaves:
            if order.price is None or order.terms.time_in_force in (TimeInForce.IOC, TimeInForce.FOK):
                self.close(order, "Unfilled")
            else:
                self.show(order)
                self.log.append(("rested", order.order_id))

    def would_fill(self, order: PlainOrder) -> bool:
        """Try it on a copy of everything."""
        trial, paper = copy.deepcopy(self), copy.deepcopy(order)
        trial.match(paper)
        return paper.leaves == 0

    def show(self, order: PlainOrder) -> None:
        order.shown = min(order.leaves, order.terms.display_lots or order.leaves)
        self.resting.append(order)

    def match(self, order: PlainOrder) -> bool:
        """Trade; return False when the order was cancelled on the way."""
        while order.leaves and (maker := self.against(order)):
            if order.terms.reduce_only and not self.reducible(order):
                self.close(order, "NothingToReduce")
                return False
            if maker.terms.account == order.terms.account:
                if order.terms.self_trade in (SelfTrade.OLDEST, SelfTrade.BOTH):
                    self.close(maker, "SelfTrade")
                if order.terms.self_trade in (SelfTrade.NEWEST, SelfTrade.BOTH):
                    self.close(order, "SelfTrade")
                    return False
            elif maker.terms.reduce_only and not self.reducible(maker):
                self.close(maker, "NothingToReduce")
            else:
                clips = [self.reducible(o) for o in (order, maker) if o.terms.reduce_only]
                alone = [o for o in self.resting if o.terms.side == maker.terms.side and o.price == maker.price] == [maker]
                self.trade(order, maker, min(order.leaves, maker.leaves if alone else maker.shown, *clips))
        return True

    def trade(self, taker: PlainOrder, maker: PlainOrder, size: int) -> None:
        assert maker.price is not None
        self.log.append(("trade", taker.order_id, maker.order_id, maker.price, size))
        self.last, value = maker.price, maker.price * size
        for order, rate in ((taker, self.taker_fee_ppm), (maker, self.maker_fee_ppm)):
            account, sign = order.terms.account, 1 if order.terms.side == BUY else -1
            self.lots[account] = self.lots.get(account, 0) + sign * size
            self.cash[account] = self.cash.get(account, 0) - sign * value - math.ceil(Fraction(value * rate, 10**6))
            order.filled += size if order is taker else 0
        while size:  # one display after the other
            part = min(size, maker.shown)
            maker.shown, maker.filled, size = maker.shown - part, maker.filled + part, size - part
            if not maker.shown:
                self.take_out(maker)
                if maker.leaves:
                    self.show(maker)
