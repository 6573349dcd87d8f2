"""Tests how INSURANCE gets rid of positions: near the mark, one level a tick, and never at a loss that it cannot pay."""

from __future__ import annotations

from engine.core import commands as cm
from engine.core.commands import BUY, INSURANCE
from engine.core.unwinding import next_order
from tests.engine.core.test_accounts import poor
from tests.engine.core.test_exchange import X, trades


def test_insurance_gets_rid_of_what_it_took_over() -> None:
    """With every tick it trades what the best level shows, if that is within the liquidation fee of the mark."""
    desk = poor(insurance=10_000, liquidation_fee_ppm=20_000)
    desk.do(cm.SetMark(X, 94))
    lots = desk.exchange.state.ledger.lots
    assert lots(INSURANCE, X) == 100
    assert desk.do(cm.Tick()) == []  # nobody offers
    desk.place(2, BUY, 30, 91)
    assert desk.do(cm.Tick()) == []  # too far below the mark
    desk.place(2, BUY, 30, 92)
    desk.place(3, BUY, 10, 92)
    assert trades(desk.do(cm.Tick())) == [(92, 30), (92, 10)]
    assert desk.do(cm.Tick()) == []
    desk.place(2, BUY, 500, 94)
    assert trades(desk.do(cm.Tick())) == [(94, 60)]
    assert lots(INSURANCE, X) == 0


def test_insurance_does_not_trade_while_nobody_may() -> None:
    """While trading is suspended there is no order to place, and so no tick is asked for."""
    desk = poor(insurance=10_000)
    desk.do(cm.SetMark(X, 94))
    desk.place(2, BUY, 10, 94)
    assert next_order(desk.exchange.state, 1) is not None
    desk.do(cm.Suspend("manual"))
    assert next_order(desk.exchange.state, 1) is None
    assert desk.do(cm.Tick()) == []


def test_ticks_come_to_an_end_whoever_stands_in_the_way() -> None:
    """INSURANCE's own bid, bids that cannot be paid and bids with nothing to reduce: after a few ticks nothing happens any more."""
    desk = poor(insurance=10_000)
    desk.do(cm.Deposit(5, 50))
    desk.place(5, BUY, 5, 94)
    desk.do(cm.SetMark(X, 94))
    desk.place(INSURANCE, BUY, 10, 94)
    desk.place(1, BUY, 3, 94, reduce_only=True)
    desk.do(cm.SetMark(X, 93))
    for _ in range(10):
        events = desk.do(cm.Tick())
    assert events == []
    assert next_order(desk.exchange.state, 0) is None
