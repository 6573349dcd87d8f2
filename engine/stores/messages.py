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


class Listing(msgspec.Struct, kw_only=True, rename="camel", gc=False):
    """A contract that is traded from now on, or no more: its terms, rates as fractions, and its first or last mark."""

    symbol: str
    listing_type: str  # New, Closing (no new orders, the others are cancelled, positions closed at the mark), Delisted
    tick_size: str
    lot_size: str
    lot_tick_units: int
    maker_fee: float
    taker_fee: float
    initial_margin: float
    maintenance_margin: float
    liquidation_fee: float
    price_band: float
    order_qty_max: int
    price_max: float
    mark_price: float
    timestamp: str


class MarkPrice(msgspec.Struct, kw_only=True, rename="camel", gc=False):
    """A new mark; `pending`: it waits until trading is resumed, and comes again then."""

    symbol: str
    mark_price: float
    pending: bool
    timestamp: str


class KillSwitchChange(msgspec.Struct, kw_only=True, rename="camel", gc=False):
    """Whether an account's orders are refused from now on."""

    account: int
    kill_switch: bool
    timestamp: str


class SuspensionChange(msgspec.Struct, kw_only=True, rename="camel", gc=False):
    """One reason not to trade more or less; `reasons` are those after it, and none of them means that trading goes on."""

    reason: str
    set: bool
    reasons: list[str]
    timestamp: str


SCHEMA_VERSION = 3  # 1 had no version, and no lists behind `book_updates`; 2 no Settlement, no contract that ends


class Message(msgspec.Struct, kw_only=True, rename="camel", omit_defaults=True):
    """The frame. `prev_message_index` is that of the message before, 0 when there is none.

    `schema_version` grows when a reader must know about it: fields that may be ignored come without. The last four lists are
    absent when they are empty.
    """

    message_index: int
    prev_message_index: int
    timestamp: str
    schema_version: int
    executions: list[list[Execution]]
    account_transactions: list[Transaction]
    liquidations: list[LiquidationSummary]
    funding_charges: list[FundingSummary]
    liveness_checks: list[LivenessCheck]
    book_updates: list[BookUpdate]
    listings: list[Listing] = []
    mark_prices: list[MarkPrice] = []
    kill_switches: list[KillSwitchChange] = []
    suspensions: list[SuspensionChange] = []
