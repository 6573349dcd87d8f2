"""Questions asked ahead: what counts as coming, whose verdict counts when, what a lost connection leaves behind."""

from __future__ import annotations

import asyncio
import json
from typing import Any, cast

import pytest
from pamqp.commands import Basic

from engine.core import commands as cm
from engine.core.exchange import Exchange
from engine.orders.delivery import Delivery
from engine.orders.message import MessageRefused, command_of
from engine.orders.risk_ahead import RiskAhead
from engine.risk.checker import RiskChecker
from engine.risk.rules import Exposure, RiskOrder, Verdict, Ways
from engine.stores.message_builder import MessageBuilder


class Desk:
    """Somebody who answers when the test says so."""

    def __init__(self) -> None:
        self.asked: list[tuple[RiskOrder, Exposure, asyncio.Future[Verdict]]] = []
        self.ways: Ways = {}

    async def check(self, order: RiskOrder, account: Exposure) -> Verdict:
        future: asyncio.Future[Verdict] = asyncio.get_running_loop().create_future()
        self.asked.append((order, account, future))
        return await future

    @property
    def coming(self) -> list[tuple[int, int]]:
        return [(account.buy_lots, account.sell_lots) for _, account, _ in self.asked]


@pytest.fixture
def state() -> Any:
    """A contract and two accounts, one with an open order to buy 5."""
    exchange = Exchange(MessageBuilder)
    commands = [cm.CreateInstrument(cm.Instrument("X"), 100), cm.Deposit(1, 10**6), cm.Deposit(2, 10**6)]
    for index, command in enumerate([*commands, cm.PlaceOrder(1, "X", "open", 0, 5, 90)], 1):
        exchange.decide(index, index, command)
    return exchange.state


def held(again: bool = False, **fields: Any) -> Delivery:
    terms = {"type": "place", "account": 1, "symbol": "X", "clOrdID": "a", "side": "Buy", "orderQty": 3, "price": 90}
    return Delivery(1, json.dumps(terms | fields).encode(), Basic.Properties(), again)


def ahead(desk: Desk) -> tuple[RiskAhead, list[object]]:
    woken: list[object] = []
    return RiskAhead(cast(RiskChecker, desk), woken.append), woken


async def test_what_was_asked_before_counts_as_coming(state: Any) -> None:
    """Of the same account, contract and side; until the order is in the state or refused."""
    desk = Desk()
    asking, _ = ahead(desk)
    messages = [
        held(clOrdID="a"),
        held(clOrdID="b", side="Sell"),
        held(clOrdID="c"),
        held(clOrdID="d", account=2),
        held(clOrdID="e"),
    ]
    for message in messages:
        asking.arrived(message)
    asking.ask(state)
    await asyncio.sleep(0)
    assert desk.coming == [(5, 0), (8, 0), (8, 3), (0, 0), (11, 3)]
    for message in messages[:3]:
        asking.leave(message)
    late = held(clOrdID="f")
    asking.arrived(late)
    asking.ask(state)
    await asyncio.sleep(0)
    assert desk.coming[-1] == (8, 0), "only e is still on its way"
    asking.lost([*messages, late])
    assert asking._ways == {}


async def test_a_verdict_counts_at_its_turn(state: Any) -> None:
    """Not answered: wait. Approved: go. Not approved: refused with reason and request."""
    desk = Desk()
    asking, woken = ahead(desk)
    good, bad = held(clOrdID="a"), held(clOrdID="b")
    for message in (good, bad):
        asking.arrived(message)
    asking.ask(state)
    await asyncio.sleep(0)
    assert not asking.approved(good, command_of(good.read(), state), state)
    desk.asked[1][2].set_result(Verdict(False, "position_limit", "r2"))
    desk.asked[0][2].set_result(Verdict(True, "", "r1"))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert len(woken) == 2
    assert asking.approved(good, command_of(good.read(), state), state)
    with pytest.raises(MessageRefused, match=r"position_limit \(request r2\)"):
        asking.approved(bad, command_of(bad.read(), state), state)
    assert len(desk.asked) == 2, "nobody is asked twice"


async def test_amends_are_asked_about_at_their_turn(state: Any) -> None:
    """They need their order; what takes no risk, and what cannot be read, is not asked about at all."""
    desk = Desk()
    asking, _ = ahead(desk)
    amend = Delivery(1, b'{"type":"amend","account":1,"clOrdID":"open","orderQty":9}', Basic.Properties(), False)
    cancel = Delivery(2, b'{"type":"cancel","account":1,"clOrdID":"open"}', Basic.Properties(), False)
    for message in (amend, cancel, Delivery(3, b"nonsense", Basic.Properties(), False), held(price="40.123"), held(again=True)):
        asking.arrived(message)
    asking.ask(state)
    await asyncio.sleep(0)
    assert not desk.asked
    assert asking.approved(cancel, command_of(cancel.read(), state), state)
    assert not asking.approved(amend, command_of(amend.read(), state), state)
    await asyncio.sleep(0)
    assert [order.lots for order, _, _ in desk.asked] == [4]
    asking.lost([amend, cancel])


async def test_without_risk_everything_is_approved(state: Any) -> None:
    """Nothing is kept, nobody is asked."""
    asking = RiskAhead(None, lambda _: None)
    message = held()
    asking.arrived(message)
    asking.ask(state)
    assert asking.approved(message, command_of(message.read(), state), state)
    assert message.checking is None
