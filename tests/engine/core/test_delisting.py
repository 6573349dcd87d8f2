"""Tests of the end of a contract: refused while somebody has something in it, or closed at the mark, in steps, over crashes."""

from __future__ import annotations

import pytest

from engine.core import commands as cm
from engine.core import events as ev
from engine.core.commands import BUY, CLEARING, INSURANCE, SELL, Leg, More, PlaceOrder, Trail
from engine.core.events import CancelReason, MoveReason, RejectReason
from tests.engine.core.test_exchange import X, reasons
from tests.engine.core.test_steps import Slow, held, traded


def refused(events: list[ev.Event]) -> list[RejectReason]:
    return [one.reason for one in events if isinstance(one, ev.CommandRejected | ev.OrderRejected | ev.CancelRejected)]


def test_an_empty_contract_is_delisted_at_once_and_for_good() -> None:
    """Nothing can be done with it afterwards, and its name is taken; deposits and other contracts do not notice."""
    desk = Slow()
    desk.rich(1)
    desk.do(cm.CreateInstrument(cm.Instrument("Y"), 50))
    assert desk.do(cm.Delist(X)) == [ev.InstrumentDelisted(X)]
    for command in (cm.Delist(X), cm.Delist(X, True), cm.SetMark(X, 90), cm.Fund(X, 1), PlaceOrder(1, X, "a", BUY, 1, 100)):
        assert refused(desk.do(command)) == [RejectReason.DELISTED]
    assert refused(desk.do(cm.CreateInstrument(cm.Instrument(X), 100))) == [RejectReason.DUPLICATE_SYMBOL]
    assert refused(desk.do(cm.Delist("none"))) == [RejectReason.UNKNOWN_SYMBOL]
    desk.crash()
    desk.stored()
    assert refused(desk.do(cm.SetMark(X, 90))) == [RejectReason.DELISTED]
    assert refused(desk.do(PlaceOrder(1, "Y", "a", BUY, 1, 50))) == []


def test_what_is_open_refuses_it() -> None:
    """An order, a waiting stop, a held exit, a position; a suspension; a funding under way. Nothing changes."""
    desk = Slow()
    held(desk, 20)
    before = desk.state.digest()
    assert refused(desk.do(cm.Delist(X))) == [RejectReason.OPEN_POSITIONS]
    desk.do(cm.Suspend("manual"))
    assert refused(desk.do(cm.Delist(X, True))) == [RejectReason.SUSPENDED]
    desk.do(cm.Resume("manual"))
    desk.finish()
    assert desk.state.digest() == before
    desk.place(1, BUY, 1, None, stop_ticks=120)
    assert refused(desk.do(cm.Delist(X))) == [RejectReason.OPEN_ORDERS]
    desk.do(cm.Fund(X, 100))
    assert refused(desk.do(cm.Delist(X, True))) == [RejectReason.FUNDING_UNDER_WAY]


@pytest.mark.parametrize("between", ["crash", "stored", None])
def test_orders_and_positions_are_closed_in_steps(between: str | None) -> None:
    """Each gets what its position is worth at the mark; nobody trades meanwhile; a suspension makes it wait."""
    desk = Slow(step=8)
    held(desk, 40)
    desk.do(cm.Deposit(INSURANCE, 1_000))
    for number in range(30):
        desk.place(1, SELL, 1, 103 + number % 5)
        desk.do(PlaceOrder(1, X, f"t{number}", BUY, 1, None, stop_ticks=120, more=More(trail=Trail(ticks=5))))
    exits = More(take_profit=Leg("profit", price_ticks=130), stop_loss=Leg("loss", stop_ticks=80))
    desk.do(PlaceOrder(2, X, "in", BUY, 5, 95, more=exits))
    desk.rich(2)
    desk.do(PlaceOrder(2, X, "in2", BUY, 5, 95, more=exits))
    desk.do(cm.SetMark(X, 101))
    desk.finish()
    accounts = desk.state.ledger.accounts
    worth = {number: desk.state.ledger.equity_units(account) for number, account in accounts.items()}
    count, steps = len(desk.state.orders), [desk.do(cm.Delist(X, True))]
    assert desk.state.work.delistings == {X: None}
    assert refused(desk.place(2, BUY, 1, 103)) == [RejectReason.DELISTED]
    assert refused(desk.do(cm.AmendOrder(1, "t29", 2))) == [RejectReason.DELISTED]
    desk.do(cm.Suspend("manual"))
    assert desk.finish() == []
    desk.do(cm.Resume("manual"))
    while desk.exchange.busy(1):
        if between:
            getattr(desk, between)()
        steps.append(desk.do(cm.Proceed(8)))
    events = [event for step in steps for event in step]
    assert (traded(steps), len(reasons(events))) == ([], count)
    assert set(reasons(events)) == {CancelReason.DELISTED, CancelReason.LINKED}
    assert max(map(len, steps)) < 25
    moves = [event for event in events if isinstance(event, ev.PositionMoved)]
    assert {(move.taker, move.reason) for move in moves} == {(CLEARING, MoveReason.SETTLEMENT)}
    assert len(moves) == 41
    assert not desk.state.orders
    assert not desk.state.ledger.contracts[X].holders
    accounts = desk.state.ledger.accounts
    assert {number: account.balance_units for number, account in accounts.items() if number != CLEARING} == worth
    assert (accounts[CLEARING].balance_units, events[-1]) == (0, ev.InstrumentDelisted(X))


def test_steps_are_the_same_over_a_crash() -> None:
    """The journal has what an uninterrupted exchange would have written, also when INSURANCE takes a position over meanwhile."""

    def lived(crashing: bool) -> list[list[ev.Event]]:
        desk = Slow(step=8)
        held(desk, 30)
        desk.do(cm.CreateInstrument(cm.Instrument("Y"), 100))
        desk.do(cm.Deposit(INSURANCE, 10**8))
        for account, side in ((120, BUY), (2, SELL)):
            desk.rich(account)
            desk.do(PlaceOrder(account, "Y", "y", side, 10_000_000, 100))
        desk.finish()
        told = [desk.do(cm.Delist(X, True)), desk.do(cm.Proceed(8)), desk.do(cm.SetMark("Y", 1))]
        while desk.exchange.busy(1):
            if crashing:
                desk.crash()
            told.append(desk.do(cm.Proceed(8)))
        assert not desk.state.work
        assert not desk.state.ledger.contracts[X].holders
        return told

    assert lived(True) == lived(False)
