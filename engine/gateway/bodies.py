"""Shapes of the gateway's JSON, one struct a body. Prices are numbers, quantities contracts, money units.

Times are ISO 8601 in UTC. Order bodies are in `order_bodies.py`, messages in `stores/messages.py`. What comes in is strict: no
field that nobody knows, no number in quotation marks, no fraction of a unit.
"""

from __future__ import annotations

from decimal import Decimal
from typing import Annotated

from msgspec import UNSET, Meta, Struct, UnsetType, field

from engine.core.units import WHOLE_MAX
from engine.gateway.order_bodies import Body, Symbol

PROBLEM = "application/problem+json"

Amount = Annotated[int, Meta(gt=0, le=WHOLE_MAX, description="money units: millionths of the settlement currency")]
Count = Annotated[int, Meta(ge=1, le=WHOLE_MAX)]


class Problem(Struct, rename="camel", omit_defaults=True):
    """Why something was not done (RFC 9457). `code` is for programs, `detail` for people; `order_id` that of a duplicate."""

    type: str
    title: str
    status: int
    detail: str
    code: str
    order_id: str | UnsetType = UNSET
    errors: list[str] | UnsetType = UNSET


class AmountBody(Body, frozen=True, kw_only=True):
    """Money to bring in or take out."""

    amount: Amount


class InstrumentBody(Body, frozen=True, kw_only=True, rename="camel"):
    """A contract to list. Rates are fractions with at most six digits behind the point, prices multiples of the tick.

    `lot_tick_units`, the money for one contract and one tick, follows from tick and lot size when it is not given.
    """

    symbol: Symbol
    mark_price: Decimal
    tick_size: str = "1"
    lot_size: str = "1"
    lot_tick_units: Count | None = None
    maker_fee: Decimal = Decimal(0)
    taker_fee: Decimal = Decimal(0)
    initial_margin: Decimal = Decimal("0.1")
    maintenance_margin: Decimal = Decimal("0.05")
    liquidation_fee: Decimal = Decimal("0.005")
    price_band: Decimal = Decimal("0.1")
    order_qty_max: Count = 1_000_000
    price_max: Decimal | None = None


class InstrumentView(Struct, kw_only=True, rename="camel"):
    """A contract. `price_band` 0: any price. `status`: Open, Closing (its orders and positions are being closed), Delisted."""

    symbol: str
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
    status: str


class LinkedView(Struct, rename="camel"):
    """Another open order of the same pair or bracket."""

    order_id: str
    cl_ord_id: str = field(name="clOrdID")


class OrderView(Struct, kw_only=True, rename="camel", omit_defaults=True):
    """An order right after command `message_index`. `text`: why it was cancelled.

    `stop_px` of a trailing stop is where it stands, absent while it is held. `link_id`: the order that it came with.
    """

    message_index: int
    order_id: str
    cl_ord_id: str = field(name="clOrdID")
    account: int
    symbol: str
    side: str
    ord_type: str
    time_in_force: str
    price: float | None
    stop_px: float | None
    ord_status: str
    order_qty: int
    leaves_qty: int
    cum_qty: int
    cum_cost: int
    avg_px: float
    text: str = ""
    trail_amount: float | None = None
    trail_rate: float | None = None
    link_id: str = ""
    contingency_type: str = ""
    linked: list[LinkedView] = []


class PastOrderView(Struct, rename="camel"):
    """An order as it was last, when it came, and when it was closed; null while it is open."""

    order: OrderView
    accepted_time: str
    closed_time: str | None


class PastOrdersView(Struct, rename="camel"):
    """A page. `cursor` asks for the next one, null when there is none. Orders that came after `since_index` are all kept."""

    orders: list[PastOrderView]
    cursor: str | None
    since_index: int


class FillView(Struct, kw_only=True, rename="camel"):
    """One side of a trade. `exec_cost` is its value, `exec_comm` the fee, a rebate when negative; both money units."""

    message_index: int
    trd_match_id: str = field(name="trdMatchID")
    order_id: str
    cl_ord_id: str = field(name="clOrdID")
    account: int
    symbol: str
    side: str
    last_qty: int
    last_px: float
    exec_cost: int
    exec_comm: int
    last_liquidity_ind: str
    transact_time: str


class FillsView(Struct, rename="camel"):
    """A page of fills; as a page of orders."""

    fills: list[FillView]
    cursor: str | None
    since_index: int


class CanceledView(Struct, rename="camel"):
    """Which orders a command cancelled."""

    message_index: int
    canceled: list[str]


class TimerView(Struct, rename="camel"):
    """When an account's orders are cancelled unless it is heard of; null = never."""

    message_index: int
    account: int
    deadline: str | None


class KillSwitchView(Struct, rename="camel"):
    """Whether an account's orders are refused, and which ones that cancelled."""

    message_index: int
    account: int
    kill_switch: bool
    canceled: list[str]


class LevelView(Struct):
    """One price of a book: the contracts it shows and how many orders they belong to."""

    price: float
    qty: int
    orders: int


class BookView(Struct, rename="camel"):
    """A book after command `message_index`: best levels first. Prices are null while there is none."""

    symbol: str
    message_index: int
    timestamp: str
    bids: list[LevelView]
    asks: list[LevelView]
    last_price: float | None
    mark_price: float


class PositionView(Struct, rename="camel"):
    """Signed contracts, and what they cost, signed alike."""

    symbol: str
    qty: int
    entry_value: int
    mark_price: float
    unrealised_pnl: int = field(name="unrealisedPnl")


class AccountSummary(Struct, kw_only=True, rename="camel"):
    """An account's money. `available`: what may be withdrawn."""

    account: int
    balance: int
    equity: int
    initial_margin: int
    maintenance_margin: int
    available: int
    kill_switch: bool


class AccountView(AccountSummary, kw_only=True, rename="camel"):
    """The same with positions and open orders; the deadline is that of CancelAllAfter."""

    message_index: int
    deadline: str | None
    positions: list[PositionView]
    open_orders: list[OrderView]


class TransferView(Struct, rename="camel"):
    """A deposit or a withdrawal, and the balance afterwards."""

    message_index: int
    account: int
    amount: int
    balance: int


class MarkView(Struct, rename="camel"):
    """A mark; `pending`: it waits until trading is resumed."""

    message_index: int
    symbol: str
    mark_price: float
    pending: bool


class FundingView(Struct, rename="camel"):
    """A funding charge: how many accounts pay or receive; of many it is done in steps, which the messages tell."""

    message_index: int
    symbol: str
    rate: float
    payments: int


class LivenessView(Struct, rename="camel"):
    """A milestone; it comes back in the message of this index."""

    message_index: int
    check_id: str
    source: str


class ControlsView(Struct, rename="camel"):
    """Why trading is suspended: `manual`, or `store:<id>` for a consumer that is behind."""

    message_index: int
    suspended: bool
    reasons: list[str]


class StandbyView(Struct, rename="camel"):
    """The standby that is connected: what its disk has, how many indices it lacks, and for how long it has lacked something."""

    name: str
    since: str
    index: int
    lag_commands: int
    lag_millis: int


class ReplicationView(Struct, kw_only=True, rename="camel", omit_defaults=True):
    """Who leads and who follows. `problem` is why a leader takes no commands, or why a standby does not follow.

    Of a standby: its leader, how many indices that had more when it was heard last (-1 = never), and when that was.
    """

    role: str
    term: int
    index: int
    replication: str
    problem: str
    standby: StandbyView | None = None
    leader: str | UnsetType = UNSET
    missing_commands: int | UnsetType = UNSET
    heard_millis_ago: int | UnsetType = UNSET


class StoreView(Struct, kw_only=True, rename="camel"):
    """A message store and what it holds."""

    store_id: str
    # Not the first message that is kept, as the name of the protocol suggests, but the index right before it: everything up to
    # here is purged or was there before the store. A consumer that gives it as `lastSeen` misses nothing and gets nothing twice.
    first_item_index: int
    last_item_index: int  # of the newest message; while the store holds none, the same as `first_item_index`
    item_count: int
    oldest_item_age_millis: int
    maximum_unpurged_item_age_millis: int
    suspended: bool
    consumers: int


class PurgeView(Struct, rename="camel"):
    """What is purged now: everything up to `purged_index`."""

    message_index: int
    store_id: str
    purged_index: int


class PurgeableView(Struct, rename="camel"):
    """What a purge up to `purged_index` would take now: `item_count` messages, of very old ones up to 255 too many or too few."""

    message_index: int
    store_id: str
    purged_index: int
    item_count: int


class DeletedView(Struct, rename="camel"):
    """A store that is gone."""

    message_index: int
    store_id: str
