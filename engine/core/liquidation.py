"""Closes accounts that do not maintain their positions, and covers what they cannot pay, so that no account stays below zero.

One step: all orders of the account are cancelled and all its positions go to INSURANCE at the mark, which covers a deficit or
takes a fee of what is left. When insurance cannot do that, the positions go to those on the other side instead, the most
profitable first. A deficit is paid at once, by each up to its equity: first by INSURANCE, then by those who took the positions,
by the value that they took, then by FEES, then by all other accounts by equity. Equities add up to what is deposited, so
somebody always can. INSURANCE itself is closed the same way when its equity is below zero.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from heapq import nlargest

from engine.core.accounts import Account, Contract, fee_units
from engine.core.commands import FEES, INSURANCE
from engine.core.events import CancelReason, Event, MoneyMoved, MoveReason, PositionMoved
from engine.core.state import State

PAYERS_MAX = 500  # of a deficit that falls to everybody: the richest ones

CancelAll = Callable[[int, str, CancelReason], None]  # account, symbol or "", why


class Liquidation:
    """Liquidates one account at a time. `emit` applies an event to the state and keeps it, `cancel` ends open orders."""

    def __init__(self, state: State, emit: Callable[[Event], None], cancel: CancelAll) -> None:
        self._state = state
        self._ledger = state.ledger
        self._emit = emit
        self._cancel = cancel

    def due(self, account: Account) -> bool:
        """Return whether the account does not maintain its positions, or owes money that nobody has paid yet."""
        equity = self._ledger.equity_units(account)
        if account.number <= INSURANCE or not account.positions:
            return equity < 0
        return equity < self._ledger.maintenance_units(account)

    def liquidate(self, account: Account, most: int) -> list[int]:
        """Close what the account has; return the accounts whose positions or money changed with it.

        When its positions go to more than `most` others, that is a step and the account the first one returned. Cost: a rank of
        the holders of its contracts; of all accounts when nobody else can pay a deficit.
        """
        self._cancel(account.number, "", CancelReason.LIQUIDATED)
        insurance = self._ledger.account(INSURANCE)
        rich = self._ledger.equity_units(insurance) + min(0, self._ledger.equity_units(account)) > 0
        if account is insurance or not rich:
            return self._deleverage(account, most)
        self._take_over(account)
        return []

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

    def _deleverage(self, account: Account, most: int) -> list[int]:
        taken: dict[int, int] = {}  # account → value at the mark of what it took
        whole = sum(abs(self._ledger.contracts[s].value_units(p.lots)) for s, p in account.positions.items())
        for symbol, position in sorted(account.positions.items()):
            contract, lots = self._ledger.contracts[symbol], position.lots
            for other in self._opposite(contract, account.number, lots):
                if most <= 0:
                    return [account.number, *sorted({*taken, *self._cover_part(account, taken, whole)})]
                size = min(abs(lots), abs(contract.holders[other].lots))
                part = size if lots > 0 else -size
                value = contract.value_units(part)
                self._emit(PositionMoved(symbol, account.number, other, part, value, MoveReason.DELEVERAGE))
                taken[other] = taken.get(other, 0) + abs(value)
                lots -= part
                most -= 1
                if not lots:
                    break
            assert not lots, f"{symbol}: {lots} lots have no other side"
        return sorted({*taken, *self._cover(account, taken)})

    def _opposite(self, contract: Contract, number: int, lots: int) -> list[int]:
        """Return who holds the other side, by unrealised profit a lot, highest first; the house last."""

        def rank(other: int) -> tuple[bool, int, int]:
            position = contract.holders[other]
            profit = contract.value_units(position.lots) - position.cost_units
            return other <= INSURANCE, -(profit * 1_000 // abs(position.lots)), other

        return sorted((n for n, p in contract.holders.items() if n != number and p.lots * lots < 0), key=rank)

    def _cover_part(self, account: Account, taken: dict[int, int], whole: int) -> list[int]:
        """Have those who took a part of the positions pay the same part of what is missing; return who paid."""
        payers = []
        for number, value in ({INSURANCE: whole} | taken).items():
            missing = -self._ledger.equity_units(account)
            amount = min(-(-missing * value // whole), max(0, self._equity(number)))
            if amount > 0 and number != account.number:
                self._move(number, account.number, amount, MoveReason.DEFICIT)
                payers.append(number)
            whole -= value if number != INSURANCE else 0
        return payers

    def _cover(self, account: Account, taken: dict[int, int]) -> list[int]:
        """Have the deficit of an account without positions paid; return who paid."""
        payers: list[int] = []
        for weights in self._rounds(account, taken):
            if account.balance_units < 0:
                payers += self._share(account, weights)
        assert account.balance_units >= 0, f"nobody can pay the deficit of account {account.number}"
        return payers

    def _rounds(self, account: Account, taken: dict[int, int]) -> Iterator[dict[int, int]]:
        """Yield who pays, account → weight, one round after the other."""
        yield {INSURANCE: 1} if account.number != INSURANCE else {}
        yield {number: value for number, value in taken.items() if number > INSURANCE}
        yield {FEES: 1}
        others = (number for number in sorted(self._ledger.accounts) if number > INSURANCE and number != account.number)
        rich = {number: equity for number in others if (equity := self._equity(number)) > 0}
        while rich:  # so many as pay in one event each; the next ones only when these have nothing left
            first = dict(sorted(nlargest(PAYERS_MAX, rich.items(), key=lambda one: (one[1], -one[0]))))
            yield first
            rich = {number: equity for number, equity in rich.items() if number not in first}

    def _share(self, account: Account, weights: dict[int, int]) -> list[int]:
        """Have some accounts pay a deficit by their weights, each up to its equity; return who paid."""
        deficit, whole, payers = -account.balance_units, sum(weights.values()), []
        for number, weight in weights.items():
            amount = min(-(-deficit * weight // whole), max(0, self._equity(number)), -account.balance_units) if weight else 0
            if amount > 0:
                self._move(number, account.number, amount, MoveReason.DEFICIT)
                payers.append(number)
        return payers

    def _equity(self, number: int) -> int:
        return self._ledger.equity_units(self._ledger.account(number))

    def _move(self, payer: int, payee: int, amount_units: int, reason: MoveReason) -> None:
        if amount_units > 0:
            self._emit(MoneyMoved(payer, payee, amount_units, reason))
