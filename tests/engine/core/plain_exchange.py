"""One market of the exchange as plain lists that anyone can follow: the reference of engine/core/exchange.py.

It knows orders, those that belong together, positions and cash flows; margin, marks and liquidation are tested elsewhere.
"""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass, field
from fractions import Fraction

from msgspec import UNSET

from engine.core.commands import BUY, PlaceOrder, SelfTrade, TimeInForce
from engine.core.linked import LEG_STEP, is_pair, with_legs

Log = list[tuple[object, ...]]


@dataclass(eq=False)
class PlainOrder:
    """One open order."""

    order_id: int
    terms: PlaceOrder
    size: int
    price: int | None
    stop: int | None
    filled: int = 0
    shown: int = 0
    partner: PlainOrder | None = None
    entry: PlainOrder | None = None
    exits: list[PlainOrder] = field(default_factory=list)
    held: bool = False
    resized: bool = True  # may grow by hand

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
    open: dict[int, PlainOrder] = field(default_factory=dict)
    entered: list[PlainOrder] = field(default_factory=list)  # entries that traded: their exits follow
    log: Log = field(default_factory=list)

    def place(self, order_id: int, terms: PlaceOrder) -> None:
        orders = [
            PlainOrder(order_id + n * LEG_STEP, one, one.size_lots, one.price_ticks, one.stop_ticks)
            for n, one in enumerate(with_legs(terms))
        ]
        order = orders[0]
        checked = orders if is_pair(terms) else orders[:1]
        if terms.reduce_only and not all(map(self.reducible, checked)):
            self.log.append(("rejected", "ReduceOnlyWouldIncrease"))
        elif terms.post_only and terms.stop_ticks is None and terms.trail is UNSET and self.against(order):
            self.log.append(("rejected", "PostOnlyWouldTrade"))
        else:
            self.link(orders, is_pair(terms))
            for one in orders:
                self.open[one.order_id] = one
                self.log.append(("accepted", one.order_id))
            for one in orders:
                if one.order_id in self.open and not one.held:
                    self.begin(one)
            self.cascade()

    def link(self, orders: list[PlainOrder], pair: bool) -> None:
        pairs = orders if pair else orders[1:]
        if len(pairs) == 2:
            pairs[0].partner, pairs[1].partner = pairs[1], pairs[0]
        for one in pairs if len(orders) > 1 else []:
            one.resized = False
        if not pair:
            orders[0].exits = orders[1:]
            for one in orders[1:]:
                one.entry, one.held = orders[0], True

    def part(self, order: PlainOrder) -> None:
        """Cancel what is left of an exit's entry, and the other one of a pair."""
        if order.entry and order.entry.order_id in self.open:
            self.close(order.entry, "Linked")
        if order.partner and order.partner.partner is order and order.partner.order_id in self.open:
            self.close(order.partner, "Linked")

    def reduce(self, order: PlainOrder | None, lots: int) -> None:
        if order and order.order_id in self.open:
            order.size -= lots
            order.shown = min(order.shown, order.leaves)
            self.log.append(("amended", order.order_id, True))

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
        elif (
            (price is not None and order.price is None)
            or (stop is not None and order.stop is None)
            or (not order.resized and (size > order.size or (order.held and size != order.size)))
        ):
            self.log.append(("rejected", "InvalidCombination"))
        elif size <= order.filled or size < order.terms.display_lots:
            self.log.append(("rejected", "InvalidSize"))
        else:
            new_price, new_stop = price or order.price, stop or order.stop
            kept = order.held or (size <= order.size and new_price == order.price and new_stop == order.stop)
            less = order.size - size
            order.size, order.price, order.stop = size, new_price, new_stop
            order.shown = min(order.shown, order.leaves)
            self.log.append(("amended", order_id, kept))
            if less:
                self.reduce(order.partner, less)
            if not kept:
                self.take_out(order)
                self.start(order)
                self.cascade()

    def find(self, order_id: int) -> PlainOrder | None:
        return self.open.get(order_id)

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
        del self.open[order.order_id]
        self.log.append(("canceled", order.order_id, reason))
        for one in order.exits if not order.filled else []:
            if one.order_id in self.open:
                self.close(one, "Linked")
        self.part(order)

    def reducible(self, order: PlainOrder) -> int:
        position = self.lots.get(order.terms.account, 0)
        return max(0, -position if order.terms.side == BUY else position)

    def against(self, order: PlainOrder) -> PlainOrder | None:
        side = 1 - order.terms.side
        found = next((order_id for price, order_id, _ in self.queue(side) if order.reaches(price or 0)), None)
        return None if found is None else self.find(found)

    def begin(self, order: PlainOrder) -> None:
        if order.terms.trail is not UNSET and order.stop is None:
            order.stop = self.behind(order, self.last or 100)
            self.log.append(("trailed", ((order.order_id, order.stop),)))
        self.start(order)

    def behind(self, order: PlainOrder, price: int) -> int:
        """Return where a trailing stop stands after a trade at a price."""
        trail = order.terms.trail
        assert trail is not UNSET
        distance = Fraction(price * trail.ppm, 10**6) if trail.ppm else Fraction(trail.ticks)
        return math.ceil(price + distance) if order.terms.side == BUY else math.floor(price - distance)

    def follow(self) -> None:
        """Let the exits of the oldest entry that traded follow its fills."""
        entry = self.entered.pop(0)
        due = [one for one in entry.exits if one.order_id in self.open and one.entry]
        for one in due:
            self.take_out(one)
            one.size, one.held = entry.filled, False
            self.log.append(("released", one.order_id, one.size))
        for one in due:
            if one.order_id in self.open:
                self.begin(one)

    def trail(self) -> None:
        moves = []
        for order in self.waiting:
            if order.terms.trail is not UNSET and self.last is not None and order.stop is not None:
                stop = self.behind(order, self.last)
                if stop < order.stop if order.terms.side == BUY else stop > order.stop:
                    order.stop = stop
                    moves.append((order.order_id, stop))
        if moves:
            self.log.append(("trailed", tuple(sorted(moves))))

    def start(self, order: PlainOrder) -> None:
        if order.stop is not None:
            self.waiting.append(order)
        else:
            self.enter(order)

    def cascade(self) -> None:
        """Let exits follow, and trigger one stop after the other, until none is due; then trailing stops move."""
        while self.last is not None:
            if self.entered:
                self.follow()
                continue
            last = self.last
            buys = sorted((o.stop, o.order_id) for o in self.waiting if o.terms.side == BUY and (o.stop or 0) <= last)
            sells = sorted((-(o.stop or 0), o.order_id) for o in self.waiting if o.terms.side != BUY and (o.stop or 0) >= last)
            if not buys + sells:
                self.trail()
                return
            order = self.find((buys + sells)[0][1])
            assert order is not None
            self.take_out(order)
            order.stop = None
            self.log.append(("triggered", order.order_id))
            others = order.entry, order.partner
            order.partner, order.entry, order.resized = None, None, True
            for other in others:
                if other and other.order_id in self.open:
                    self.close(other, "Linked")
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
        trial = copy.deepcopy(self)
        paper = trial.open[order.order_id]
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
                if order.terms.self_trade in (SelfTrade.NEWEST, SelfTrade.BOTH) and order.order_id in self.open:
                    self.close(order, "SelfTrade")
                if order.order_id not in self.open:
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
        self.last, value, lots = maker.price, maker.price * size, size
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
        for order in (taker, maker):
            if not order.leaves:
                del self.open[order.order_id]
        for order in (taker, maker):
            if order.exits and order not in self.entered:
                self.entered.append(order)
            if order.entry and order.entry.order_id in self.open:
                self.close(order.entry, "Linked")
            if order.partner and order.leaves:
                self.reduce(order.partner, lots)
            elif not order.leaves:
                self.part(order)
