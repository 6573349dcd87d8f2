"""Tests of `engine.core.cancels`: mass cancels go in steps, over crashes and snapshots, and are in force from the command on."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from engine.core import commands as cm
from engine.core import events as ev
from engine.core.commands import BUY, INSURANCE, SELL, Leg, More, PlaceOrder, TimeInForce
from engine.core.events import CancelReason, RejectReason
from tests.engine.core.test_exchange import X, reasons
from tests.engine.core.test_steps import SECOND, Slow, traded


def killed(desk: Slow) -> list[ev.Event]:
    return desk.do(cm.KillSwitch(1, True))


def canceled_all(desk: Slow) -> list[ev.Event]:
    return desk.do(cm.CancelAll(1, X))


def timed_out(desk: Slow) -> list[ev.Event]:
    desk.do(cm.CancelAllAfter(1, SECOND))
    desk.now_ns += SECOND
    return desk.do(cm.Tick())


def liquidated(desk: Slow) -> list[ev.Event]:
    desk.do(cm.Deposit(INSURANCE, 10**9))
    desk.place(3, BUY, 10, 100)
    desk.place(1, SELL, 10, 100)
    desk.do(cm.Withdraw(1, desk.state.ledger.accounts[1].balance_units - 6_000))
    return desk.do(cm.SetMark(X, 800))


@pytest.mark.parametrize("how", [killed, canceled_all, timed_out, liquidated])
@pytest.mark.parametrize("between", ["crash", "stored", None])
def test_mass_cancels_go_in_steps(how: Callable[[Slow], list[ev.Event]], between: str | None) -> None:
    """From the command on all of them are as good as cancelled: none trades, reserves money, or can be found by its owner."""
    desk = Slow(step=8)
    desk.rich(1, 2, 3)
    for number in range(100):
        if number % 10 == 0:
            desk.do(PlaceOrder(1, X, f"pair{number}", SELL, 3, 110, more=More(oco=Leg(f"o{number}", stop_ticks=90))))
            continue
        desk.place(1, SELL, 1, 101 + number % 9, stop_ticks=99 if number % 7 == 0 else None)
    count = len(desk.state.ledger.accounts[1].orders)
    events = how(desk)
    open_ids = list(desk.state.ledger.accounts[1].orders)
    assert len(events) < 30
    assert all(desk.state.noted(order) for order in desk.state.orders.values() if order.terms.account == 1)
    assert count > len(open_ids) > 50
    assert not desk.state.ledger.accounts[1].open_lots
    name = desk.state.orders[open_ids[-1]].terms.cl_ord_id
    assert desk.do(cm.CancelOrder(1, name))[-1] == ev.CancelRejected(1, name, RejectReason.UNKNOWN_ORDER)
    if between:
        getattr(desk, between)()
    steps = [desk.place(2, BUY, 200, 109, time_in_force=TimeInForce.IOC)]
    desk.do(cm.Suspend("manual"))
    again = desk.do(cm.CancelAll(1))
    assert not [event for event in again if isinstance(event, ev.CancelsNoted)]
    steps += desk.finish()
    assert traded(steps) == []
    assert max(map(len, steps)) < 30
    assert not desk.state.ledger.accounts[1].orders
    assert not desk.state.work.cancels


def test_many_who_cancel_at_one_moment_make_nobody_wait() -> None:
    """The first one's orders go at once as far as there is room, the others' are noted in one event each; few are no work."""
    desk = Slow(step=16)
    desk.rich(*range(1, 8))
    for account in range(1, 8):
        for number in range(50 if account < 7 else 3):
            desk.place(account, SELL, 1, 101 + number)
    sizes = [len(desk.do(cm.CancelAll(account, X if account % 2 else None))) for account in range(1, 7)]
    assert sizes == [17, 1, 1, 1, 1, 1]
    assert reasons(desk.do(cm.CancelAll(7))) == [CancelReason.REQUESTED] * 3
    desk.place(1, SELL, 1, 101)
    steps = desk.finish()
    assert max(map(len, steps)) <= 17
    assert [order.terms.account for order in desk.state.orders.values()] == [1]
    assert not desk.state.work.cancels


def test_who_cancelled_all_may_place_at_once() -> None:
    """1,000 orders on all the margin there is: the next ones are accepted before the others are taken out."""
    desk = Slow(step=16)
    desk.do(cm.Deposit(1, 11_500))
    for number in range(1_000):
        desk.place(1, SELL, 1, 101 + number % 9)
    refused = desk.place(1, SELL, 1, 101)[-1]
    assert isinstance(refused, ev.OrderRejected)
    assert refused.reason is RejectReason.TOO_MANY_ORDERS
    noted = next(one for one in desk.do(cm.CancelAll(1)) if isinstance(one, ev.CancelsNoted))
    assert len(noted.order_ids) == 984
    for _ in range(200):
        assert reasons(desk.place(1, SELL, 5, 110))[-1:] in ([], [CancelReason.REQUESTED])
    assert sum(o.terms.size_lots == 5 for o in desk.state.orders.values()) == 200
