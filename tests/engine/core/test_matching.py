"""Random lives of one market against the plain exchange: every fill, cancel, queue, position and cash flow is the same."""

from __future__ import annotations

import random
from collections.abc import Callable

import msgspec
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule
from msgspec import UNSET

from engine.core import events as ev
from engine.core.commands import (
    BUY,
    SELL,
    AmendOrder,
    CancelOrder,
    Command,
    CreateInstrument,
    Deposit,
    Instrument,
    PlaceOrder,
    SelfTrade,
    TimeInForce,
)
from engine.core.exchange import Exchange
from engine.core.state import Order, State
from engine.stores.message_builder import MessageBuilder
from tests.engine.core.linked_orders import linked_order
from tests.engine.core.plain_exchange import Log, PlainExchange
from tests.scale import many

X = "XPERP"
ACCOUNTS = (1, 2, 3, 4)
DEPOSIT = 10**12
WIRE = msgspec.json.Decoder(ev.AnyEvent)


def logged(events: list[ev.Event]) -> Log:
    """Return events as the plain exchange writes them."""
    log: Log = []
    for event in events:
        match event:
            case ev.Traded():
                log.append(("trade", event.taker_id, event.maker_id, event.price_ticks, event.size_lots))
            case ev.OrderAccepted():
                log.append(("accepted", event.order_id))
            case ev.OrderRejected() | ev.CancelRejected():
                log.append(("rejected", event.reason))
            case ev.OrderCanceled():
                log.append(("canceled", event.order_id, event.reason))
            case ev.OrderRested():
                log.append(("rested", event.order_id))
            case ev.OrderTriggered():
                log.append(("triggered", event.order_id))
            case ev.OrderAmended():
                log.append(("amended", event.order_id, event.kept))
            case ev.OrderReleased():
                log.append(("released", event.order_id, event.size_lots))
            case ev.StopsTrailed():
                log.append(("trailed", tuple(sorted(event.moves))))
            case _:
                assert isinstance(event, ev.OrderStopped)
    return log


def reserves(order: Order) -> bool:
    """Return whether an order's lots are counted: those of a pair on one side are counted once."""
    return not order.terms.reduce_only and (order.link is UNSET or not order.link.covered)


class Twins:
    """The exchange, its plain twin, and a follower that knows the events only, as JSON."""

    def __init__(self) -> None:
        self.exchange, self.follower = Exchange(MessageBuilder), State()
        self.plain = PlainExchange(taker_fee_ppm=70_000, maker_fee_ppm=-30_000)
        self.index = 0
        self.decide(CreateInstrument(Instrument(X, taker_fee_ppm=70_000, maker_fee_ppm=-30_000), 100))
        for account in ACCOUNTS:  # rich: margin never interferes here
            self.decide(Deposit(account, DEPOSIT))

    def decide(self, command: Command) -> list[ev.Event]:
        self.index += 1
        events = self.exchange.decide(self.index, self.index, command)
        for event in events:
            self.follower.apply(WIRE.decode(msgspec.json.encode(event)))
        return events

    def place(self, terms: PlaceOrder) -> None:
        self.compare(self.decide(terms), lambda: self.plain.place(self.index, terms))

    def cancel(self, order: Order | None) -> None:
        account, name = (order.terms.account, order.terms.cl_ord_id) if order else (1, "none")
        order_id = order.order_id if order else -1
        self.compare(self.decide(CancelOrder(account, name)), lambda: self.plain.cancel(order_id))

    def amend(self, order: Order | None, size: int, price: int | None, stop: int | None) -> None:
        account, name = (order.terms.account, order.terms.cl_ord_id) if order else (1, "none")
        order_id = order.order_id if order else -1
        events = self.decide(AmendOrder(account, name, size, price, stop))
        self.compare(events, lambda: self.plain.amend(order_id, size, price, stop))

    def compare(self, events: list[ev.Event], same: Callable[[], None]) -> None:
        self.plain.log.clear()
        same()
        assert logged(events) == self.plain.log

    def volley(self, seed: int, count: int) -> None:
        """Do `count` random things; the dice favour orders that meet."""
        dice = random.Random(seed)
        for _ in range(count):
            orders = self.exchange.state.orders
            order = orders[dice.choice(list(orders))] if orders else None
            price, stop = 100 + round(dice.gauss(0, 2)), None if dice.random() < 0.8 else 100 + round(dice.gauss(0, 3))
            size, kind = dice.randint(1, 9), dice.random()
            if kind < 0.1:
                self.cancel(order)
            elif kind < 0.25:
                self.amend(order, size, *dice.choice(((price, None), (None, stop), (None, None))))
            elif kind < 0.4:
                self.place(linked_order(dice, dice.choice(ACCOUNTS), X, str(self.index)))
            else:
                rests = dice.random() < 0.6
                market = not rests and dice.random() < 0.3
                life = TimeInForce.GTC if rests else dice.choice((TimeInForce.GTC, TimeInForce.IOC, TimeInForce.FOK))
                self.place(
                    PlaceOrder(
                        dice.choice(ACCOUNTS), X, str(self.index), dice.choice((BUY, SELL)), size, None if market else price,
                        stop, life, rests and dice.random() < 0.1, dice.random() < 0.2,
                        dice.choice((0, min(size, 2))) if rests else 0, dice.choice(list(SelfTrade)),
                    )
                )  # fmt: skip
            self.check_books()
        self.check()

    def check_books(self) -> None:
        """Both have the same queues."""
        for side in (BUY, SELL):
            levels = self.exchange.state.markets[X].book.levels(side)
            assert [(level.price, i, shown) for level in levels for i, shown in level.items()] == self.plain.queue(side)

    def check(self) -> None:
        """Queues, positions and cash agree; everything adds up; the events alone rebuild the state."""
        self.check_books()
        state = self.exchange.state
        state.ledger.audit()
        for number in ACCOUNTS:
            account = state.ledger.accounts[number]
            cost = account.positions[X].cost_units if X in account.positions else 0
            assert account.balance_units - cost == DEPOSIT + self.plain.cash.get(number, 0)
            assert state.ledger.lots(number, X) == self.plain.lots.get(number, 0)
            own = [o for o in state.orders.values() if o.terms.account == number and reserves(o)]
            lots = [sum(o.leaves_lots for o in own if o.terms.side == side) for side in (BUY, SELL)]
            assert account.open_lots.get(X, [0, 0]) == lots
        assert self.follower.digest() == state.digest()


class TwoExchanges(RuleBasedStateMachine):
    """Lives that Hypothesis thinks of."""

    def __init__(self) -> None:
        super().__init__()
        self.twins = Twins()

    prices = st.integers(98, 102)
    stops = st.none() | prices
    sizes = st.integers(1, 9)
    sides = st.sampled_from((BUY, SELL))
    accounts = st.sampled_from(ACCOUNTS)
    lives = st.sampled_from((TimeInForce.GTC, TimeInForce.IOC, TimeInForce.FOK))
    modes = st.sampled_from(SelfTrade)

    @rule(
        account=accounts,
        side=sides,
        size=sizes,
        price=st.none() | prices,
        stop=stops,
        life=lives,
        reduce=st.booleans(),
        stp=modes,
    )
    def place(
        self,
        account: int,
        side: int,
        size: int,
        price: int | None,
        stop: int | None,
        life: TimeInForce,
        reduce: bool,
        stp: SelfTrade,
    ) -> None:
        """Any kind of order."""
        name = str(self.twins.index)
        self.twins.place(PlaceOrder(account, X, name, side, size, price, stop, life, reduce_only=reduce, self_trade=stp))

    @rule(account=accounts, side=sides, size=sizes, price=prices, post=st.booleans(), shown=st.integers(0, 4), stp=modes)
    def rest(self, account: int, side: int, size: int, price: int, post: bool, shown: int, stp: SelfTrade) -> None:
        """Orders that mean to rest: post-only, icebergs."""
        name, shown = str(self.twins.index), min(shown, size)
        self.twins.place(PlaceOrder(account, X, name, side, size, price, None, TimeInForce.GTC, post, False, shown, stp))

    @rule(account=accounts, seed=st.integers(0, 2**32))
    def link(self, account: int, seed: int) -> None:
        """Trailing stops, pairs, brackets."""
        self.twins.place(linked_order(random.Random(seed), account, X, str(self.twins.index)))

    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        self.twins.cancel(self.some_order(data))

    @rule(data=st.data(), size=sizes, price=st.none() | prices, stop=stops)
    def amend(self, data: st.DataObject, size: int, price: int | None, stop: int | None) -> None:
        self.twins.amend(self.some_order(data), size, price, stop)

    @rule(seed=st.integers(0, 2**32))
    def volley(self, seed: int) -> None:
        self.twins.volley(seed, 25)

    def some_order(self, data: st.DataObject) -> Order | None:
        orders = self.twins.exchange.state.orders
        return orders[data.draw(st.sampled_from(sorted(orders)))] if orders else None

    @invariant()
    def the_twins_agree(self) -> None:
        self.twins.check()


TestTwoExchanges = TwoExchanges.TestCase
TestTwoExchanges.settings = settings(max_examples=many(60), stateful_step_count=40, deadline=None)


@pytest.mark.parametrize("seed", range(8))
def test_long_random_lives_agree(seed: int) -> None:
    """600 commands each: deep books, cascades, icebergs in the middle of queues."""
    Twins().volley(seed, 600)
