"""What orders do that belong together, one rule a test; random lives of them are in `test_matching.py` and `test_solvency.py`."""

from __future__ import annotations

import msgspec
import pytest

from engine.core import commands as cm
from engine.core import events as ev
from engine.core.commands import BUY, SELL, AmendOrder, Leg, More, PlaceOrder, TimeInForce, Trail
from engine.core.events import CancelReason, RejectReason
from engine.core.linked import LEG_STEP
from engine.core.state import Order
from tests.engine.core.test_exchange import Desk, X, reasons, trades

LINKED, REQUESTED = CancelReason.LINKED, CancelReason.REQUESTED


def pair(desk: Desk, size: int = 10, **terms: object) -> list[ev.Event]:
    """Sell at 105, or when 95 is traded."""
    return desk.place(1, SELL, size, 105, name="up", oco=Leg("down", stop_ticks=95), **terms)


def bracket(desk: Desk, size: int = 10, price: int | None = 100, **terms: object) -> list[ev.Event]:
    """Buy, take the profit at 105, stop the loss at 95."""
    exits = {"take_profit": Leg("profit", price_ticks=105), "stop_loss": Leg("loss", stop_ticks=95), **terms}
    return desk.place(1, BUY, size, price, name="entry", **exits)


def open_orders(desk: Desk, account: int = 1) -> dict[str, int]:
    """Return client id → open lots."""
    state = desk.exchange.state
    orders = (state.orders[order_id] for order_id in state.ledger.accounts[account].orders)
    return {order.terms.cl_ord_id: order.leaves_lots for order in orders}


def order(desk: Desk, name: str) -> Order:
    state = desk.exchange.state
    return state.orders[state.ledger.accounts[1].client_ids[name]]


def trade_at(desk: Desk, *prices: int) -> None:
    for price in prices:
        desk.place(2, SELL, 1, price)
        desk.place(3, BUY, 1, price)


def test_a_pair_is_accepted_as_one_command() -> None:
    """Both have ids of their own, named after the command; neither counts the other's lots."""
    desk = Desk()
    accepted = [event.order_id for event in pair(desk) if isinstance(event, ev.OrderAccepted)]
    assert accepted == [desk.index, desk.index + LEG_STEP]
    assert desk.exchange.state.ledger.accounts[1].open_lots[X] == [0, 10]


def test_what_one_of_a_pair_trades_the_other_may_not() -> None:
    """A partial fill reduces the other in the same command, in its place; a whole one cancels it."""
    desk = Desk()
    pair(desk)
    assert trades(desk.place(2, BUY, 4, 105)) == [(105, 4)]
    assert open_orders(desk) == {"up": 6, "down": 6}
    events = desk.place(2, BUY, 9, 105)
    assert (trades(events), reasons(events), open_orders(desk)) == ([(105, 6)], [LINKED], {})


def test_a_pair_never_trades_twice_in_one_sweep() -> None:
    """Both rest at the same side: the second is reduced before the taker reaches it; fill-or-kill counts them once."""
    desk = Desk()
    desk.place(1, SELL, 10, 105, name="a", oco=Leg("b", price_ticks=106))
    fok = PlaceOrder(2, X, "fok", BUY, 11, 106, None, TimeInForce.FOK)
    assert reasons(desk.do(fok)) == [CancelReason.FILL_OR_KILL]
    assert trades(desk.place(2, BUY, 20, 106, time_in_force=TimeInForce.IOC)) == [(105, 10)]
    assert desk.exchange.state.ledger.lots(1, X) == -10


def test_a_triggered_stop_cancels_the_other() -> None:
    """Before it enters: what it trades has no limit on the other side of the market any more."""
    desk = Desk()
    pair(desk)
    desk.place(2, BUY, 10, 94)
    desk.place(2, SELL, 1, 95)
    events = desk.place(3, BUY, 1, 95)
    kinds = [type(event).__name__ for event in events]
    assert kinds[-3:] == ["OrderTriggered", "OrderCanceled", "Traded"]
    assert (trades(events)[-1], open_orders(desk)) == ((94, 10), {})


@pytest.mark.parametrize("name", ["up", "down"])
def test_whoever_cancels_one_of_a_pair_cancels_both(name: str) -> None:
    """The owner; and an end, a timer, the kill switch, a cancel-all."""
    desk = Desk()
    pair(desk)
    assert reasons(desk.do(cm.CancelOrder(1, name))) == [REQUESTED, LINKED]
    for command in (cm.CancelAll(1), cm.KillSwitch(1, True)):
        desk = Desk()
        pair(desk)
        assert reasons(desk.do(command))[1] == LINKED
        assert open_orders(desk) == {}
    desk = Desk()
    pair(desk, time_in_force=TimeInForce.GTD, expire_ns=50)
    assert reasons(desk.do(cm.Tick(), 50)) == [CancelReason.EXPIRED, LINKED]


def test_less_of_one_is_less_of_both_and_more_is_refused() -> None:
    """Prices are each one's own."""
    desk = Desk()
    pair(desk)
    desk.do(AmendOrder(1, "up", 7, 106))
    assert (open_orders(desk), desk.queue(SELL)) == ({"up": 7, "down": 7}, [(106, 7)])
    assert desk.refusal(AmendOrder(1, "down", 8)) == RejectReason.INVALID_COMBINATION
    desk.do(AmendOrder(1, "down", stop_ticks=90))
    assert order(desk, "down").stop_ticks == 90


def test_a_pair_is_refused_as_a_whole() -> None:
    """Also when only the second cannot be: its margin, on the other side, and its fees are asked together with the first's."""
    desk = Desk(taker_fee_ppm=10_000)
    desk.do(cm.Deposit(4, 1_000))
    base = PlaceOrder(4, X, "a", BUY, 50, 95)
    bad = {
        RejectReason.INVALID_PRICE: Leg("b", price_ticks=0),
        RejectReason.INVALID_COMBINATION: Leg("a", price_ticks=105),
        RejectReason.INVALID_SIDE: Leg("b", side=7, price_ticks=105),
        RejectReason.MARGIN: Leg("b", side=SELL, price_ticks=60),
    }
    for reason, leg in bad.items():
        assert desk.refusal(msgspec.structs.replace(base, more=More(oco=leg))) == reason
    other = Leg("b", side=SELL, price_ticks=105)
    three = msgspec.structs.replace(base, more=More(oco=other, stop_loss=Leg("c", stop_ticks=90)))
    assert desk.refusal(three) == RejectReason.INVALID_COMBINATION
    for terms in ({"price_ticks": None}, {"time_in_force": TimeInForce.IOC}, {"display_lots": 5}):
        order = msgspec.structs.replace(base, more=More(oco=other), **terms)
        assert desk.refusal(order) == RejectReason.INVALID_COMBINATION


def test_exits_follow_the_fills_of_their_entry() -> None:
    """Held before, live with what is filled, cancelled as a pair by the profit; then nothing is left of the entry either."""
    desk = Desk()
    bracket(desk)
    assert order(desk, "profit").held
    assert desk.queue(SELL) == []
    desk.place(2, SELL, 4, 100)
    assert (open_orders(desk), desk.queue(SELL)) == ({"entry": 6, "profit": 4, "loss": 4}, [(105, 4)])
    desk.place(2, SELL, 2, 100)
    assert open_orders(desk) == {"entry": 4, "profit": 6, "loss": 6}
    events = desk.place(3, BUY, 5, 105)
    assert (trades(events), open_orders(desk)) == ([(105, 5)], {"profit": 1, "loss": 1})
    desk.place(3, BUY, 5, 105)
    assert (open_orders(desk), desk.exchange.state.ledger.lots(1, X)) == ({}, 0)


def test_a_market_entry_has_its_exits_in_the_same_command() -> None:
    """They are live when the command ends, before stops are looked at: a loss that is due closes at once."""
    desk = Desk()
    desk.place(2, SELL, 10, 101)
    bracket(desk, price=None)
    assert open_orders(desk) == {"profit": 10, "loss": 10}
    desk.place(3, BUY, 10, 94)
    desk.place(2, SELL, 1, 95)
    assert trades(desk.place(3, BUY, 1, 95))[-1] == (94, 10)
    assert open_orders(desk) == {}


def test_an_entry_that_never_traded_takes_its_exits_along() -> None:
    """One that did leaves them what is filled; an exit that is cancelled ends all of it."""
    desk = Desk()
    bracket(desk)
    assert reasons(desk.do(cm.CancelOrder(1, "entry"))) == [REQUESTED, LINKED, LINKED]
    desk = Desk()
    bracket(desk)
    desk.place(2, SELL, 4, 100)
    assert reasons(desk.do(cm.CancelOrder(1, "entry"))) == [REQUESTED]
    assert open_orders(desk) == {"profit": 4, "loss": 4}
    desk = Desk()
    bracket(desk)
    desk.place(2, SELL, 4, 100)
    assert len(reasons(desk.do(cm.CancelOrder(1, "loss")))) == 3
    assert open_orders(desk) == {}


def test_exits_only_close() -> None:
    """What was closed by hand they do not sell again, and what is left of the entry goes with them."""
    desk = Desk()
    bracket(desk)
    desk.place(2, SELL, 4, 100)
    desk.place(2, BUY, 4, 101)
    desk.place(1, SELL, 4, 101)
    events = desk.place(3, BUY, 5, 105)
    assert (trades(events), reasons(events)) == ([], [CancelReason.REDUCE_ONLY, LINKED, LINKED])


def test_a_bracket_is_refused_as_a_whole() -> None:
    """The profit is a limit beyond the entry, the loss a stop before it; three orders need three names and three places."""
    desk = Desk()
    profit, loss = Leg("p", price_ticks=105), Leg("l", stop_ticks=95)
    good = PlaceOrder(1, X, "e", BUY, 5, 100, more=More(take_profit=profit, stop_loss=loss))
    replace = msgspec.structs.replace
    wrong = {
        RejectReason.INVALID_PRICE: [Leg("p", price_ticks=100), Leg("p", price_ticks=94)],
        RejectReason.INVALID_COMBINATION: [Leg("l", price_ticks=105), Leg("p", stop_ticks=105), Leg("p", SELL, 105)],
    }
    for reason, legs in wrong.items():
        for leg in legs:
            assert desk.refusal(replace(good, more=More(take_profit=leg, stop_loss=loss))) == reason
    for bad, reason in ((Leg("l", stop_ticks=100), RejectReason.INVALID_PRICE), (Leg("l"), RejectReason.INVALID_COMBINATION)):
        assert desk.refusal(replace(good, more=More(take_profit=profit, stop_loss=bad))) == reason
    assert desk.refusal(replace(good, reduce_only=True)) == RejectReason.INVALID_COMBINATION
    desk.do(good)
    assert desk.refusal(replace(good, cl_ord_id="e2")) == RejectReason.DUPLICATE_CL_ORD_ID
    assert desk.refusal(AmendOrder(1, "p", 4)) == RejectReason.INVALID_COMBINATION  # its size comes with the fills
    assert desk.do(AmendOrder(1, "p", price_ticks=104))


def test_an_account_that_is_liquidated_loses_its_linked_orders_too() -> None:
    """Each once."""
    desk = Desk()
    desk.do(cm.Deposit(4, 1_000))
    desk.do(cm.Deposit(cm.INSURANCE, 10_000))
    desk.place(1, SELL, 90, 100)
    desk.do(
        PlaceOrder(4, X, "e", BUY, 90, 100, more=More(take_profit=Leg("p", price_ticks=105), stop_loss=Leg("l", stop_ticks=50)))
    )
    desk.do(PlaceOrder(4, X, "a", BUY, 1, 90, more=More(oco=Leg("b", stop_ticks=120))))
    assert len(reasons(desk.do(cm.SetMark(X, 92)))) == 4
    assert open_orders(desk, 4) == {}


def test_nothing_trails_and_nothing_follows_while_trading_is_suspended() -> None:
    """Cancels go through links; after the resumption all is where it was."""
    desk = Desk()
    bracket(desk)
    pair(desk)
    desk.place(1, SELL, 5, None, name="t", trail=Trail(3))
    desk.do(cm.Suspend("manual"))
    assert reasons(desk.do(cm.CancelOrder(1, "up"))) == [REQUESTED, LINKED]
    desk.do(cm.Resume("manual"))
    assert open_orders(desk) == {"entry": 10, "profit": 10, "loss": 10, "t": 5}
    assert order(desk, "t").stop_ticks == 97
