"""The messages that consumers get: one JSON frame a command index, business content only, in the names of FIX.

Quantities are lots, money is units, prices are decimals. The engine writes these shapes and its clients read them, so that this
file knows nothing of either. What the fields mean: engine/README.md, "Messages".
"""

from __future__ import annotations

import msgspec


class Execution(msgspec.Struct, kw_only=True, rename="camel", omit_defaults=True, gc=False):
    """What happened to an order or a position, in the names of FIX."""

    order_id: str
    cl_ord_id: str = msgspec.field(name="clOrdID")
    account: int
    symbol: str
    side: str
    ord_type: str
    time_in_force: str
    price: float | None
    order_qty: int
    leaves_qty: int
    ord_status: str
    cum_qty: int
    cum_cost: int
    avg_px: float
    timestamp: str
    exec_type: str
    exec_id: str
    last_qty: int
    exec_cost: int
    last_px: float
    commission: float
    exec_comm: int
    transact_time: str
    stop_px: float | None = None
    display_qty: int = 0
    ord_rej_reason: str = ""
    text: str = ""
    last_liquidity_ind: str = ""
    trd_match_id: str = msgspec.field(name="trdMatchID", default="")
    link_id: str = ""  # of orders that came together: the id of the first
    contingency_type: str = ""


class Transaction(msgspec.Struct, kw_only=True, rename="camel", omit_defaults=True, gc=False):
    """What changed a balance; `balance` is the one afterwards."""

    transaction_id: str
    account: int
    transact_type: str
    amount: int
    balance: int
    timestamp: str
    symbol: str = ""
    exec_id: str = ""


class LiquidationSummary(msgspec.Struct, kw_only=True, rename="camel", gc=False):
    """One position that was taken away."""

    liquidation_id: str
    account: int
    exec_type: str
    symbol: str
    last_qty: int
    last_px: float
    counterparty: int
    timestamp: str


class FundingSummary(msgspec.Struct, kw_only=True, rename="camel", gc=False):
    """One funding charge of one contract; the payments are transactions."""

    symbol: str
    rate: float
    price: float
    timestamp: str


class LivenessCheck(msgspec.Struct, kw_only=True, rename="camel", gc=False):
    """A milestone of an outside service."""

    check_id: str
    source: str
    timestamp: str


class BookUpdate(msgspec.Struct, kw_only=True, rename="camel", gc=False):
    """What a level shows after the command; 0 = it is gone."""

    symbol: str
    side: str
    price: float
    qty: int


class Message(msgspec.Struct, kw_only=True, rename="camel"):
    """The frame. `prev_message_index` is that of the message before, 0 when there is none."""

    message_index: int
    prev_message_index: int
    timestamp: str
    executions: list[list[Execution]]
    account_transactions: list[Transaction]
    liquidations: list[LiquidationSummary]
    funding_charges: list[FundingSummary]
    liveness_checks: list[LivenessCheck]
    book_updates: list[BookUpdate]
