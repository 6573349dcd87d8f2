"""A consumer that sees nothing but the messages must end with the exchange's own books."""

from __future__ import annotations

import json
import random
from typing import Any

import pytest

from engine.core import commands as cm
from engine.core import events as ev
from engine.core.commands import BUY, FEES, SELL, SIDE_NAMES
from engine.core.exchange import Exchange
from engine.stores.message_builder import MessageBuilder
from tests.engine.core.test_accounts import random_command
from tests.engine.core.test_exchange import Desk, X

NOW_NS = 1_795_227_409_123_456_789


class Consumer:
    """Keeps balances, orders and levels from frames alone."""

    def __init__(self) -> None:
        self.balances: dict[int, int] = {}
        self.leaves: dict[str, int] = {}
        self.filled: dict[str, tuple[int, int]] = {}
        self.levels: dict[tuple[str, str, float], int] = {}
        self.execution_ids: set[str] = set()
        self.matches: dict[str, list[dict[str, Any]]] = {}
        self.last = 0
        self.types: set[str] = set()

    def take(self, frame: bytes) -> None:
        message = json.loads(frame)
        assert message["prevMessageIndex"] == self.last < message["messageIndex"]
        self.last = message["messageIndex"]
        for group in message["executions"]:
            assert group
            for execution in group:
                self.execution(execution)
            takers = {e["orderId"] for e in group if e.get("lastLiquidityInd") == "RemovedLiquidity"}
            assert len(takers) <= 1, "a group has one aggressor"
        for transaction in message["accountTransactions"]:
            account = transaction["account"]
            self.balances[account] = self.balances.get(account, 0) + transaction["amount"]
            assert self.balances[account] == transaction["balance"] or account == FEES
        for update in message["bookUpdates"]:
            self.levels[update["symbol"], update["side"], update["price"]] = update["qty"]

    def execution(self, execution: dict[str, Any]) -> None:
        assert execution["execId"] not in self.execution_ids
        self.execution_ids.add(execution["execId"])
        self.types.add(execution["execType"])
        if execution["execType"] in ("Liquidation", "Deleverage", "Funding", "Rejected"):
            return
        assert execution["execType"] == "Canceled" or execution["leavesQty"] == execution["orderQty"] - execution["cumQty"]
        self.leaves[execution["orderId"]] = execution["leavesQty"]
        self.filled[execution["orderId"]] = execution["cumQty"], execution["cumCost"]
        if execution["execType"] == "Trade":
            self.matches.setdefault(execution["trdMatchID"], []).append(execution)


@pytest.mark.parametrize("seed", range(8))
def test_a_consumer_of_frames_has_the_books_of_the_exchange(seed: int) -> None:
    """1,200 random commands: balances, open orders, fills, levels and ids; and messages change nothing."""
    dice, exchange, silent, consumer = random.Random(seed), Exchange(MessageBuilder), Exchange(MessageBuilder), Consumer()
    exchange.decide(1, NOW_NS, cm.CreateStore("consumer"))
    silent.state.apply(ev.SchemaSet(ev.VERSION))
    for index in range(2, 1_200):
        command = random_command(dice, index)
        if index < 4:
            command = cm.CreateInstrument(
                cm.Instrument("AB"[index - 2], taker_fee_ppm=600, maker_fee_ppm=-200, tick_size="0.05"), 100
            )
        now_ns = NOW_NS + index
        assert exchange.decide(index, now_ns, command) == silent.decide(index, now_ns, command)
        if exchange.message:
            consumer.take(exchange.message)
            assert exchange.state.message_index == index
        assert silent.message == b""
    state = exchange.state
    assert state.snapshot()[:4] == silent.state.snapshot()[:4]
    for number, account in state.ledger.accounts.items():
        assert number == FEES or consumer.balances.get(number, 0) == account.balance_units
    assert {k: v for k, v in consumer.leaves.items() if v} == {str(i): o.leaves_lots for i, o in state.orders.items()}
    for order_id, order in state.orders.items():
        assert consumer.filled[str(order_id)] == (order.filled_lots, order.cost_units)
    shown = {
        (symbol, SIDE_NAMES[side], level.price * 5 / 100): sum(level.values())
        for symbol, market in state.markets.items()
        for side in (BUY, SELL)
        for level in market.book.levels(side)
    }
    assert {k: v for k, v in consumer.levels.items() if v} == shown
    assert sorted(map(int, consumer.matches)) == list(range(1, state.trades + 1))
    for pair in consumer.matches.values():
        assert [e["lastLiquidityInd"] for e in pair] == ["RemovedLiquidity", "AddedLiquidity"]
        assert pair[0]["lastPx"] == pair[1]["lastPx"]
        assert pair[0]["side"] != pair[1]["side"]
    assert {"New", "Trade", "Canceled", "Triggered", "Funding"} <= consumer.types


def frame(desk: Desk, command: cm.Command) -> dict[str, Any]:
    """Return the message of one more command."""
    desk.do(command, NOW_NS)
    message: dict[str, Any] = json.loads(desk.exchange.message)
    return message


def test_one_sweep_is_one_group_with_taker_and_makers() -> None:
    """Two makers, one aggressor: New, then a group of four; the average price is that of both fills."""
    desk = Desk(taker_fee_ppm=1_000)
    desk.do(cm.CreateStore(""))
    desk.place(1, SELL, 3, 101)
    desk.place(2, SELL, 1, 103)
    message = frame(desk, cm.PlaceOrder(3, X, "t", BUY, 6, 103))
    assert message["timestamp"] == "2026-11-21T02:16:49.123Z"
    (new,), trades = message["executions"]
    assert (new["execType"], new["ordStatus"], new["leavesQty"], new["price"]) == ("New", "New", 6, 103.0)
    assert [(e["clOrdID"], e["lastQty"], e["lastPx"], e["ordStatus"]) for e in trades] == [
        ("t", 3, 101.0, "PartiallyFilled"), (trades[1]["clOrdID"], 3, 101.0, "Filled"),
        ("t", 1, 103.0, "PartiallyFilled"), (trades[3]["clOrdID"], 1, 103.0, "Filled"),
    ]  # fmt: skip
    assert (trades[2]["cumQty"], trades[2]["cumCost"], trades[2]["avgPx"]) == (4, 406, 101.5)
    assert [t["transactType"] for t in message["accountTransactions"]] == ["Fee", "Fee"]
    assert message["bookUpdates"] == [
        {"symbol": X, "side": "Sell", "price": 101.0, "qty": 0},
        {"symbol": X, "side": "Sell", "price": 103.0, "qty": 0},
        {"symbol": X, "side": "Buy", "price": 103.0, "qty": 2},
    ]


def test_a_liquidation_has_executions_transactions_and_its_summary_in_one_message() -> None:
    """Account 4 loses all: its order is cancelled, its position goes to insurance, its money with it."""
    desk = Desk(liquidation_fee_ppm=1_000)
    desk.do(cm.CreateStore(""))
    desk.do(cm.Deposit(0, 10_000))
    desk.do(cm.Deposit(4, 1_100))
    desk.place(1, SELL, 100, 100)
    desk.place(4, BUY, 100, 100)
    desk.place(4, BUY, 1, 50)
    message = frame(desk, cm.SetMark(X, 90))
    kinds = [[e["execType"] for e in group] for group in message["executions"]]
    assert kinds == [["Canceled"], ["Liquidation", "Liquidation"]]
    giver, taker = message["executions"][1]
    assert (giver["account"], giver["side"], giver["lastQty"], giver["lastPx"]) == (4, "Sell", 100, 90.0)
    assert (taker["account"], taker["side"], taker["ordStatus"]) == (0, "Buy", "Filled")
    assert message["liquidations"] == [
        {"liquidationId": f"{message['messageIndex']}-l1", "account": 4, "execType": "Liquidation", "symbol": X, "lastQty": 100,
         "lastPx": 90.0, "counterparty": 0, "timestamp": "2026-11-21T02:16:49.123Z"}
    ]  # fmt: skip
    assert [(t["account"], t["transactType"], t["amount"], t["balance"]) for t in message["accountTransactions"]] == [
        (4, "RealisedPnl", -1_000, 100), (4, "LiquidationFee", -9, 91), (0, "LiquidationFee", 9, 10_009),
    ]  # fmt: skip


def test_funding_milestones_rejections_and_transfers_are_told() -> None:
    """Each in its own list; a command that changes nothing for consumers has no message, so indices have holes."""
    desk = Desk()
    desk.do(cm.CreateStore(""))
    desk.place(1, SELL, 10, 100)
    desk.place(2, BUY, 10, 100)
    funding = frame(desk, cm.Fund(X, 10_000))
    assert funding["fundingCharges"] == [{"symbol": X, "rate": 0.01, "price": 100.0, "timestamp": "2026-11-21T02:16:49.123Z"}]
    assert [(t["account"], t["transactType"], t["amount"]) for t in funding["accountTransactions"]] == [
        (1, "Funding", 10), (2, "Funding", -10),
    ]  # fmt: skip
    assert frame(desk, cm.CheckLiveness("m1", "desk"))["livenessChecks"][0]["checkId"] == "m1"
    ((rejected,),) = frame(desk, cm.PlaceOrder(1, X, "r", BUY, 0, 100))["executions"]
    assert (rejected["execType"], rejected["ordStatus"], rejected["ordRejReason"]) == ("Rejected", "Rejected", "InvalidSize")
    ((unknown,),) = frame(desk, cm.PlaceOrder(1, "NOPE", "r", BUY, 1, 100))["executions"]
    assert (unknown["ordRejReason"], unknown["price"]) == ("UnknownSymbol", None)
    deposit = frame(desk, cm.Deposit(9, 5))["accountTransactions"]
    assert [(t["transactType"], t["amount"], t["balance"]) for t in deposit] == [("Deposit", 5, 5)]
    withdrawal = frame(desk, cm.Withdraw(9, 2))["accountTransactions"]
    assert [(t["transactType"], t["amount"], t["balance"]) for t in withdrawal] == [("Withdrawal", -2, 3)]
    for command in (cm.Tick(), cm.CancelOrder(1, "none"), cm.PurgeStore("", 1), cm.Resume("manual")):
        desk.do(command)
        assert desk.exchange.message == b""


def test_nothing_is_told_before_a_store_exists_nor_after_the_last_is_gone() -> None:
    """A message costs time; without a consumer there is none."""
    desk = Desk()
    desk.place(1, BUY, 1, 100)
    assert desk.exchange.message == b""
    desk.do(cm.CreateStore("s"))
    desk.place(1, BUY, 1, 100)
    assert desk.exchange.message
    desk.do(cm.DeleteStore("s"))
    desk.place(1, BUY, 1, 100)
    assert desk.exchange.message == b""
