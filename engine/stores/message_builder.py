"""Builds the message that one command has for consumers, while its events are applied.

The builder stands between `Exchange` and `State.apply`: it looks at orders, balances and levels before and after each event,
so that an event needs to carry no more than what changes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import msgspec
from msgspec import UNSET

from engine.core import events as ev
from engine.core.commands import BUY, INSURANCE, SELL, SIDE_NAMES, Command, Instrument, PlaceOrder
from engine.core.linked import group_of, with_legs
from engine.core.state import Order, State
from engine.core.units import PPM, iso, scale
from engine.stores.controls import Controls
from engine.stores.messages import (
    SCHEMA_VERSION,
    BookUpdate,
    Execution,
    FundingSummary,
    LiquidationSummary,
    LivenessCheck,
    Message,
    Transaction,
)

_ENCODER = msgspec.json.Encoder()


class MessageBuilder:
    """Makes the message of one command after the other: `begin`, `apply` for each event, `finish`."""

    def __init__(self, state: State) -> None:
        self._state = state
        self._ratios: dict[str, tuple[int, int]] = {}  # symbol → price of a tick as numerator, denominator
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
        self._executions: list[list[Execution]] = []
        self._transactions: list[Transaction] = []
        self._liquidations: list[LiquidationSummary] = []
        self._charges: list[FundingSummary] = []
        self._checks: list[LivenessCheck] = []
        self._controls = Controls(self._time)
        self._sweeps: dict[int, list[Execution]] = {}  # taker's order id → the group of its trades
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
        if not (orders or self._controls):
            return b""
        message = Message(
            message_index=self._index, prev_message_index=self._state.message_index, timestamp=self._time,
            schema_version=SCHEMA_VERSION, **self._controls.lists(),
            executions=self._executions, account_transactions=self._transactions, liquidations=self._liquidations,
            funding_charges=self._charges, liveness_checks=self._checks, book_updates=self._updates(),
        )  # fmt: skip
        return _ENCODER.encode(message)

    def _updates(self) -> list[BookUpdate]:
        found = []
        for symbol, side, ticks in self._touched:
            qty = self._state.markets[symbol].book.shown(side, ticks)
            found.append(BookUpdate(symbol=symbol, side=SIDE_NAMES[side], price=self._price(symbol, ticks), qty=qty))
        return found

    def _price(self, symbol: str, ticks: int) -> float:
        """Return a price as the float nearest to the exact decimal."""
        numerator, denominator = self._ratio(symbol)
        return ticks * numerator / denominator

    def _ratio(self, symbol: str) -> tuple[int, int]:
        ratio = self._ratios.get(symbol)
        if ratio is None:
            ratio = self._ratios[symbol] = scale(self._instrument(symbol).tick_size)
        return ratio

    def _instrument(self, symbol: str) -> Instrument:
        return self._state.ledger.contracts[symbol].instrument

    def _next_id(self) -> str:
        self._count += 1
        return f"{self._index}-{self._count}"

    # Orders

    def _of_order(
        self, order: Order, exec_type: str, status: str = "", leaves: int | None = None, lots: int = 0, cost: int = 0,
        price_ticks: int = 0, rate_ppm: int = 0, fee: int = 0, text: str = "", liquidity: str = "", match: str = "",
    ) -> Execution:  # fmt: skip
        """Return an execution of an order as it is now."""
        terms, filled = order.terms, order.filled_lots
        symbol = terms.symbol
        average = 0.0
        if filled:
            numerator, denominator = self._ratio(symbol)
            average = order.cost_units * numerator / (filled * self._instrument(symbol).lot_tick_units * denominator)
        left = order.size_lots - filled
        return Execution(
            order_id=str(order.order_id), cl_ord_id=terms.cl_ord_id, account=terms.account, symbol=symbol,
            side=SIDE_NAMES[terms.side], ord_type=ord_type(terms), time_in_force=terms.time_in_force.value,
            price=None if order.price_ticks is None else self._price(symbol, order.price_ticks),
            stop_px=None if order.stop_ticks is None else self._price(symbol, order.stop_ticks),
            display_qty=terms.display_lots, order_qty=order.size_lots, leaves_qty=left if leaves is None else leaves,
            ord_status=status or status_of(order), cum_qty=filled, link_id=link_id(order), contingency_type=contingency(order),
            cum_cost=order.cost_units, avg_px=average, timestamp=self._time, exec_type=exec_type, exec_id=self._next_id(),
            last_qty=lots, exec_cost=cost, last_px=self._price(symbol, price_ticks) if price_ticks else 0.0,
            commission=rate_ppm / PPM, exec_comm=fee, transact_time=self._time, text=text, last_liquidity_ind=liquidity,
            trd_match_id=match,
        )  # fmt: skip

    def _accepted(self, event: ev.OrderAccepted) -> None:
        self._state.apply(event)
        self._executions.append([self._of_order(self._state.orders[event.order_id], "New")])

    def _rejected(self, event: ev.OrderRejected) -> None:
        self._state.apply(event)
        terms = self._command
        assert isinstance(terms, PlaceOrder), "only an order is rejected"
        order = Order(self._index, terms, terms.size_lots, None, None, 0)
        if terms.symbol in self._state.markets:
            order.price_ticks, order.stop_ticks = terms.price_ticks, terms.stop_ticks
        if terms.side not in (BUY, SELL):
            return  # what has no side is no order that anyone could store
        execution = self._of_order(order, "Rejected", "Rejected", 0)
        execution.ord_rej_reason = event.reason.value
        self._executions.append([execution])

    def _triggered(self, event: ev.OrderTriggered) -> None:
        self._state.apply(event)
        self._executions.append([self._of_order(self._state.orders[event.order_id], "Triggered")])

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
        self._executions.append([self._of_order(order, "Replaced")])

    def _released(self, event: ev.OrderReleased) -> None:
        order = self._state.orders[event.order_id]
        self._touch(order)
        self._state.apply(event)
        self._executions.append([self._of_order(order, "Replaced")])

    def _trailed(self, event: ev.StopsTrailed) -> None:
        self._state.apply(event)
        for order_id, _ in event.moves:
            self._executions.append([self._of_order(self._state.orders[order_id], "Restated")])

    def _canceled(self, event: ev.OrderCanceled) -> None:
        order = self._state.orders[event.order_id]
        self._touch(order)
        self._state.apply(event)
        self._executions.append([self._of_order(order, "Canceled", "Canceled", 0, text=event.reason.value)])

    def _traded(self, event: ev.Traded) -> None:
        taker, maker = self._state.orders[event.taker_id], self._state.orders[event.maker_id]
        symbol, contract = taker.terms.symbol, self._state.ledger.contracts[taker.terms.symbol]
        self._touched[symbol, maker.terms.side, event.price_ticks] = None
        accounts = self._state.ledger.accounts
        parts = (
            (taker, event.taker_fee_units, contract.instrument.taker_fee_ppm, "RemovedLiquidity"),
            (maker, event.maker_fee_units, contract.instrument.maker_fee_ppm, "AddedLiquidity"),
        )
        before = [accounts[order.terms.account].balance_units for order, *_ in parts]
        self._state.apply(event)
        group = self._sweeps.get(event.taker_id)
        if group is None:
            group = self._sweeps[event.taker_id] = []
            self._executions.append(group)
        lots, value, match = event.size_lots, contract.value_units(event.size_lots, event.price_ticks), str(event.trade_id)
        for (order, fee, rate, liquidity), balance in zip(parts, before, strict=True):
            execution = self._of_order(
                order, "Trade", lots=lots, cost=value, price_ticks=event.price_ticks, rate_ppm=rate, fee=fee,
                liquidity=liquidity, match=match,
            )  # fmt: skip
            group.append(execution)
            account = accounts[order.terms.account]
            realised = account.balance_units - balance + fee
            if realised:
                self._book(account.number, "RealisedPnl", realised, balance + realised, symbol, execution.exec_id)
            if fee:
                self._book(account.number, "Fee", -fee, account.balance_units, symbol, execution.exec_id)

    # Money

    def _book(self, account: int, kind: str, amount: int, balance: int, symbol: str = "", exec_id: str = "") -> None:
        self._transactions.append(
            Transaction(
                transaction_id=f"{self._index}-t{len(self._transactions) + 1}", account=account, transact_type=kind,
                amount=amount, balance=balance, timestamp=self._time, symbol=symbol, exec_id=exec_id,
            )
        )  # fmt: skip

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
            execution = self._of_position(account, symbol, "Funding", lots, value, mark_ticks, rate_ppm, units)
            self._executions.append([execution])
            self._book(account, "Funding", -units, self._balance(account), symbol, execution.exec_id)

    def _give_rest(self, symbol: str, rest: int) -> None:
        if rest:
            self._book(INSURANCE, "Funding", rest, self._balance(INSURANCE), symbol)

    def _position_moved(self, event: ev.PositionMoved) -> None:
        settled = event.reason is ev.MoveReason.SETTLEMENT  # CLEARING takes them all, and is left with none: nobody's business
        parts = ((event.giver, -event.lots), (event.taker, event.lots))[: 1 if settled else 2]
        before = [self._balance(account) for account, _ in parts]
        self._state.apply(event)
        ticks = abs(event.value_units) // (abs(event.lots) * self._instrument(event.symbol).lot_tick_units)
        group = []
        for (account, lots), balance in zip(parts, before, strict=True):
            value = event.value_units if lots == event.lots else -event.value_units
            execution = self._of_position(account, event.symbol, event.reason.value, lots, value, ticks, 0, 0)
            group.append(execution)
            if realised := self._balance(account) - balance:
                self._book(account, "RealisedPnl", realised, balance + realised, event.symbol, execution.exec_id)
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
    ) -> Execution:
        """Return an execution that has no order: signed lots that a position gained, or that funding was paid for."""
        exec_id, price, size = self._next_id(), self._price(symbol, ticks), abs(lots)
        return Execution(
            order_id=exec_id, cl_ord_id="", account=account, symbol=symbol, side=SIDE_NAMES[BUY if lots > 0 else SELL],
            ord_type="Market", time_in_force="ImmediateOrCancel", price=None, order_qty=size, leaves_qty=0, ord_status="Filled",
            cum_qty=size, cum_cost=abs(value), avg_px=price, timestamp=self._time, exec_type=exec_type, exec_id=exec_id,
            last_qty=size, exec_cost=abs(value), last_px=price, commission=rate_ppm / PPM, exec_comm=fee,
            transact_time=self._time,
        )  # fmt: skip

    def _control(self, event: ev.Event) -> None:
        self._state.apply(event)
        self._controls.note(event, self._state)

    def _liveness(self, event: ev.LivenessChecked) -> None:
        self._state.apply(event)
        self._checks.append(LivenessCheck(check_id=event.check_id, source=event.source, timestamp=self._time))


def status_of(order: Order) -> str:
    """Return the state of an order that is open, or filled: PendingNew is an exit before its entry's first fill."""
    if order.filled_lots:
        return "PartiallyFilled" if order.leaves_lots else "Filled"
    return "PendingNew" if order.held else "New"


def link_id(order: Order) -> str:
    """Return what all orders of one command have in common when there are several: the id of the first; else nothing."""
    first = group_of(order.order_id)
    return str(first) if first != order.order_id or len(with_legs(order.terms)) > 1 else ""


def contingency(order: Order) -> str:
    """Return FIX's name for what an order does to those that it is linked to."""
    if order.link is UNSET:
        return ""
    return "OneTriggersTheOther" if order.link.exits else "OneCancelsTheOther"


def ord_type(terms: PlaceOrder) -> str:
    """Return FIX's name for an order with these terms, triggered or not."""
    if terms.trail is not UNSET:
        return "TrailingStop" if terms.price_ticks is None else "TrailingStopLimit"
    if terms.stop_ticks is None:
        return "Market" if terms.price_ticks is None else "Limit"
    return "Stop" if terms.price_ticks is None else "StopLimit"
