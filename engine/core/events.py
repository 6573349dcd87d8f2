"""What happened: one struct an event. Applying a list of them to an empty `State` is the whole of recovery.

Whatever depends on a rule that may change (fees, payments, clipped sizes) stands in the event as a number.
"""

from __future__ import annotations

from enum import StrEnum

import msgspec
from msgspec import UNSET, UnsetType

from engine.core.commands import Instrument, PlaceOrder

VERSION = 3  # 1 had no linked orders, no trails, no waivers, 2 no cancels in steps, no delisting; both are read as they are


class RejectReason(StrEnum):
    """Why a command was not done (`ordRejReason`)."""

    UNKNOWN_SYMBOL = "UnknownSymbol"
    UNKNOWN_ACCOUNT = "UnknownAccount"
    UNKNOWN_ORDER = "UnknownOrder"
    DUPLICATE_CL_ORD_ID = "DuplicateClOrdID"
    DUPLICATE_SYMBOL = "DuplicateSymbol"
    INVALID_INSTRUMENT = "InvalidInstrument"
    INVALID_AMOUNT = "InvalidAmount"
    INVALID_SIDE = "InvalidSide"
    INVALID_SIZE = "InvalidSize"
    INVALID_PRICE = "InvalidPrice"
    INVALID_EXPIRY = "InvalidExpiry"
    INVALID_COMBINATION = "InvalidCombination"
    SUSPENDED = "TradingSuspended"
    KILLED = "KillSwitchOn"
    TOO_MANY_ORDERS = "TooManyOrders"
    PRICE_BAND = "OutsidePriceBand"
    POST_ONLY = "PostOnlyWouldTrade"
    REDUCE_ONLY = "ReduceOnlyWouldIncrease"
    MARGIN = "InsufficientMargin"
    UNKNOWN_STORE = "UnknownStore"
    INVALID_STORE = "InvalidStore"
    INVALID_INDEX = "InvalidIndex"
    FUNDING_UNDER_WAY = "FundingUnderWay"
    DELISTED = "InstrumentDelisted"
    OPEN_ORDERS = "OpenOrders"
    OPEN_POSITIONS = "OpenPositions"


class CancelReason(StrEnum):
    """Why an order left without being filled."""

    REQUESTED = "Requested"
    UNFILLED = "Unfilled"  # the rest of a market or IOC order
    FILL_OR_KILL = "FillOrKill"
    POST_ONLY = "PostOnlyWouldTrade"
    REDUCE_ONLY = "NothingToReduce"
    SELF_TRADE = "SelfTrade"
    EXPIRED = "Expired"
    TIMER = "CancelAllAfter"
    KILLED = "KillSwitch"
    LIQUIDATED = "Liquidated"
    MARGIN = "InsufficientMargin"  # its account cannot pay for its price any more
    DELISTED = "Delisted"  # its contract is
    LINKED = "Linked"  # an order that it is linked to traded, was triggered or was cancelled


class MoveReason(StrEnum):
    """Why money or a position went from one account to another."""

    LIQUIDATION = "Liquidation"
    DELEVERAGE = "Deleverage"
    LIQUIDATION_FEE = "LiquidationFee"
    DEFICIT = "Deficit"
    SETTLEMENT = "Settlement"  # of a contract that is delisted


class Link(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """Which other orders an order is linked to, by id; 0 and () are none. What is closed meanwhile links nothing any more."""

    partner: int = 0  # the other one of a pair: what one trades, the other may not
    entry: int = 0  # whose position it closes
    exits: tuple[int, ...] = ()  # what closes its position
    held: bool = False  # an exit before the first fill of its entry
    covered: bool = False  # its partner has the open lots of both


class Event(msgspec.Struct, frozen=True, gc=False):
    """The base of all events; the tag on the wire is the domain's name for it."""


class SentBy(Event, frozen=True, tag="sent.by"):
    """Who sent the command whose events these are: a key's id, `token`, `queue`, or `engine` for what it does by itself.

    The first event of a record; it changes nothing, and whoever decides does not see it.
    """

    sender: str


class EventsTooNew(msgspec.DecodeError):
    """A later version of the engine wrote what follows."""

    def __init__(self, version: int) -> None:
        super().__init__(f"from here on they are of version {version}, and this engine reads up to {VERSION}")


class SchemaSet(Event, frozen=True, tag="schema.set"):
    """Events are of this version from here on; before the first one they are of version 1.

    Once a version, and not in each record: there it cost a twentieth of the time of a journaled command.
    """

    version: int


class TermBegan(Event, frozen=True, tag="term.began"):
    """Another engine leads from here on: terms rise by one at each promotion, the first leader's is 0."""

    term: int


class InstrumentCreated(Event, frozen=True, tag="instrument.created"):
    """A contract is listed."""

    instrument: Instrument
    mark_ticks: int


class DelistingBegun(Event, frozen=True, tag="delisting.begun"):
    """A contract takes no orders and marks any more; its orders are cancelled and its positions closed at the mark, in steps."""

    symbol: str


class InstrumentDelisted(Event, frozen=True, tag="instrument.delisted"):
    """A contract has neither orders nor positions and never will again; its terms stay known, and its name taken."""

    symbol: str


class CommandRejected(Event, frozen=True, tag="command.rejected"):
    """A command that is no order was not done; nothing changed."""

    command: str
    reason: RejectReason


class Transferred(Event, frozen=True, tag="account.transferred"):
    """A deposit, or a withdrawal when negative."""

    account: int
    amount_units: int


class OrderAccepted(Event, frozen=True, tag="order.accepted"):
    """An order exists. It is in no book yet."""

    order_id: int
    order: PlaceOrder
    expire_ns: int  # 0 = never
    link: Link | UnsetType = UNSET


class OrderRejected(Event, frozen=True, tag="order.rejected"):
    """An order was refused; nothing changed, and its client id is free unless it is the duplicate of another."""

    account: int
    symbol: str
    cl_ord_id: str
    reason: RejectReason


class OrderStopped(Event, frozen=True, tag="order.stopped"):
    """A stop waits for its price."""

    order_id: int


class OrderTriggered(Event, frozen=True, tag="order.triggered"):
    """A stop's price was traded; it enters now."""

    order_id: int


class OrderRested(Event, frozen=True, tag="order.rested"):
    """What is left of an order is last in its queue."""

    order_id: int


class OrderAmended(Event, frozen=True, tag="order.amended"):
    """An order's new terms. `kept`: it is where it was. Else it is in no book and enters again."""

    order_id: int
    size_lots: int
    price_ticks: int | None
    stop_ticks: int | None
    kept: bool


class OrderReleased(Event, frozen=True, tag="order.released"):
    """An exit follows the fills of its entry: so many lots in all. It is in no book and enters, or waits, again."""

    order_id: int
    size_lots: int


class StopsTrailed(Event, frozen=True, tag="stops.trailed"):
    """New triggers of stops that follow the last trade of their market."""

    symbol: str
    moves: tuple[tuple[int, int], ...]  # order id, stop_ticks


class OrderCanceled(Event, frozen=True, tag="order.cancelled"):
    """An order is gone."""

    order_id: int
    reason: CancelReason


class OrderPaused(Event, frozen=True, tag="order.paused"):
    """An order has traded as much as one step may; it is in no book, and goes on with the next step."""

    order_id: int


class CancelsNoted(Event, frozen=True, tag="cancels.noted"):
    """What an account has open, in one contract or ("") all, is as good as cancelled: it trades no more and reserves nothing.

    Later steps take these orders out. Nothing is done for each of them here, so that many accounts may ask at one moment.
    """

    account: int
    symbol: str
    upto: int  # index of the last command whose orders these are
    reason: CancelReason
    order_ids: tuple[int, ...]


class CancelsDone(Event, frozen=True, tag="cancels.done"):
    """All of them are taken out."""

    account: int
    symbol: str


class CancelRejected(Event, frozen=True, tag="order.cancel_rejected"):
    """A cancel or an amend was refused; nothing changed."""

    account: int
    cl_ord_id: str
    reason: RejectReason


class Traded(Event, frozen=True, tag="trade.executed"):
    """Two orders met at the maker's price; fees go to FEES, rebates are negative.

    Contract and side are those of the orders: here too, so that a trade can be told to others without the orders' table.
    """

    trade_id: int
    taker_id: int
    maker_id: int
    price_ticks: int
    size_lots: int
    taker_fee_units: int
    maker_fee_units: int
    symbol: str
    taker_side: int


class MarkSet(Event, frozen=True, tag="mark.set"):
    """A new mark; while trading is suspended it waits (`pending`)."""

    symbol: str
    mark_ticks: int
    pending: bool


class FundingCharged(Event, frozen=True, tag="funding.charged"):
    """What each account paid, or received when negative; what rounding leaves goes to INSURANCE."""

    symbol: str
    rate_ppm: int
    payments: tuple[tuple[int, int], ...]  # account, units


class FundingBegun(Event, frozen=True, tag="funding.begun"):
    """So many holders are charged in steps, at this rate and mark: what they hold now counts, whatever they do meanwhile."""

    symbol: str
    rate_ppm: int
    mark_ticks: int
    holders: int


class FundingStepped(Event, frozen=True, tag="funding.stepped"):
    """What some holders paid, or received when negative. All up to `upto` are done, and `ahead` those who would not wait."""

    symbol: str
    rate_ppm: int
    mark_ticks: int
    payments: tuple[tuple[int, int], ...]  # account, units
    upto: int
    ahead: tuple[int, ...] = ()


class FundingEnded(Event, frozen=True, tag="funding.ended"):
    """All are charged; `rest_units`, what rounding and INSURANCE's own position leave, goes to INSURANCE."""

    symbol: str
    rest_units: int


class ReviewBegun(Event, frozen=True, tag="review.begun"):
    """The margin of all holders is looked at in steps; of one that is under way all are looked at again."""

    symbol: str


class ReviewStepped(Event, frozen=True, tag="review.stepped"):
    """The holders up to `after` are looked at; `wrapped`: on the second way round, for those before where it began."""

    symbol: str
    after: int
    wrapped: bool


class ReviewEnded(Event, frozen=True, tag="review.ended"):
    """All holders are looked at."""

    symbol: str


class KeyUsed(Event, frozen=True, tag="key.used"):
    """The command was asked with an idempotency key and answered so. `digest` (hex) is of what was asked."""

    key: str
    digest: str
    time_ns: int
    index: int
    status: int
    body: str


class SuspectsNoted(Event, frozen=True, tag="suspects.noted"):
    """The margin of these accounts is looked at in a later step."""

    accounts: tuple[int, ...]


class SuspectsTaken(Event, frozen=True, tag="suspects.taken"):
    """So many of them, the first ones, are looked at now."""

    count: int


class PositionMoved(Event, frozen=True, tag="position.moved"):
    """`lots` (signed) of a position went to another account for `value_units` (signed)."""

    symbol: str
    giver: int
    taker: int
    lots: int
    value_units: int
    reason: MoveReason


class MoneyMoved(Event, frozen=True, tag="money.moved"):
    """Money went from one account to another."""

    payer: int
    payee: int
    amount_units: int
    reason: MoveReason


class TimerSet(Event, frozen=True, tag="timer.set"):
    """An account's orders are cancelled at `deadline_ns`; 0 = never."""

    account: int
    deadline_ns: int


class KillSwitchSet(Event, frozen=True, tag="killswitch.set"):
    """An account may (not) place orders."""

    account: int
    on: bool


class Suspended(Event, frozen=True, tag="trading.suspended"):
    """One more reason not to trade."""

    reason: str


class Resumed(Event, frozen=True, tag="trading.resumed"):
    """One reason less."""

    reason: str


class StoreWaived(Event, frozen=True, tag="store.waived"):
    """Whether a store's age is overlooked, because trading was resumed by hand; until its consumer has caught up."""

    store_id: str
    on: bool


class LivenessChecked(Event, frozen=True, tag="liveness.checked"):
    """A milestone of an outside service; nothing changed."""

    check_id: str
    source: str


class StoreCreated(Event, frozen=True, tag="store.created"):
    """Messages above `after_index` are kept for a consumer."""

    store_id: str
    after_index: int


class StoreDeleted(Event, frozen=True, tag="store.deleted"):
    """A consumer's messages are no longer kept."""

    store_id: str


class StorePurged(Event, frozen=True, tag="store.purged"):
    """A consumer has all messages up to `message_index`, inclusive."""

    store_id: str
    message_index: int


class StoreConfigured(Event, frozen=True, tag="store.configured"):
    """From this age in ms of its oldest message on, a store suspends trading."""

    store_id: str
    age_ms_max: int


AnyEvent = (
    SentBy | InstrumentCreated | CommandRejected | Transferred | OrderAccepted | OrderRejected | OrderStopped | OrderTriggered
    | OrderRested | OrderAmended | OrderCanceled | CancelRejected | Traded | MarkSet | FundingCharged | PositionMoved
    | MoneyMoved | TimerSet | KillSwitchSet | Suspended | Resumed | LivenessChecked | StoreCreated | StoreDeleted | StorePurged
    | StoreConfigured | OrderReleased | StopsTrailed | StoreWaived | SchemaSet | OrderPaused | FundingBegun | FundingStepped
    | FundingEnded | ReviewBegun | ReviewStepped | ReviewEnded | SuspectsNoted | SuspectsTaken | KeyUsed
    | TermBegan | CancelsNoted | CancelsDone | DelistingBegun | InstrumentDelisted
)  # fmt: skip

_ENCODER = msgspec.msgpack.Encoder()
_DECODER = msgspec.msgpack.Decoder(list[AnyEvent])


def encode(events: list[Event]) -> bytes:
    """Return the events of one command as the journal keeps them (MessagePack, names included, so that fields may be added)."""
    return _ENCODER.encode(events)


def decode(payload: bytes) -> list[AnyEvent]:
    """Return what `encode` was given. Raises: msgspec.DecodeError, ValidationError."""
    return _DECODER.decode(payload)
