"""Builds the message that one command has for consumers, while its events are applied.

The builder stands between `Exchange` and `State.apply`: it looks at orders, balances and levels before and after each event,
so that an event needs to carry no more than what changes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

from engine.core import events as ev
from engine.core.commands import BUY, INSURANCE, SELL, SIDE_NAMES, Command, Instrument, PlaceOrder
from engine.core.state import Order, State
from engine.core.units import PPM, iso
from engine.stores.controls import Controls
from engine.stores.message_text import (
    Scale,
    book_update,
    execution,
    price_text,
    scale_of,
    status_of,
    text,
    trade,
    transaction,
)
from engine.stores.messages import SCHEMA_VERSION, Execution, FundingSummary, LiquidationSummary, LivenessCheck


class MessageBuilder:
    """Makes the message of one command after the other: `begin`, `apply` for each event, `finish`."""

    def __init__(self, state: State) -> None:
        self._state = state
        self._scales: dict[str, Scale] = {}  # by symbol; a contract's terms never change
        self._stamp = (-1, "")
        self._command: Command | None = None
        self._index = 0
        self._time = ""
        self._appliers: dict[type, Callable[[Any], None]] = {
            ev.OrderAccepted: self._accepted, ev.OrderRejected: self._rejected, ev.OrderTriggered: self._triggered,
            ev.OrderRested: self._rested, ev.OrderAmended: self._amended, ev.OrderCanceled: self._canceled,
            ev.Traded: self._traded, ev.Transferred: self._transferred, ev.FundingCharged: self._funding,
            ev.FundingBegun: self._funding_begun, ev.FundingStepped: self._funding_stepped, ev.FundingEnded: self._funding_ended,
            ev.InstrumentCreated: self._control, ev.MarkSet: self._control, ev.KillSwitchSet: self._control,
            ev.Suspended: self._control, ev.Resumed: self._control, ev.OrderReleased: self._released,
            ev.StopsTrailed: self._trailed, ev.DelistingBegun: self._control, ev.InstrumentDelisted: self._control,
            ev.PositionMoved: self._position_moved, ev.MoneyMoved: self._money_moved, ev.LivenessChecked: self._liveness,
        }  # fmt: skip

    def begin(self, index: int, time_ns: int, command: Command) -> None:
        """Start a command's message."""
        self._index, self._command = index, command
        if self._stamp[0] != time_ns // 1_000_000:
            self._stamp = time_ns // 1_000_000, iso(time_ns)
        self._time = self._stamp[1]
        self._count = 0
        self._executions: list[list[str]] = []  # groups of their texts
        self._transactions: list[str] = []
        self._liquidations: list[LiquidationSummary] = []
        self._charges: list[FundingSummary] = []
        self._checks: list[LivenessCheck] = []
        self._controls: Controls | None = None
        self._sweeps: dict[int, list[str]] = {}  # taker's order id → the group of its trades
        self._touched: dict[tuple[str, int, int], None] = {}  # symbol, side, ticks of levels that may have changed

    def apply(self, event: ev.Event) -> None:
        """Apply an event to the state and note what consumers are told of it."""
        applier = self._appliers.get(type(event))
        if applier is None:
            self._state.apply(event)
        else:
            applier(event)

    def finish(self) -> bytes:
        """Return the frame, empty when the command has nothing for consumers. Cost: O(levels touched × their orders)."""
        orders = self._executions or self._transactions or self._checks or self._charges or self._touched
        if not orders and self._controls is None:
            return b""
        groups = ",".join(f"[{','.join(group)}]" for group in self._executions)
        frame = (
            f'{{"messageIndex":{self._index},"prevMessageIndex":{self._state.message_index},"timestamp":"{self._time}",'
            f'"schemaVersion":{SCHEMA_VERSION},"executions":[{groups}],"accountTransactions":[{",".join(self._transactions)}],'
            f'"liquidations":{_listed(self._liquidations)},"fundingCharges":{_listed(self._charges)},'
            f'"livenessChecks":{_listed(self._checks)},"bookUpdates":[{",".join(self._updates())}]'
            f"{self._controls.text() if self._controls is not None else ''}}}"
        )
        return frame.encode()

    def _updates(self) -> Iterator[str]:
        for symbol, side, ticks in self._touched:
            name, over, under, *_ = self._scale(symbol)
            qty = self._state.markets[symbol].book.shown(side, ticks)
            yield book_update(name, side, price_text(ticks, over, under), qty)

    def _price(self, symbol: str, ticks: int) -> float:
        """Return a price as the float nearest to the exact decimal."""
        scale = self._scale(symbol)
        return ticks * scale.over / scale.under

    def _scale(self, symbol: str) -> Scale:
        scale = self._scales.get(symbol)
        if scale is None:
            scale = self._scales[symbol] = scale_of(self._instrument(symbol))
        return scale

    def _instrument(self, symbol: str) -> Instrument:
        return self._state.ledger.contracts[symbol].instrument

    def _next_id(self) -> str:
        self._count += 1
        return f"{self._index}-{self._count}"

    # Orders

    def _tell(self, order: Order, exec_type: str, status: str = "", leaves: int | None = None, more: str = "") -> None:
        """Add an execution of an order as it is now, in a group of its own."""
        if leaves is None:
            leaves = order.size_lots - order.filled_lots
        scale, exec_id = self._scale(order.terms.symbol), self._next_id()
        one = execution(order, scale, self._time, exec_type, exec_id, status or status_of(order), leaves, more=more)
        self._executions.append([one])

    def _accepted(self, event: ev.OrderAccepted) -> None:
        self._state.apply(event)
        self._tell(self._state.orders[event.order_id], "New")

    def _rejected(self, event: ev.OrderRejected) -> None:
        self._state.apply(event)
        terms = self._command
        assert isinstance(terms, PlaceOrder), "only an order is rejected"
        if terms.side not in (BUY, SELL):
            return  # what has no side is no order that anyone could store
        order, scale = Order(self._index, terms, terms.size_lots, None, None, 0), None
        if terms.symbol in self._state.markets:
            order.price_ticks, order.stop_ticks, scale = terms.price_ticks, terms.stop_ticks, self._scale(terms.symbol)
        exec_id, why = self._next_id(), f',"ordRejReason":"{event.reason}"'
        self._executions.append([execution(order, scale, self._time, "Rejected", exec_id, "Rejected", 0, more=why)])

    def _triggered(self, event: ev.OrderTriggered) -> None:
        self._state.apply(event)
        self._tell(self._state.orders[event.order_id], "Triggered")

    def _rested(self, event: ev.OrderRested) -> None:
        self._state.apply(event)
        self._touch(self._state.orders[event.order_id])

    def _touch(self, order: Order) -> None:
        if order.resting:
            assert order.price_ticks is not None, f"order {order.order_id} rests without a price"
            self._touched[order.terms.symbol, order.terms.side, order.price_ticks] = None

    def _amended(self, event: ev.OrderAmended) -> None:
        order = self._state.orders[event.order_id]
        self._touch(order)
        self._state.apply(event)
        self._tell(order, "Replaced")

    def _released(self, event: ev.OrderReleased) -> None:
        order = self._state.orders[event.order_id]
        self._touch(order)
        self._state.apply(event)
        self._tell(order, "Replaced")

    def _trailed(self, event: ev.StopsTrailed) -> None:
        self._state.apply(event)
        for order_id, _ in event.moves:
            self._tell(self._state.orders[order_id], "Restated")

    def _canceled(self, event: ev.OrderCanceled) -> None:
        order = self._state.orders[event.order_id]
        self._touch(order)
        self._state.apply(event)
        self._tell(order, "Canceled", "Canceled", 0, f',"text":"{event.reason}"')

    def _traded(self, event: ev.Traded) -> None:
        taker, maker = self._state.orders[event.taker_id], self._state.orders[event.maker_id]
        symbol, contract = taker.terms.symbol, self._state.ledger.contracts[taker.terms.symbol]
        self._touched[symbol, maker.terms.side, event.price_ticks] = None
        accounts, scale = self._state.ledger.accounts, self._scale(symbol)
        match = f'","trdMatchID":"{event.trade_id}"'
        parts = (
            (taker, event.taker_fee_units, scale.taker_rate, f',"lastLiquidityInd":"RemovedLiquidity{match}'),
            (maker, event.maker_fee_units, scale.maker_rate, f',"lastLiquidityInd":"AddedLiquidity{match}'),
        )
        before = [accounts[order.terms.account].balance_units for order, *_ in parts]
        self._state.apply(event)
        group = self._sweeps.get(event.taker_id)
        if group is None:
            group = self._sweeps[event.taker_id] = []
            self._executions.append(group)
        lots, value = event.size_lots, contract.value_units(event.size_lots, event.price_ticks)
        price = price_text(event.price_ticks, scale.over, scale.under)
        for (order, fee, rate, more), balance in zip(parts, before, strict=True):
            exec_id, last, leaves = self._next_id(), trade(lots, value, price, rate, fee), order.size_lots - order.filled_lots
            group.append(execution(order, scale, self._time, "Trade", exec_id, status_of(order), leaves, last, more))
            account = accounts[order.terms.account]
            realised = account.balance_units - balance + fee
            if realised:
                self._book(account.number, "RealisedPnl", realised, balance + realised, scale.symbol, exec_id)
            if fee:
                self._book(account.number, "Fee", -fee, account.balance_units, scale.symbol, exec_id)

    # Money

    def _book(self, account: int, kind: str, amount: int, balance: int, symbol: str = "", exec_id: str = "") -> None:
        """Add a transaction; `symbol` is with its quotation marks."""
        number = f"{self._index}-t{len(self._transactions) + 1}"
        self._transactions.append(transaction(number, account, kind, amount, balance, self._time, symbol, exec_id))

    def _balance(self, account: int) -> int:
        found = self._state.ledger.accounts.get(account)
        return found.balance_units if found else 0

    def _transferred(self, event: ev.Transferred) -> None:
        self._state.apply(event)
        kind = "Deposit" if event.amount_units > 0 else "Withdrawal"
        self._book(event.account, kind, event.amount_units, self._balance(event.account))

    def _money_moved(self, event: ev.MoneyMoved) -> None:
        self._state.apply(event)
        for account, amount in ((event.payer, -event.amount_units), (event.payee, event.amount_units)):
            self._book(account, event.reason.value, amount, self._balance(account))

    def _funding(self, event: ev.FundingCharged) -> None:
        mark = self._state.ledger.contracts[event.symbol].mark_ticks
        self._charge(event.symbol, event.rate_ppm, mark)
        self._state.apply(event)
        self._pay(event.symbol, event.rate_ppm, mark, event.payments)
        self._give_rest(event.symbol, sum(units for _, units in event.payments))

    def _funding_begun(self, event: ev.FundingBegun) -> None:
        self._state.apply(event)
        self._charge(event.symbol, event.rate_ppm, event.mark_ticks)

    def _funding_stepped(self, event: ev.FundingStepped) -> None:
        self._state.apply(event)
        self._pay(event.symbol, event.rate_ppm, event.mark_ticks, event.payments)

    def _funding_ended(self, event: ev.FundingEnded) -> None:
        self._state.apply(event)
        self._give_rest(event.symbol, event.rest_units)

    def _charge(self, symbol: str, rate_ppm: int, mark_ticks: int) -> None:
        price = self._price(symbol, mark_ticks)
        self._charges.append(FundingSummary(symbol=symbol, rate=rate_ppm / PPM, price=price, timestamp=self._time))

    def _pay(self, symbol: str, rate_ppm: int, mark_ticks: int, payments: Iterable[tuple[int, int]]) -> None:
        contract = self._state.ledger.contracts[symbol]
        for account, units in payments:
            lots = contract.holders[account].lots
            value = contract.value_units(lots, mark_ticks)
            exec_id, told = self._of_position(account, symbol, "Funding", lots, value, mark_ticks, rate_ppm, units)
            self._executions.append([told])
            self._book(account, "Funding", -units, self._balance(account), self._scale(symbol).symbol, exec_id)

    def _give_rest(self, symbol: str, rest: int) -> None:
        if rest:
            self._book(INSURANCE, "Funding", rest, self._balance(INSURANCE), self._scale(symbol).symbol)

    def _position_moved(self, event: ev.PositionMoved) -> None:
        settled = event.reason is ev.MoveReason.SETTLEMENT  # CLEARING takes them all, and is left with none: nobody's business
        parts = ((event.giver, -event.lots), (event.taker, event.lots))[: 1 if settled else 2]
        before = [self._balance(account) for account, _ in parts]
        self._state.apply(event)
        ticks = abs(event.value_units) // (abs(event.lots) * self._instrument(event.symbol).lot_tick_units)
        group = []
        for (account, lots), balance in zip(parts, before, strict=True):
            value = event.value_units if lots == event.lots else -event.value_units
            exec_id, told = self._of_position(account, event.symbol, event.reason.value, lots, value, ticks, 0, 0)
            group.append(told)
            if realised := self._balance(account) - balance:
                symbol = self._scale(event.symbol).symbol
                self._book(account, "RealisedPnl", realised, balance + realised, symbol, exec_id)
        self._executions.append(group)
        if settled:
            return
        self._liquidations.append(
            LiquidationSummary(
                liquidation_id=f"{self._index}-l{len(self._liquidations) + 1}", account=event.giver,
                exec_type=event.reason.value, symbol=event.symbol, last_qty=abs(event.lots),
                last_px=self._price(event.symbol, ticks), counterparty=event.taker, timestamp=self._time,
            )
        )  # fmt: skip

    def _of_position(
        self, account: int, symbol: str, exec_type: str, lots: int, value: int, ticks: int, rate_ppm: int, fee: int
    ) -> tuple[str, str]:
        """Return id and text of an execution without an order: signed lots that a position gained, or funding was paid for."""
        exec_id, price, size = self._next_id(), self._price(symbol, ticks), abs(lots)
        one = Execution(
            order_id=exec_id, cl_ord_id="", account=account, symbol=symbol, side=SIDE_NAMES[BUY if lots > 0 else SELL],
            ord_type="Market", time_in_force="ImmediateOrCancel", price=None, order_qty=size, leaves_qty=0, ord_status="Filled",
            cum_qty=size, cum_cost=abs(value), avg_px=price, timestamp=self._time, exec_type=exec_type, exec_id=exec_id,
            last_qty=size, exec_cost=abs(value), last_px=price, commission=rate_ppm / PPM, exec_comm=fee,
            transact_time=self._time,
        )  # fmt: skip
        return exec_id, text(one)

    def _control(self, event: ev.Event) -> None:
        self._state.apply(event)
        if self._controls is None:
            self._controls = Controls(self._time)
        self._controls.note(event, self._state)

    def _liveness(self, event: ev.LivenessChecked) -> None:
        self._state.apply(event)
        self._checks.append(LivenessCheck(check_id=event.check_id, source=event.source, timestamp=self._time))


def _listed(structs: list[Any]) -> str:
    return text(structs) if structs else "[]"
