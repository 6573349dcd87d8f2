"""Bots against the real exchange in process: a live two-sided market, few refusals, bounded orders, the same every time."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable

import pytest

from engine.bots import traders as bt
from engine.bots.market import FAIR_TICKS, LISTED
from engine.bots.traders import Ask, Director, Fate, Look, Quote, Reply
from engine.core import commands as cm
from engine.core import events as ev
from engine.core.commands import BUY, SELL
from engine.core.exchange import Exchange
from engine.stores.message_builder import MessageBuilder

FIRST_ACCOUNT = 1001
STEP_NS = 20_000_000  # 50 commands a second
NOW_NS = 1_795_227_409_000_000_000


class Ring:
    """The real exchange and a director, one command after the other. `fault` may turn a reply into another one."""

    def __init__(self, seed: int, fault: Callable[[Ask], Fate | None] = lambda ask: None) -> None:
        self.exchange, self.index, self.now_ns = Exchange(MessageBuilder), 0, NOW_NS
        self.commands: list[cm.Command] = []
        self.refusals: Counter[str] = Counter()
        self.events: Counter[str] = Counter()
        self.most: Counter[int] = Counter()
        self._fault = fault
        for instrument in LISTED:
            self.do(cm.CreateInstrument(instrument, FAIR_TICKS[instrument.symbol]))
        self.director = Director(seed, f"{seed}-{self.index}", FAIR_TICKS, FIRST_ACCOUNT, self.now_ns)
        for trader in self.director.traders:
            self.do(cm.Deposit(trader.account, 5 * 10**12))
        self.commands.clear()

    @property
    def state(self):  # type: ignore[no-untyped-def]
        return self.exchange.state

    def do(self, command: cm.Command) -> list[ev.Event]:
        self.index += 1
        self.commands.append(command)
        events = self.exchange.decide(self.index, self.now_ns, command)
        self.events.update(type(event).__name__ for event in events)
        return events

    def run(self, count: int) -> None:
        for _ in range(count):
            self.now_ns += STEP_NS
            while (ask := self.director.next(self.now_ns)) is not None:
                if isinstance(ask.command, Look):
                    assert ask.trader is not None
                    self._look(ask.trader)
                    continue
                self.director.on_reply(ask, self._reply(ask))
                break

    def _look(self, trader: bt.Trader) -> None:
        account = self.state.ledger.accounts[trader.account]
        found = {}
        for order_id in account.orders:
            order = self.state.orders[order_id]
            price = order.price_ticks if order.stop_ticks is None else order.stop_ticks
            found[order.terms.cl_ord_id] = Quote(order.terms.side, price or 0, order.size_lots)
        assert found.keys() <= trader.orders.keys(), "an order is open that its bot has forgotten"
        self.director.on_look(trader, found, self.state.ledger.lots(trader.account, trader.symbol))

    def _reply(self, ask: Ask) -> Reply:
        fault = self._fault(ask)
        if fault is Fate.REFUSED:
            return Reply(fault, "EngineBusy")
        assert not isinstance(ask.command, Look)
        events = self.do(ask.command)
        for account in self.state.ledger.accounts.values():
            self.most[account.number] = max(self.most[account.number], len(account.orders))
        if fault is Fate.LOST:
            return Reply(fault)
        for event in events:
            if isinstance(event, ev.OrderRejected | ev.CancelRejected | ev.CommandRejected):
                self.refusals[event.reason.value] += 1
                return Reply(Fate.REFUSED, event.reason.value)
        return Reply(Fate.DONE, "", self._open_lots(ask))

    def _open_lots(self, ask: Ask) -> int:
        if not isinstance(ask.command, cm.PlaceOrder | cm.AmendOrder):
            return 0
        account = self.state.ledger.accounts[ask.command.account]
        order = self.state.orders.get(account.client_ids[ask.command.cl_ord_id])
        return order.leaves_lots if order else 0


@pytest.mark.parametrize("seed", [1, 7, 42])
def test_bots_make_a_market(seed: int) -> None:
    """After two minutes: twenty levels a side around the fair price, trades, marks, every kind of order, next to no refusals."""
    ring = Ring(seed)
    ring.run(6_000)
    ring.state.ledger.audit()
    assert ring.refusals.total() < 0.05 * len(ring.commands), ring.refusals
    assert ring.events["Traded"] > 300
    assert ring.events.keys() >= {"OrderTriggered", "OrderAmended", "OrderStopped", "MarkSet", "FundingCharged", "TimerSet"}
    assert "PositionMoved" not in ring.events, "a bot was liquidated"
    for symbol, walk in ring.director.walks.items():
        book = ring.state.markets[symbol].book
        for side in (BUY, SELL):
            assert len(list(book.levels(side))) >= bt.LEVELS
            best = book.best(side)
            assert best is not None
            assert abs(best - walk.ticks) < 60
        assert abs(ring.state.ledger.contracts[symbol].mark_ticks - walk.ticks) < 60
    assert any(isinstance(c, cm.PlaceOrder) and c.display_lots for c in ring.commands)
    assert any(isinstance(c, cm.PlaceOrder) and c.stop_ticks and c.price_ticks for c in ring.commands)


def test_the_same_seed_gives_the_same_market() -> None:
    """Against the same exchange every command is the same; another seed gives others."""
    first, again, other = Ring(7), Ring(7), Ring(8)
    for ring in (first, again, other):
        ring.run(1_000)
    assert first.commands == again.commands
    assert first.state.digest() == again.state.digest()
    assert first.commands != other.commands


@pytest.mark.parametrize("seed", range(4))
def test_open_orders_stay_bounded_whatever_gets_lost(seed: int) -> None:
    """A third of the replies are lost and some commands never arrive: no bot exceeds its bound, none forgets an order."""
    dice = random.Random(seed)
    fates = [None, None, None, None, Fate.LOST, Fate.LOST, Fate.REFUSED]
    ring = Ring(seed, lambda ask: dice.choice(fates))
    ring.run(6_000)
    assert max(ring.most.values()) <= bt.ORDERS_MAX
    assert ring.events["Traded"] > 200
    ring.state.ledger.audit()


def test_client_ids_are_never_used_twice() -> None:
    """Not by two runs of one seed either: the run's name is in them."""
    names = []
    for run in ("7-100", "7-2000"):
        director = Director(7, run, FAIR_TICKS, FIRST_ACCOUNT, NOW_NS)
        for turn in range(500):
            ask = director.next(NOW_NS + turn * STEP_NS)
            if ask is not None and isinstance(ask.command, cm.PlaceOrder):
                names.append((ask.command.account, ask.command.cl_ord_id))
            if ask is not None and isinstance(ask.command, Look):
                assert ask.trader is not None
                director.on_look(ask.trader, ask.trader.orders, 0)
            elif ask is not None:
                director.on_reply(ask, Reply(Fate.DONE, "", 1))
    assert len(names) > 200
    assert len(set(names)) == len(names)
    assert max(len(name) for _, name in names) <= 64


def test_a_position_beyond_the_limit_is_reduced() -> None:
    """With reduce-only market orders, so that a bot cannot run into liquidation."""
    director = Director(7, "7-1", FAIR_TICKS, FIRST_ACCOUNT, NOW_NS)
    trader = director.traders[0]
    director.on_look(trader, {}, bt.POSITION_LOTS_MAX + 10_000)
    command = trader.next(180_000)
    assert isinstance(command, cm.PlaceOrder)
    assert (command.side, command.reduce_only, command.price_ticks) == (SELL, True, None)


def test_a_busy_bot_is_not_asked() -> None:
    """One command under way a bot; when all are busy there is nothing to do."""
    director = Director(7, "7-1", FAIR_TICKS, FIRST_ACCOUNT, NOW_NS)
    asked = []
    while (ask := director.next(NOW_NS)) is not None:
        asked.append(ask)
    traders = [ask.trader.account for ask in asked if ask.trader is not None]
    assert sorted(traders) == [trader.account for trader in director.traders]
    assert sum(isinstance(ask.command, cm.CancelAllAfter) for ask in asked) == len(director.traders)


def test_the_fair_price_does_not_catch_up_after_a_pause() -> None:
    """An hour without a word is a few steps, not 36,000."""
    director = Director(7, "7-1", FAIR_TICKS, FIRST_ACCOUNT, NOW_NS)
    before = director.walks["BTC-PERP"].ticks
    director.next(NOW_NS + 3_600 * 10**9)
    assert abs(director.walks["BTC-PERP"].ticks - before) < 60
