"""Tests money by worked examples, then by random lives in which none is made or lost and nobody ends below zero."""

from __future__ import annotations

import random

import pytest

from engine.core import commands as cm
from engine.core import events as ev
from engine.core.accounts import fee_units
from engine.core.commands import BUY, FEES, INSURANCE, SELL, PlaceOrder, SelfTrade, TimeInForce
from engine.core.events import CancelReason, MoveReason
from engine.core.exchange import Exchange
from engine.core.liquidation import Liquidation
from engine.core.solvency import Solvency
from engine.core.state import State
from engine.stores.message_builder import MessageBuilder
from tests.engine.core.test_exchange import Desk, X


def balance(desk: Desk, account: int) -> int:
    return desk.exchange.state.ledger.account(account).balance_units


def meet(desk: Desk, seller: int, buyer: int, lots: int, price: int) -> None:
    """Let two accounts trade."""
    desk.place(seller, SELL, lots, price)
    desk.place(buyer, BUY, lots, price)


def poor(insurance: int = 0, **terms: int) -> Desk:
    """Return an exchange where account 4 is long 100 from account 1 at 100, with 1,000 of its own."""
    desk = Desk(**terms)
    if insurance:
        desk.do(cm.Deposit(INSURANCE, insurance))
    desk.do(cm.Deposit(4, 1_000))
    meet(desk, 1, 4, 100, 100)
    return desk


def moved(events: list[ev.Event]) -> list[tuple[int, int, int, int, MoveReason]]:
    return [(e.giver, e.taker, e.lots, e.value_units, e.reason) for e in events if isinstance(e, ev.PositionMoved)]


def paid(events: list[ev.Event]) -> list[tuple[int, int, int, MoveReason]]:
    return [(e.payer, e.payee, e.amount_units, e.reason) for e in events if isinstance(e, ev.MoneyMoved)]


def test_closing_realises_profit_and_turning_opens_at_the_new_price() -> None:
    """The example of `Ledger._fill`: long 4 for 400, 6 sold for 660."""
    desk = Desk()
    meet(desk, 2, 1, 4, 100)
    meet(desk, 1, 3, 6, 110)
    position = desk.exchange.state.ledger.accounts[1].positions[X]
    assert (balance(desk, 1), position.lots, position.cost_units) == (1_000_040, -2, -220)


def test_fees_go_to_the_house_and_are_rounded_up() -> None:
    """Rebates are paid by the house and rounded down."""
    desk = Desk(taker_fee_ppm=1_500, maker_fee_ppm=-500)
    meet(desk, 1, 2, 7, 99)  # 693: 1.04 → 2, 0.35 → 0
    assert (balance(desk, 1), balance(desk, 2), balance(desk, FEES)) == (1_000_000, 999_998, 2)
    assert (fee_units(693, -5_000), fee_units(-693, 5_000)) == (-3, 4)


@pytest.mark.parametrize(("rate", "longs", "shorts", "house"), [(333, -4, 3, 1), (-333, 3, -4, 1), (0, 0, 0, 0)])
def test_funding_goes_from_one_side_to_the_other(rate: int, longs: int, shorts: int, house: int) -> None:
    """10,000 × 333 ppm = 3.33: the payer's 4, the receiver's 3, what rounding leaves is insurance."""
    desk = Desk()
    meet(desk, 1, 2, 100, 100)
    desk.do(cm.Fund(X, rate))
    assert (balance(desk, 2) - 1_000_000, balance(desk, 1) - 1_000_000, balance(desk, INSURANCE)) == (longs, shorts, house)


def test_margin_counts_the_worse_side_of_orders_and_positions() -> None:
    """Closing needs none, turning needs the other side's; neither unrealised profit nor what open orders give away is to take out."""
    desk = poor()
    ledger = desk.exchange.state.ledger
    account = ledger.accounts[4]
    free_units = Solvency(desk.exchange.state).free_units
    assert (ledger.initial_units(account), free_units(account)) == (1_000, 0)
    assert isinstance(desk.place(4, BUY, 1, 100)[0], ev.OrderRejected)
    assert isinstance(desk.place(4, SELL, 200, 101)[0], ev.OrderAccepted)
    assert isinstance(desk.place(4, SELL, 1, 101)[0], ev.OrderRejected)
    desk.do(cm.SetMark(X, 110))
    assert (ledger.equity_units(account), free_units(account)) == (2_000, 1_000 - 1_100 - 200 * 9)


def test_a_liquidated_account_loses_orders_positions_and_a_fee() -> None:
    """Insurance takes the position over at the mark."""
    desk = poor(insurance=10_000)
    desk.place(4, SELL, 10, 130)
    assert desk.do(cm.SetMark(X, 95)) == [ev.MarkSet(X, 95, False)]  # equity 500 of 475 wanted
    events = desk.do(cm.SetMark(X, 94))  # 400 of 470
    assert [e.reason for e in events if isinstance(e, ev.OrderCanceled)] == [CancelReason.LIQUIDATED]
    assert moved(events) == [(4, INSURANCE, 100, 9_400, MoveReason.LIQUIDATION)]
    assert paid(events) == [(4, INSURANCE, 47, MoveReason.LIQUIDATION_FEE)]
    assert (balance(desk, 4), balance(desk, INSURANCE)) == (353, 10_047)


def test_insurance_covers_a_deficit() -> None:
    """The account is left with nothing, not with a debt."""
    desk = poor(insurance=10_000)
    events = desk.do(cm.SetMark(X, 80))
    assert paid(events) == [(INSURANCE, 4, 1_000, MoveReason.DEFICIT)]
    assert (balance(desk, 4), balance(desk, INSURANCE)) == (0, 9_000)


def test_without_insurance_the_most_profitable_other_side_is_deleveraged() -> None:
    """Account 3 sold higher than 1: its position goes first, and it shares the deficit."""
    desk = Desk()
    desk.do(cm.Deposit(4, 1_000))
    meet(desk, 3, 2, 60, 105)
    meet(desk, 1, 4, 100, 100)
    events = desk.do(cm.SetMark(X, 80))
    assert moved(events) == [(4, 3, 60, 4_800, MoveReason.DELEVERAGE), (4, 1, 40, 3_200, MoveReason.DELEVERAGE)]
    assert paid(events) == [(3, 4, 600, MoveReason.DEFICIT), (1, 4, 400, MoveReason.DEFICIT)]
    assert (balance(desk, 4), balance(desk, 3)) == (0, 1_000_000 + 60 * 25 - 600)
    assert desk.exchange.state.ledger.lots(1, X) == -60


def test_insurance_that_cannot_take_over_pays_first() -> None:
    """1,000 would leave it with nothing: it pays them, but the position goes to the other side."""
    desk = poor(insurance=600)
    events = desk.do(cm.SetMark(X, 80))
    assert moved(events) == [(4, 1, 100, 8_000, MoveReason.DELEVERAGE)]
    assert paid(events) == [(INSURANCE, 4, 600, MoveReason.DEFICIT), (1, 4, 400, MoveReason.DEFICIT)]
    assert (balance(desk, INSURANCE), balance(desk, 4)) == (0, 0)
    assert len(moved(poor(insurance=1_001).do(cm.SetMark(X, 80)))) == 1


def test_a_shared_deficit_is_paid_to_the_unit() -> None:
    """Shares are rounded up, the last one pays what is left; nobody gains by it."""
    desk = Desk()
    desk.do(cm.Deposit(4, 300))
    for seller in (1, 2, 3):
        meet(desk, seller, 4, 10, 100)
    events = desk.do(cm.SetMark(X, 60))
    assert [amount for _, _, amount, _ in paid(events)] == [300, 300, 300]
    desk = Desk()
    desk.do(cm.Deposit(4, 301))
    for seller in (1, 2, 3):
        meet(desk, seller, 4, 10, 100)
    events = desk.do(cm.SetMark(X, 60))
    assert [amount for _, _, amount, _ in paid(events)] == [300, 300, 299]
    assert balance(desk, 4) == 0


def test_nothing_is_liquidated_while_trading_is_suspended() -> None:
    """The mark waits; when the last reason is lifted it is processed and what is due happens."""
    desk = poor(insurance=10_000)
    desk.do(cm.Suspend("manual"))
    assert desk.do(cm.SetMark(X, 90)) == [ev.MarkSet(X, 90, True)]
    assert len(moved(desk.do(cm.Resume("manual")))) == 1


def random_command(dice: random.Random, index: int) -> cm.Command:
    """Return a command of poor accounts on two wild markets."""
    account, symbol, kind = dice.randint(1, 6), dice.choice(("A", "B")), dice.random()
    if kind < 0.70:
        price = None if dice.random() < 0.1 else max(1, 100 + round(dice.gauss(0, 4)))
        stop = max(1, 100 + round(dice.gauss(0, 9))) if dice.random() < 0.15 else None
        life = dice.choice((TimeInForce.GTC, TimeInForce.DAY, TimeInForce.IOC, TimeInForce.FOK))
        return PlaceOrder(
            account, symbol, str(index), dice.choice((BUY, SELL)), dice.randint(1, 60), price, stop, life,
            reduce_only=dice.random() < 0.15, self_trade=dice.choice(list(SelfTrade)),
        )  # fmt: skip
    if kind < 0.82:
        return cm.SetMark(symbol, max(1, 100 + round(dice.gauss(0, 12))))
    if kind < 0.86:
        return cm.Fund(symbol, dice.randint(-20_000, 20_000))
    if kind < 0.92:
        return cm.Deposit(dice.randint(0 if dice.random() < 0.1 else 1, 6), dice.randint(1, 900))
    if kind < 0.96:
        return cm.Withdraw(account, dice.randint(1, 900))
    others = (
        cm.CancelAll(account),
        cm.Suspend("manual"),
        cm.Resume("manual"),
        cm.CancelAllAfter(account, 50),
        cm.Resume("manual"),
    )
    return dice.choice(others)


@pytest.mark.parametrize("seed", range(12))
def test_money_is_conserved_whatever_happens(seed: int) -> None:
    """1,500 commands: after each the books add up, nothing is due, no book is crossed; the events rebuild the state."""
    dice, exchange, follower = random.Random(seed), Exchange(MessageBuilder), State()
    liquidation = Liquidation(exchange.state, exchange.state.apply, lambda *_: None)
    kinds: set[str] = set()
    for index in range(1, 1_500):
        if index < 3:
            terms = cm.Instrument("AB"[index - 1], taker_fee_ppm=600, maker_fee_ppm=-200, lot_tick_units=index)
            command: cm.Command = cm.CreateInstrument(terms, 100)
        else:
            command = random_command(dice, index)
        for event in exchange.decide(index, index, command):
            kinds.add(type(event).__name__)
            kinds |= {str(event.reason)} if isinstance(event, ev.PositionMoved | ev.MoneyMoved) else set()
            follower.apply(event)
        ledger = exchange.state.ledger
        ledger.audit()
        if not exchange.state.suspended:
            assert not any(liquidation.due(account) for account in ledger.accounts.values())
            assert all(ledger.equity_units(account) >= 0 for account in ledger.accounts.values())
        for market in exchange.state.markets.values():
            bid, ask = market.book.best(BUY), market.book.best(SELL)
            assert bid is None or ask is None or bid < ask
        if index % 50 == 0:
            assert follower.digest() == exchange.state.digest()
    assert {"Traded", "FundingCharged", "OrderTriggered", "Deficit"} <= kinds
    assert kinds & {"Liquidation", "Deleverage"}
