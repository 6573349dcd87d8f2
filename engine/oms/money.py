"""Keeps transactions, balances and positions: rows from messages, and what a fill makes of a position.

A balance is what the last transaction says; the FEES account has no transactions for fees and gets what the payers paid. Both,
and positions, begin with what the exchange says when a database is opened (`Opening`), and take only messages after that.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from engine.core.commands import BUY, FEES, SIDE_NAMES
from engine.stores.messages import Execution, Transaction

TRANSACTIONS = (
    ("transactionId", "TEXT PRIMARY KEY"), ("account", "BIGINT NOT NULL"), ("transactionType", "TEXT NOT NULL"),
    ("amount", "BIGINT NOT NULL"), ("balance", "BIGINT NOT NULL"), ("symbol", "TEXT"), ("executionId", "TEXT"),
    ("transactionTime", "TEXT NOT NULL"), ("messageIndex", "BIGINT NOT NULL"),
)  # fmt: skip
BALANCES = (
    ("account", "BIGINT PRIMARY KEY"), ("balance", "BIGINT NOT NULL"), ("openingIndex", "BIGINT NOT NULL"),
    ("messageIndex", "BIGINT NOT NULL"),
)  # fmt: skip
POSITIONS = (
    ("account", "BIGINT NOT NULL"), ("symbol", "TEXT NOT NULL"), ("quantity", "BIGINT NOT NULL"), ("cost", "BIGINT NOT NULL"),
    ("messageIndex", "BIGINT NOT NULL"),
)  # fmt: skip
OPENED = (("storeId", "TEXT PRIMARY KEY"),)  # has its row once the openings are in
FEE = "Fee"

Holder = tuple[int, str]  # account, symbol
TransactionRow = tuple[str, int, str, int, int, str | None, str | None, str, int]
BalanceRow = tuple[int, int, int, int]
PositionRow = tuple[int, str, int, int, int]


class Opening(NamedTuple):
    """What the exchange says of one account after command `at_index`: balance, and symbol → signed quantity and cost."""

    account: int
    at_index: int
    balance: int
    positions: dict[str, tuple[int, int]]


class Fill(NamedTuple):
    """What changed a position: signed quantity, and its value, signed alike."""

    at_index: int
    quantity: int
    value: int


class Posting(NamedTuple):
    """What changed a balance: by an amount, or to a balance."""

    at_index: int
    amount: int | None
    balance: int | None


class Money:
    """What several messages in a row do to transactions, balances and positions."""

    def __init__(self) -> None:
        self.transactions: list[TransactionRow] = []
        self.postings: dict[int, list[Posting]] = {}
        self.fills: dict[Holder, list[Fill]] = {}

    def transact(self, one: Transaction, index: int) -> None:
        """Add a transaction; a fee is what FEES gets."""
        row = one.transaction_id, one.account, one.transact_type, one.amount, one.balance
        self.transactions.append((*row, text(one.symbol) or None, one.exec_id or None, one.timestamp, index))
        self.postings.setdefault(one.account, []).append(Posting(index, None, one.balance))
        if one.transact_type == FEE:
            self.postings.setdefault(FEES, []).append(Posting(index, -one.amount, None))

    def fill(self, one: Execution, index: int) -> None:
        """Add what an execution traded."""
        sign = 1 if one.side == SIDE_NAMES[BUY] else -1
        holder = one.account, text(one.symbol)
        self.fills.setdefault(holder, []).append(Fill(index, sign * one.last_qty, sign * one.exec_cost))

    def balances(self, known: Mapping[int, BalanceRow]) -> list[BalanceRow]:
        """Return the rows of the accounts that changed; `known` are those that are there."""
        rows = []
        for account, postings in self.postings.items():
            _, balance, opening, index = known.get(account, (account, 0, -1, -1))
            for posting in postings:
                if posting.at_index > opening:
                    balance = balance + (posting.amount or 0) if posting.balance is None else posting.balance
                    index = posting.at_index
            rows.append((account, balance, opening, index))
        return rows

    def positions(self, known: Mapping[Holder, PositionRow], balances: Mapping[int, BalanceRow]) -> list[PositionRow]:
        """Return the rows of the positions that changed; an account's opening is in its balance."""
        rows = []
        for holder, fills in self.fills.items():
            _, _, quantity, cost, index = known.get(holder, (*holder, 0, 0, -1))
            opening = balances[holder[0]][2] if holder[0] in balances else -1
            for fill in fills:
                if fill.at_index > opening:
                    quantity, cost = filled(quantity, cost, fill.quantity, fill.value)
                    index = fill.at_index
            rows.append((*holder, quantity, cost, index))
        return rows


def text(value: str) -> str:
    """Return what a client wrote without NUL, which PostgreSQL cannot store; one odd client id must not stop everything."""
    return value.replace("\0", "\N{REPLACEMENT CHARACTER}")


def filled(quantity: int, cost: int, more: int, value: int) -> tuple[int, int]:
    """Return a position after a fill, all numbers signed: what closes takes its share of the cost along, rounded down.

    The exchange's own rule (`Ledger.fill`): 4 that cost 400, −6 for −660: 4 close, −2 for −220 are left.
    """
    closing = min(abs(more), abs(quantity)) if more * quantity < 0 else 0
    closed_value = value * closing // abs(more)
    closed_cost = cost * closing // abs(quantity) if closing else 0
    return quantity + more, cost + value - closed_value - closed_cost


def opening_rows(openings: Iterable[Opening]) -> tuple[list[BalanceRow], list[PositionRow]]:
    """Return the rows that a database begins with."""
    balances, positions = [], []
    for one in openings:
        balances.append((one.account, one.balance, one.at_index, one.at_index))
        positions += [(one.account, text(symbol), *held, one.at_index) for symbol, held in one.positions.items()]
    return balances, positions
