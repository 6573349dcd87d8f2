"""Tests that large work is done in steps: bounded, on the way over crashes and snapshots, with everybody else in between."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest

from engine.core import commands as cm
from engine.core import events as ev
from engine.core.commands import BUY, CLEARING, INSURANCE, SELL, Leg, More, PlaceOrder, TimeInForce
from engine.core.events import CancelReason, RejectReason
from engine.core.exchange import STEP, Exchange
from engine.core.state import State
from engine.core.work import Work
from engine.recovery.snapshot import restore, snapshot
from engine.stores.message_builder import MessageBuilder
from tests.engine.core.test_exchange import X, reasons, trades
from tests.engine.lives import life

SECOND = 10**9


class Slow:
    """An exchange with small steps and a follower that knows only its events; `do` is one command, `finish` all that is left."""

    def __init__(self, step: int = 8, **terms: int) -> None:
        self.step, self.follower, self.index, self.now_ns = step, State(), 0, 1
        self.exchange = Exchange(MessageBuilder, step=step)
        self.do(cm.CreateInstrument(cm.Instrument(X, **terms), 100))

    @property
    def state(self) -> State:
        return self.exchange.state

    def do(self, command: cm.Command) -> list[ev.Event]:
        self.index += 1
        events = self.exchange.decide(self.index, self.now_ns, command)
        for event in ev.decode(ev.encode(events)):
            self.follower.apply(event)
        self.state.ledger.audit()
        if self.exchange.message:
            self.follower.message_index = self.index
        return events

    def place(self, account: int, side: int, size: int, price: int | None, **terms: object) -> list[ev.Event]:
        return self.do(PlaceOrder(account, X, str(self.index), side, size, price, **terms))  # type: ignore[arg-type]

    def rich(self, *accounts: int) -> None:
        for account in accounts:
            self.do(cm.Deposit(account, 10**9))

    def finish(self) -> list[list[ev.Event]]:
        """Return the events of each step until nothing is left."""
        steps = []
        while self.exchange.busy(self.now_ns):
            steps.append(self.do(cm.Proceed(self.step)))
            assert len(steps) < 10_000, "it never ends"
        return steps

    def crash(self) -> None:
        """Go on with what the events alone have made."""
        assert self.follower.digest() == self.state.digest()
        self.exchange = Exchange(MessageBuilder, self.follower, step=self.step)
        self.follower = restored(self.exchange.state)

    def stored(self) -> None:
        """Go on from a snapshot."""
        self.exchange = Exchange(MessageBuilder, restored(self.exchange.state), step=self.step)


def restored(state: State) -> State:
    found, work = restore(snapshot(state, 1, bytes(16), 1)).state, Work()
    assert found.digest() == state.digest()
    work.restore(state.work.snapshot())
    assert work.snapshot() == found.work.snapshot()
    return found


def traded(steps: list[list[ev.Event]]) -> list[tuple[int, int]]:
    return [trade for events in steps for trade in trades(events)]


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("step", [1, 4, 20])
def test_random_lives_in_small_steps_add_up_over_crashes(seed: int, step: int) -> None:
    """Any command between any two steps: the money adds up, the events alone and a snapshot rebuild the state, the work ends."""
    dice, desk = random.Random(seed), Slow(step)
    left = 0
    for index, (_, time_ns, command) in enumerate(life(seed, 500)):
        desk.now_ns = time_ns
        desk.do(command)
        left += bool(desk.state.work)
        for _ in range(dice.choice((0, 0, 1, 3))):
            if desk.exchange.busy(time_ns):
                desk.do(cm.Proceed(desk.step))
        if index % 10 == 0:
            dice.choice((desk.crash, desk.stored))()
        assert desk.follower.digest() == desk.state.digest()
    assert left > 10 or step > 1, "the life has work to leave"
    for name in sorted(desk.state.suspended):
        desk.do(cm.Resume(name))
    desk.finish()
    assert not desk.state.work
    assert all(account.balance_units >= 0 for account in desk.state.ledger.accounts.values() if not account.positions)
    assert CLEARING not in desk.state.ledger.accounts or not desk.state.ledger.accounts[CLEARING].balance_units
    assert desk.follower.digest() == desk.state.digest()


def test_an_order_trades_in_steps_and_others_in_between() -> None:
    """It is in no book meanwhile; its margin stays reserved; another one may come first; in the end it rests."""
    desk = Slow(step=6)
    desk.rich(1, 2, 3)
    for _ in range(40):
        desk.place(1, SELL, 1, 100)
    events = desk.place(2, BUY, 50, 100)
    assert len(events) <= 6 + 2
    assert [type(event) for event in events[-2:]] == [ev.OrderPaused, ev.SuspectsNoted]
    (order_id,) = desk.state.work.entering
    order = desk.state.orders[order_id]
    assert desk.state.ledger.accounts[2].open_lots[X][BUY] == order.leaves_lots
    assert trades(desk.place(3, BUY, 2, 100)) == [(100, 1), (100, 1)]
    desk.crash()
    steps = desk.finish()
    assert max(map(len, steps)) <= 6
    assert sum(size for _, size in traded([events, *steps])) == 38
    assert (order.resting, desk.state.orders[order_id].resting, desk.state.orders[order_id].leaves_lots) == (False, True, 12)


@pytest.mark.parametrize("how", ["cancel", "amend", "kill", "expire"])
def test_an_order_that_is_entering_is_an_open_order(how: str) -> None:
    """It can be cancelled, amended, killed, and it expires."""
    desk = Slow(step=4)
    desk.rich(1, 2)
    for _ in range(20):
        desk.place(1, SELL, 1, 100)
    desk.now_ns = SECOND
    desk.do(PlaceOrder(2, X, "big", BUY, 30, 100, time_in_force=TimeInForce.GTD, expire_ns=2 * SECOND))
    (order_id,) = desk.state.work.entering
    if how == "cancel":
        assert reasons(desk.do(cm.CancelOrder(2, "big"))) == [CancelReason.REQUESTED]
    elif how == "kill":
        assert reasons(desk.do(cm.KillSwitch(2, True))) == [CancelReason.KILLED]
    elif how == "amend":
        desk.do(cm.AmendOrder(2, "big", price_ticks=99))
        assert desk.state.orders[order_id].resting
    else:
        desk.now_ns = 2 * SECOND
        assert CancelReason.EXPIRED in reasons(desk.do(cm.Proceed(desk.step)))
    assert not desk.state.work.entering
    assert traded(desk.finish()) == []


@pytest.mark.parametrize("price", [None, 100])
def test_what_is_not_to_rest_is_cancelled_after_its_last_step(price: int | None) -> None:
    """A market order and an IOC."""
    desk = Slow(step=4)
    desk.rich(1, 2)
    for _ in range(20):
        desk.place(1, SELL, 1, 100)
    events = desk.place(2, BUY, 30, price, time_in_force=TimeInForce.IOC)
    steps = [events, *desk.finish()]
    assert len(traded(steps)) == 20
    assert reasons(steps[-1]) == [CancelReason.UNFILLED]


def test_fill_or_kill_is_bounded_because_it_cannot_be_divided() -> None:
    """500 orders fill it, 501 do not."""
    for count, filled in ((500, 500), (501, 0)):
        desk = Slow(step=8)
        desk.rich(1, 2)
        for _ in range(count):
            desk.place(1, SELL, 1, 100)
        assert len(trades(desk.place(2, BUY, count, 100, time_in_force=TimeInForce.FOK))) == filled


def test_orders_that_are_due_do_not_trade_before_they_are_cancelled() -> None:
    """100 expire at once, 4 a step: whoever comes meanwhile meets none of them, and cancels those in his way."""
    desk = Slow(step=4)
    desk.rich(1, 2, 3)
    for _ in range(100):
        desk.place(1, SELL, 1, 100, time_in_force=TimeInForce.GTD, expire_ns=5 * SECOND)
    desk.place(3, SELL, 1, 101)
    desk.now_ns = 5 * SECOND
    events = desk.place(2, BUY, 3, 101)
    assert len(events) <= 10
    assert trades([*events, *(event for events in desk.finish() for event in events)]) == [(101, 1)]
    assert [order.terms.account for order in desk.state.orders.values()] == [2]


def test_accounts_that_were_not_heard_of_lose_their_orders_in_steps() -> None:
    """An account whose time has run out and that comes back first loses what it had."""
    desk = Slow(step=4)
    desk.rich(*range(1, 20))
    for account in range(1, 20):
        for price in (101, 102, 103):
            desk.place(account, SELL, 1, price)
        desk.do(cm.CancelAllAfter(account, SECOND))
    desk.now_ns += SECOND
    events = desk.place(19, SELL, 1, 104, post_only=True)
    assert reasons(events)[-3:] == [CancelReason.TIMER] * 3
    assert trades(desk.place(18, BUY, 60, 103, time_in_force=TimeInForce.IOC)) == []
    desk.finish()
    assert [order.terms.account for order in desk.state.orders.values()] == [19]


def test_exits_follow_in_the_step_of_the_fill() -> None:
    """A crash right behind a step that had no room left does not forget them."""
    for step in (2, 3, 4):
        desk = Slow(step=step)
        desk.rich(1, 2)
        for _ in range(3):
            desk.place(1, SELL, 1, 100)
        desk.do(PlaceOrder(2, X, "in", BUY, 3, 100, more=More(take_profit=Leg("out", price_ticks=120))))
        while desk.exchange.busy(1):
            desk.crash()
            desk.do(cm.Proceed(step))
        assert [(o.terms.cl_ord_id, o.held, o.size_lots) for o in desk.state.orders.values()] == [("out", False, 3)]


def held(desk: Slow, count: int, lots: int = 10) -> None:
    """Let accounts from 100 on be long, and account 1 short of all of it."""
    desk.rich(1, *range(100, 100 + count))
    desk.place(1, SELL, lots * count, 100)
    for account in range(100, 100 + count):
        desk.place(account, BUY, lots, 100)
    desk.finish()


@pytest.mark.parametrize("rate", [10_000, -10_000])
@pytest.mark.parametrize("between", ["crash", "stored", None])
def test_funding_in_steps_charges_what_was_held_when_it_began(rate: int, between: str | None) -> None:
    """One mark, one rate: whoever trades, comes, goes or withdraws meanwhile pays what he would have paid at once."""

    def charged(step: int, meanwhile: Callable[[Slow], None]) -> dict[int, int]:
        desk = Slow(step=step)
        held(desk, 40)
        before = {number: account.balance_units for number, account in desk.state.ledger.accounts.items()}
        desk.do(cm.Fund(X, rate))
        meanwhile(desk)
        desk.finish()
        assert CLEARING not in desk.state.ledger.accounts or not desk.state.ledger.accounts[CLEARING].balance_units
        now = desk.state.ledger.accounts
        return {n: now[n].balance_units - units - desk.moved.get(n, 0) for n, units in before.items()}  # type: ignore[attr-defined]

    def trade(desk: Slow) -> None:
        desk.moved = {}  # type: ignore[attr-defined]
        desk.rich(7)
        assert (desk.state.work.fundings == {}) == (desk.step > 40)
        desk.do(cm.SetMark(X, 101))
        for account in (139, 7, 100):
            desk.place(account, SELL, 10, 100)
            desk.place(account % 100 + 1, BUY, 10, 100)
            if desk.exchange.busy(1):
                desk.do(cm.Proceed(desk.step))
            if between:
                getattr(desk, between)()
        desk.do(cm.Withdraw(120, 1_000))
        desk.moved = {120: -1_000}  # type: ignore[attr-defined]

    assert charged(8, trade) == charged(1_000, trade)


def test_a_second_funding_waits_for_the_first_one() -> None:
    """It is refused; afterwards it is charged."""
    desk = Slow(step=8)
    held(desk, 40)
    desk.do(cm.Fund(X, 100))
    assert desk.do(cm.Fund(X, 100)) == [ev.CommandRejected("Fund", RejectReason.FUNDING_UNDER_WAY)]
    desk.finish()
    assert isinstance(desk.do(cm.Fund(X, 100))[0], ev.FundingBegun)


def test_a_mark_looks_at_many_holders_in_steps_and_starts_no_holder_over() -> None:
    """Marks that come faster than a round is done do not keep the last ones from their turn."""
    desk = Slow(step=8)
    desk.do(cm.Deposit(INSURANCE, 10**12))
    held(desk, 100)
    desk.do(cm.Withdraw(199, 10**9 - 110))  # long 10 at 100: closed when the mark is at 93 or below
    desk.do(cm.SetMark(X, 93))
    for turn in range(100):
        desk.do(cm.SetMark(X, 92 + turn % 2))
        desk.do(cm.Proceed(desk.step))
        desk.crash()
        if desk.state.ledger.lots(199, X) == 0:
            break
    assert desk.state.ledger.lots(199, X) == 0
    desk.finish()
    assert not desk.state.work.reviews


def test_a_position_goes_to_many_others_in_steps() -> None:
    """Without insurance: each takes and pays his part, nobody stays below zero, the rest is done by later steps."""
    desk = Slow(step=8)
    desk.rich(1)
    desk.do(cm.Deposit(2, 6_500))
    desk.rich(*range(100, 160))
    for account in range(100, 160):
        desk.place(account, SELL, 10, 100)
    desk.place(2, BUY, 600, 100)
    desk.finish()
    desk.do(cm.SetMark(X, 80))
    steps = desk.finish()
    assert desk.state.ledger.lots(2, X) == 0
    assert max(map(len, steps)) < 30
    assert desk.state.ledger.accounts[2].balance_units >= 0
    paid = [-(desk.state.ledger.equity_units(desk.state.ledger.accounts[n]) - 10**9 - 200) for n in range(100, 160)]
    assert max(paid) - min(paid) <= 2, "12,000 were lost and 6,500 there: each pays the same"


def test_stops_trigger_in_steps() -> None:
    """One trade reaches 100 of them; the order in which they trigger is that of one command."""

    def lived(step: int) -> tuple[list[tuple[int, int]], str]:
        desk = Slow(step=step)
        desk.rich(1, 2, 3)
        for number in range(100):
            desk.place(1, SELL, 1, 101 + number // 10)
            desk.place(2, BUY, 1, None, stop_ticks=101 + number % 7)
        events = desk.place(3, BUY, 1, 101)
        return traded([events, *desk.finish()]), desk.state.digest()

    assert len(lived(8)[0]) > 50
    assert lived(8) == lived(10_000)


def test_an_ordinary_command_is_one_step() -> None:
    """Nothing is left of what fits."""
    desk = Slow(step=STEP)
    held(desk, 40)
    assert isinstance(desk.do(cm.Fund(X, 100))[0], ev.FundingCharged)
    desk.do(cm.SetMark(X, 101))
    assert not desk.exchange.busy(desk.now_ns)
    assert not desk.state.work


def test_what_is_closed_leaves_the_heaps() -> None:
    """Orders that end long before their time, and timers that are set anew, take no room for ever; what is due still is found."""
    desk = Slow(step=STEP)
    desk.rich(1)
    for number in range(5_000):
        desk.do(PlaceOrder(1, X, f"e{number}", BUY, 1, 90, time_in_force=TimeInForce.GTD, expire_ns=SECOND * (1 + number)))
        desk.do(cm.CancelAllAfter(1, 10 * SECOND))
        if number < 4_990:
            desk.do(cm.CancelOrder(1, f"e{number}"))
    assert len(desk.state.expiries) < 1_100
    assert len(desk.state.timers) < 1_100
    desk.do(cm.CancelAllAfter(1, 0))
    desk.now_ns = SECOND * 4_995
    desk.do(cm.Tick())
    assert len(desk.state.orders) == 5
