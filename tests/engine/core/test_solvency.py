"""Tests that nobody makes money from nothing: what an account cannot pay for it cannot buy, and what nobody pays is paid at once."""

from __future__ import annotations

import random

import msgspec
import pytest

from engine.core import commands as cm
from engine.core import events as ev
from engine.core.commands import BUY, FEES, INSURANCE, SELL, AmendOrder, PlaceOrder, SelfTrade, TimeInForce
from engine.core.events import CancelReason, MoveReason, RejectReason
from engine.core.exchange import Exchange
from engine.core.solvency import Solvency
from engine.core.state import State
from engine.stores.message_builder import MessageBuilder
from tests.engine.core.linked_orders import linked_order
from tests.engine.core.test_accounts import balance, meet, moved, paid, poor
from tests.engine.core.test_exchange import Desk, X, reasons, trades


def equity(desk: Desk, number: int) -> int:
    ledger = desk.exchange.state.ledger
    return ledger.equity_units(ledger.account(number))


def free(desk: Desk, number: int) -> int:
    return Solvency(desk.exchange.state).free_units(desk.exchange.state.ledger.account(number))


def with_account(units: int, **terms: int) -> Desk:
    """Return an exchange where account 4 has so much money, beside the rich ones."""
    desk = Desk(**terms)
    desk.do(cm.Deposit(4, units))
    return desk


def test_a_position_cannot_be_thrown_away_to_a_friend() -> None:
    """With 100, long 10 at 100: selling them at 1 would leave 890 that nobody owns to the friend."""
    desk = with_account(100)
    meet(desk, 1, 4, 10, 100)
    desk.place(2, BUY, 10, 1)
    for terms in ({}, {"reduce_only": True}, {"time_in_force": TimeInForce.FOK}, {"display_lots": 1}):
        assert desk.refusal(PlaceOrder(4, X, "away", SELL, 10, 1, **terms)) == RejectReason.MARGIN  # type: ignore[arg-type]
    assert trades(desk.place(4, SELL, 10, None)) == []  # a market order ends where its account's money does
    desk.place(2, BUY, 10, 96)
    assert trades(desk.place(4, SELL, 10, 96)) == [(96, 10)]  # 40 of the 100
    assert equity(desk, 4) == 60


def test_an_order_is_carried_at_its_own_price_with_all_the_others() -> None:
    """1,000 carry 50 lots at 105: 500 of margin (525 at the mark of 100 it is not) and 250 that are lost; not one more."""
    desk = with_account(1_000)
    desk.place(4, BUY, 50, 105, name="first")
    assert desk.refusal(PlaceOrder(4, X, "more", BUY, 17, 105)) == RejectReason.MARGIN
    assert isinstance(desk.place(4, BUY, 16, 105, name="rest")[0], ev.OrderAccepted)  # 660 and 330
    assert free(desk, 4) == 10
    assert desk.refusal(AmendOrder(4, "first", price_ticks=106)) == RejectReason.MARGIN
    assert desk.refusal(AmendOrder(4, "first", size_lots=51)) == RejectReason.MARGIN
    assert desk.do(AmendOrder(4, "first", price_ticks=104))
    assert free(desk, 4) == 60


def test_fees_of_open_orders_are_needed_too() -> None:
    """1,000 of value: 100 of margin, 10 of fee; on both sides twice the fee, the margin once."""
    desk = with_account(119, taker_fee_ppm=10_000)
    assert isinstance(desk.place(4, BUY, 10, 100)[0], ev.OrderAccepted)
    assert isinstance(desk.place(4, SELL, 9, 101)[0], ev.OrderAccepted)
    assert free(desk, 4) == 0
    desk.do(cm.CancelAll(4))
    assert desk.refusal(PlaceOrder(4, X, "n", BUY, 11, 100)) == RejectReason.MARGIN


def test_a_resting_order_that_cannot_be_paid_any_more_is_cancelled_when_it_is_met() -> None:
    """The mark fell to 50: who meets the bid at 100 takes 500 out of an account that has 100."""
    desk = with_account(100)
    desk.place(4, BUY, 10, 100)
    desk.do(cm.SetMark(X, 50))
    events = desk.place(2, SELL, 10, 100)
    assert (trades(events), reasons(events)) == ([], [CancelReason.MARGIN])
    assert equity(desk, 4) == 100
    desk.place(4, BUY, 1, 55)
    assert trades(desk.place(2, SELL, 3, 55)) == [(55, 1)]


def test_a_stop_is_asked_when_it_enters() -> None:
    """Accepted far from the mark, as stops are; triggered while the mark stands elsewhere it is cancelled."""
    desk = with_account(100)
    assert isinstance(desk.place(4, BUY, 10, 150, stop_ticks=140)[1], ev.OrderStopped)
    meet(desk, 1, 2, 1, 145)
    assert reasons(desk.events) == [CancelReason.MARGIN]
    desk = with_account(100)
    desk.place(4, BUY, 10, None, stop_ticks=140)
    desk.place(1, SELL, 10, 141)
    assert trades(desk.place(2, BUY, 1, 141)) == [(141, 1)]  # the stop enters, and finds 141 too dear
    assert reasons(desk.events) == [CancelReason.MARGIN]


def test_a_market_order_goes_as_far_as_its_account_can_pay() -> None:
    """100 lots at 100 are margin enough; those at 120 would cost 20 each on top."""
    desk = with_account(1_000)
    desk.place(1, SELL, 50, 100)
    desk.place(1, SELL, 50, 120)
    events = desk.place(4, BUY, 100, None)
    assert trades(events) == [(100, 50)]
    assert reasons(events) == [CancelReason.MARGIN]


def test_fill_or_kill_knows_who_cannot_pay() -> None:
    """The better bid is cancelled when it is met, so it counts for nothing on paper."""
    desk = with_account(100)
    desk.place(4, BUY, 10, 100)
    desk.place(1, BUY, 10, 99)
    desk.do(cm.SetMark(X, 50))
    assert reasons(desk.place(2, SELL, 15, 99, time_in_force=TimeInForce.FOK)) == [CancelReason.FILL_OR_KILL]
    assert trades(desk.place(2, SELL, 10, 99, time_in_force=TimeInForce.FOK)) == [(99, 10)]


@pytest.mark.parametrize(("pending", "left"), [(90, 900), (110, 1_900), (100, 1_900)])
def test_while_trading_is_suspended_the_worse_mark_counts(pending: int, left: int) -> None:
    """Long 100 at 100 with 2,900: 1,000 of margin (1,100 at 110); at 90 another 1,000 are lost already."""
    desk = with_account(2_900)
    meet(desk, 1, 4, 100, 100)
    desk.do(cm.Suspend("manual"))
    desk.do(cm.SetMark(X, pending))
    left -= 100 if pending > 100 else 0
    assert free(desk, 4) == left
    assert desk.refusal(cm.Withdraw(4, left + 1)) == RejectReason.MARGIN
    assert desk.do(cm.Withdraw(4, left))


def test_a_deficit_is_paid_by_one_after_the_other() -> None:
    """INSURANCE, who took the position, the house's fees, and then everybody by equity: 2,000 are missing."""
    desk = Desk()
    for account in (1, 2, 3):
        desk.do(cm.Withdraw(account, 1_000_000))
    desk.do(cm.Deposit(INSURANCE, 100))
    desk.do(cm.Deposit(4, 1_000))
    desk.do(cm.Deposit(1, 1_000))
    meet(desk, 1, 4, 100, 100)
    desk.do(cm.Deposit(2, 300))
    desk.do(cm.Deposit(3, 200))
    desk.do(cm.Withdraw(1, 0))
    events = desk.do(cm.SetMark(X, 70))
    assert moved(events) == [(4, 1, 100, 7_000, MoveReason.DELEVERAGE)]
    assert paid(events) == [(INSURANCE, 4, 100, MoveReason.DEFICIT), (1, 4, 1_900, MoveReason.DEFICIT)]
    assert [equity(desk, n) for n in (1, 2, 3, 4, INSURANCE, FEES)] == [2_100, 300, 200, 0, 0, 0]


def test_who_has_nothing_to_do_with_it_pays_last_and_by_equity() -> None:
    """Both markets fall: who took the position over has lost as much elsewhere; 2 and 3 pay 3 : 1."""
    desk = Desk()
    for account in (1, 2, 3):
        desk.do(cm.Withdraw(account, 1_000_000))
    desk.do(cm.CreateInstrument(cm.Instrument("Y"), 100))
    for account, units in ((1, 1_000), (4, 1_000), (5, 1_000), (2, 3_000), (3, 1_000)):
        desk.do(cm.Deposit(account, units))
    desk.place(1, SELL, 50, 100)
    desk.place(4, BUY, 50, 100)
    for account, side in ((1, BUY), (5, SELL)):
        desk.do(PlaceOrder(account, "Y", "y", side, 50, 100))
    for symbol in ("Y", X):
        desk.do(cm.SetMark(symbol, 60))
    ledger = desk.exchange.state.ledger
    assert all(ledger.equity_units(account) >= 0 for account in ledger.accounts.values())
    assert sum(ledger.equity_units(account) for account in ledger.accounts.values()) == 7_000


def test_insurance_below_zero_is_closed_too() -> None:
    """It holds 100 lots of a market that falls on: the other side takes them, and shares what is missing."""
    desk = poor(insurance=1_100)
    desk.do(cm.SetMark(X, 94))
    desk.do(cm.SetMark(X, 70))
    ledger = desk.exchange.state.ledger
    assert ledger.lots(INSURANCE, X) == 0
    assert equity(desk, INSURANCE) >= 0
    assert balance(desk, 1) == 1_000_000 + 3_000 - (2_400 - 1_100 - 47)


GANG, HONEST = (1, 2, 3, 4), (11, 12, 13)


class Attack:
    """A gang that tries whatever the exchange takes, beside people who buy below the mark and sell above it."""

    def __init__(self, seed: int) -> None:
        self.dice, self.exchange, self.follower = random.Random(seed), Exchange(MessageBuilder), State()
        self.index, self.mark = 0, 1_000
        self.brought, self.taken = dict.fromkeys(GANG, 0), dict.fromkeys(GANG, 0)
        self.names: list[tuple[int, str]] = []
        self.do(
            cm.CreateInstrument(
                cm.Instrument(X, taker_fee_ppm=600, maker_fee_ppm=-200, band_ppm=self.dice.choice((0, 100_000))), 1_000
            )
        )
        for account in HONEST:
            self.do(cm.Deposit(account, 100_000))

    def do(self, command: cm.Command) -> list[ev.Event]:
        self.index += 1
        events = self.exchange.decide(self.index, self.index, command)
        for event in events:
            self.follower.apply(msgspec.json.decode(msgspec.json.encode(event), type=ev.AnyEvent))
        ledger = self.exchange.state.ledger
        ledger.audit()
        assert all(ledger.equity_units(account) >= 0 for account in ledger.accounts.values()) or self.exchange.state.suspended
        fok = isinstance(command, PlaceOrder) and command.time_in_force is TimeInForce.FOK and command.stop_ticks is None
        assert not fok or sum(size for _, size in trades(self.of_taker(events))) in (0, command.size_lots)  # type: ignore[union-attr]
        return events

    def of_taker(self, events: list[ev.Event]) -> list[ev.Event]:
        return [event for event in events if not isinstance(event, ev.Traded) or event.taker_id == self.index]

    def step(self) -> list[ev.Event]:
        dice = self.dice
        kind, account = dice.random(), dice.choice(GANG)
        if kind < 0.12:
            amount = dice.randint(1, 5_000)
            self.brought[account] += amount
            return self.do(cm.Deposit(account, amount))
        if kind < 0.27:
            known = self.exchange.state.ledger.accounts.get(account)
            most = max(1, Solvency(self.exchange.state).free_units(known)) if known else 1
            amount = dice.choice((most, most + 1, dice.randint(1, most)))
            events = self.do(cm.Withdraw(account, amount))
            self.taken[account] += sum(-e.amount_units for e in events if isinstance(e, ev.Transferred))
            return events
        if kind < 0.40:
            side = dice.choice((BUY, SELL))
            price = self.mark + (dice.randint(1, 30) if side == SELL else -dice.randint(1, 30))
            return self.do(PlaceOrder(dice.choice(HONEST), X, str(self.index), side, dice.randint(1, 20), price, post_only=True))
        if kind < 0.45:
            return self.do(dice.choice((cm.CancelAll(account), cm.Suspend("x"), cm.Resume("x"), cm.Resume("x"), cm.Tick())))
        if kind < 0.55 and self.names:
            whose, name = dice.choice(self.names)
            size, price = dice.choice(((dice.randint(1, 60), None), (None, self.price()), (dice.randint(1, 60), self.price())))
            return self.do(AmendOrder(whose, name, size, price))
        self.names = [*self.names[-20:], (account, str(self.index))]
        if dice.random() < 0.15:
            order = linked_order(dice, account, X, str(self.index), max(10, self.mark + round(dice.gauss(0, 20))))
            return self.do(msgspec.structs.replace(order, size_lots=dice.randint(1, 60)))
        life = dice.choice((TimeInForce.GTC, TimeInForce.GTC, TimeInForce.IOC, TimeInForce.FOK))
        price = None if dice.random() < 0.15 else self.price()
        return self.do(
            PlaceOrder(
                account, X, str(self.index), dice.choice((BUY, SELL)), dice.randint(1, 60), price,
                self.price() if dice.random() < 0.15 else None, life, reduce_only=dice.random() < 0.2,
                display_lots=1 if life is TimeInForce.GTC and price and dice.random() < 0.2 else 0, self_trade=dice.choice(list(SelfTrade)),
            )
        )  # fmt: skip

    def price(self) -> int:
        """Return any price: fair, beyond the mark, absurd."""
        return max(1, self.dice.choice((self.mark + round(self.dice.gauss(0, 30)), self.dice.randint(1, 3_000), 1, 100_000)))


@pytest.mark.parametrize("seed", range(10))
def test_no_gang_takes_out_more_than_it_brought(seed: int) -> None:
    """The mark stands still, and honest people never pay more than it: whatever the gang does, nobody else loses a unit."""
    attack = Attack(seed)
    for _ in range(1_200):
        events = attack.step()
        assert not [event for event in events if isinstance(event, ev.MoneyMoved) and event.reason is MoveReason.DEFICIT]
        ledger = attack.exchange.state.ledger
        assert sum(attack.taken.values()) <= sum(attack.brought.values())
        assert all(ledger.equity_units(ledger.accounts[account]) >= 100_000 for account in HONEST)
    assert sum(attack.taken.values()) > 0
    assert attack.follower.digest() == attack.exchange.state.digest()


@pytest.mark.parametrize("seed", range(10))
def test_a_mark_that_moves_in_steps_makes_no_deficit(seed: int) -> None:
    """Steps of 2 % are less than the maintenance margin: everybody is closed in time, nothing is left for others to pay."""
    attack = Attack(1_000 + seed)
    for _ in range(1_200):
        if attack.dice.random() < 0.08 and not attack.exchange.state.suspended:
            attack.mark = min(2_000, max(500, round(attack.mark * attack.dice.uniform(0.98, 1.02))))
            attack.do(cm.SetMark(X, attack.mark))
        events = attack.step()
        assert not [event for event in events if isinstance(event, ev.MoneyMoved) and event.reason is MoveReason.DEFICIT]
    assert attack.follower.digest() == attack.exchange.state.digest()


@pytest.mark.parametrize("seed", range(10))
def test_marks_that_jump_leave_nobody_below_zero(seed: int) -> None:
    """Whatever a jump costs is paid at once, by the stated rule; withdrawals never exceed what was deposited."""
    attack, deficits = Attack(2_000 + seed), 0
    for _ in range(1_200):
        if attack.dice.random() < 0.1:
            attack.mark = attack.dice.randint(300, 3_000)
            events = attack.do(cm.SetMark(X, attack.mark))
            deficits += len(
                [event for event in events if isinstance(event, ev.MoneyMoved) and event.reason is MoveReason.DEFICIT]
            )
        attack.step()
    ledger = attack.exchange.state.ledger
    assert sum(ledger.equity_units(account) for account in ledger.accounts.values()) == ledger.deposited_units >= 0
    assert deficits
    assert attack.follower.digest() == attack.exchange.state.digest()
