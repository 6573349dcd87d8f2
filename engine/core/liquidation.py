"""Liquidates an account whose equity is below its maintenance margin, as a list of events.

One step: all its orders are cancelled and all its positions go to INSURANCE at the mark, which covers a deficit or takes a
fee of what is left. When insurance is empty the positions go to those on the other side instead, the most profitable first,
and they share the deficit by lots, each up to its equity; only what nobody can pay is left to insurance, below zero.
"""

from __future__ import annotations

from collections.abc import Callable

from engine.core.accounts import Account, Contract, fee_units
from engine.core.commands import FEES, INSURANCE
from engine.core.events import CancelReason, Event, MoneyMoved, MoveReason, OrderCanceled, PositionMoved
from engine.core.state import State


class Liquidation:
    """Liquidates one account at a time. `emit` applies an event to the state and keeps it."""

    def __init__(self, state: State, emit: Callable[[Event], None]) -> None:
        self._state = state
        self._ledger = state.ledger
        self._emit = emit

    def due(self, account: Account) -> bool:
        """Return whether the account holds positions that its equity does not maintain. The house's accounts never are due."""
        if account.number <= INSURANCE or not account.positions:
            return False
        return self._ledger.equity_units(account) < self._ledger.maintenance_units(account)

    def liquidate(self, account: Account) -> list[int]:
        """Close all that the account has; return the accounts whose positions or money changed with it."""
        for order_id in list(account.orders):
            self._emit(OrderCanceled(order_id, CancelReason.LIQUIDATED))
        insurance = self._ledger.account(INSURANCE)
        if self._ledger.equity_units(insurance) + min(0, self._ledger.equity_units(account)) > 0:
            self._take_over(account)
            return []
        return self._deleverage(account)

    def _take_over(self, account: Account) -> None:
        fee = 0
        for symbol, position in sorted(account.positions.items()):
            contract = self._ledger.contracts[symbol]
            lots, value = position.lots, contract.value_units(position.lots)
            fee += fee_units(value, contract.instrument.liquidation_fee_ppm)
            self._emit(PositionMoved(symbol, account.number, INSURANCE, lots, value, MoveReason.LIQUIDATION))
        if account.balance_units < 0:
            self._move(INSURANCE, account.number, -account.balance_units, MoveReason.DEFICIT)
        else:
            self._move(account.number, INSURANCE, min(fee, account.balance_units), MoveReason.LIQUIDATION_FEE)

    def _deleverage(self, account: Account) -> list[int]:
        taken: dict[int, int] = {}  # account → value at the mark of what it took
        for symbol, position in sorted(account.positions.items()):
            contract, lots = self._ledger.contracts[symbol], position.lots
            for other in self._opposite(contract, account.number, lots):
                size = min(abs(lots), abs(contract.holders[other].lots))
                part = size if lots > 0 else -size
                value = contract.value_units(part)
                self._emit(PositionMoved(symbol, account.number, other, part, value, MoveReason.DELEVERAGE))
                taken[other] = taken.get(other, 0) + abs(value)
                lots -= part
                if not lots:
                    break
            assert not lots, f"{symbol}: {lots} lots have no other side"
        self._share_deficit(account, taken)
        return list(taken)

    def _opposite(self, contract: Contract, number: int, lots: int) -> list[int]:
        """Return who holds the other side, by unrealised profit a lot, highest first; the house last."""

        def rank(other: int) -> tuple[bool, int, int]:
            position = contract.holders[other]
            profit = contract.value_units(position.lots) - position.cost_units
            return other <= INSURANCE, -(profit * 1_000 // abs(position.lots)), other

        return sorted((n for n, p in contract.holders.items() if n != number and p.lots * lots < 0), key=rank)

    def _share_deficit(self, account: Account, taken: dict[int, int]) -> None:
        deficit, value = -account.balance_units, sum(taken.values())
        for other in taken:
            if deficit > 0 and other > FEES:
                share = -(-deficit * taken[other] // value) if value else 0
                equity = self._ledger.equity_units(self._ledger.accounts[other])
                self._move(other, account.number, min(share, max(0, equity), -account.balance_units), MoveReason.DEFICIT)
        if account.balance_units < 0:
            self._move(INSURANCE, account.number, -account.balance_units, MoveReason.DEFICIT)

    def _move(self, payer: int, payee: int, amount_units: int, reason: MoveReason) -> None:
        if amount_units > 0:
            self._emit(MoneyMoved(payer, payee, amount_units, reason))
