"""What may be asked of the exchange: one struct a command, sequenced and stamped by whoever calls `Exchange.decide`.

Prices are integer ticks, sizes integer lots, money integer units of the one settlement currency, rates parts per million,
times nanoseconds since the epoch. A command that cannot be done is answered by an event with a reason, never by an exception.
"""

from __future__ import annotations

from enum import StrEnum

import msgspec
from msgspec import UNSET, UnsetType

BUY, SELL = 0, 1
SIDE_NAMES = ("Buy", "Sell")  # by number, as people and messages write them
SIDES = {name: number for number, name in enumerate(SIDE_NAMES)}
STORE_REASON = "store:"  # and a store's id: its consumer is behind
INSURANCE, FEES = 0, -1  # accounts of the house; customers' are above zero
CLEARING = -2  # holds what a funding under way has taken and not yet given: empty when none is


class TimeInForce(StrEnum):
    """How long an order may live. A Day ends at midnight UTC."""

    GTC = "GoodTillCancel"
    DAY = "Day"
    GTD = "GoodTillDate"
    IOC = "ImmediateOrCancel"
    FOK = "FillOrKill"


class SelfTrade(StrEnum):
    """Which order is cancelled when an account would trade with itself; the entering order's choice counts."""

    NEWEST = "CancelNewest"
    OLDEST = "CancelOldest"
    BOTH = "CancelBoth"


class Command(msgspec.Struct, frozen=True, tag=True, gc=False):
    """The base of all commands; the tag on the wire is the class's name."""


class Instrument(msgspec.Struct, frozen=True, gc=False):
    """A linear perpetual contract.

    `lot_tick_units`: money for one lot and one tick. `band_ppm`: how far from the mark an order's price may be, 0 = any.
    `tick_size` (price of one tick) and `lot_size` (base asset in one lot) are decimals for people; nothing is decided by them.
    """

    symbol: str
    lot_tick_units: int = 1
    maker_fee_ppm: int = 0
    taker_fee_ppm: int = 0
    initial_margin_ppm: int = 100_000
    maintenance_margin_ppm: int = 50_000
    liquidation_fee_ppm: int = 5_000
    band_ppm: int = 0
    size_lots_max: int = 1_000_000
    price_ticks_max: int = 10_000_000
    tick_size: str = "1"
    lot_size: str = "1"


class CreateInstrument(Command, frozen=True):
    """List a contract at its first mark."""

    instrument: Instrument
    mark_ticks: int


class Delist(Command, frozen=True):
    """End a contract that has neither open orders nor positions; with `settle` cancel and close them first, at the mark."""

    symbol: str
    settle: bool = False


class Deposit(Command, frozen=True):
    """Bring money in; the first deposit opens the account."""

    account: int
    amount_units: int


class Withdraw(Command, frozen=True):
    """Take money out that neither positions nor open orders need as margin."""

    account: int
    amount_units: int


class Trail(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """How far a trailing stop stays behind the last trade: whole ticks, or parts per million of its price; one of the two."""

    ticks: int = 0
    ppm: int = 0


class Leg(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """An order that comes with another one: limit with a price, stop with `stop_ticks` or a trail, stop-limit with both.

    Symbol, account, size and life are those of the order that it comes with. `side` UNSET: the same in an OCO pair, the other
    one for the exits of a bracket, which cannot choose.
    """

    cl_ord_id: str
    side: int | UnsetType = UNSET
    price_ticks: int | None = None
    stop_ticks: int | None = None
    trail: Trail | UnsetType = UNSET


class More(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """What few orders have: a distance to trail at, the other one of a pair, the exits of a bracket."""

    trail: Trail | UnsetType = UNSET
    oco: Leg | UnsetType = UNSET
    take_profit: Leg | UnsetType = UNSET
    stop_loss: Leg | UnsetType = UNSET


class PlaceOrder(Command, frozen=True):
    """Enter an order: market without a price, limit with one, stop or stop-limit with `stop_ticks` as well.

    `display_lots` 0 shows all. `expire_ns` is for GTD only. `cl_ord_id` is the account's own and never used twice. With
    `more` it is a stop that follows the market (`trailing.py`), or brings other orders (`linked.py`).
    """

    account: int
    symbol: str
    cl_ord_id: str
    side: int
    size_lots: int
    price_ticks: int | None = None
    stop_ticks: int | None = None
    time_in_force: TimeInForce = TimeInForce.GTC
    post_only: bool = False
    reduce_only: bool = False
    display_lots: int = 0
    self_trade: SelfTrade = SelfTrade.NEWEST
    expire_ns: int = 0
    # UNSET is not written at all: a plain order's bytes, and the state hash of an old journal, are what they were without it. One
    # field and not four: with more than 15 MessagePack begins a map with another byte, whatever is in it.
    more: More | UnsetType = UNSET

    @property
    def trail(self) -> Trail | UnsetType:
        """How far it stays behind the last trade."""
        return UNSET if self.more is UNSET else self.more.trail

    @property
    def is_stop(self) -> bool:
        """Whether it waits for a price before it enters."""
        return self.stop_ticks is not None or self.trail is not UNSET


class AmendOrder(Command, frozen=True):
    """Change an open order's total size, price or stop; None leaves as it is. Less size keeps priority, else it re-enters."""

    account: int
    cl_ord_id: str
    size_lots: int | None = None
    price_ticks: int | None = None
    stop_ticks: int | None = None


class CancelOrder(Command, frozen=True):
    """Cancel one open order."""

    account: int
    cl_ord_id: str


class CancelAll(Command, frozen=True):
    """Cancel an account's open orders, of one symbol or, when None, of all."""

    account: int
    symbol: str | None = None


class CancelAllAfter(Command, frozen=True):
    """Cancel all of an account's orders unless it is asked again within `timeout_ns`; 0 disarms."""

    account: int
    timeout_ns: int


class KillSwitch(Command, frozen=True):
    """Cancel an account's orders and refuse new ones until it is switched off again."""

    account: int
    on: bool


class Suspend(Command, frozen=True):
    """Stop trading for `reason`; trading goes on when every reason has been lifted."""

    reason: str


class Resume(Command, frozen=True):
    """Lift one reason."""

    reason: str


class ResumeAll(Command, frozen=True):
    """Lift every reason by hand. A store that is behind does not suspend trading again before it has caught up once."""


class SetMark(Command, frozen=True):
    """Set the price that margin, funding and liquidation use."""

    symbol: str
    mark_ticks: int


class Fund(Command, frozen=True):
    """Charge funding: longs pay `rate_ppm` of their value to shorts; a negative rate the other way round."""

    symbol: str
    rate_ppm: int


class Tick(Command, frozen=True):
    """Only time passes: orders expire, timers run out, INSURANCE closes a part of what it holds."""


class Proceed(Command, frozen=True):
    """Take the next step, of so many events or a little more, of what commands have left to be done.

    The sequencer asks for it, once a group.
    """

    step: int


class CheckLiveness(Command, frozen=True):
    """A milestone of an outside service; it comes back in sequence, in the messages."""

    check_id: str
    source: str


class CreateStore(Command, frozen=True):
    """Keep messages for a consumer from now on; a store that exists stays as it is."""

    store_id: str


class DeleteStore(Command, frozen=True):
    """Forget a store and what it keeps."""

    store_id: str


class PurgeStore(Command, frozen=True):
    """A consumer has all messages up to `message_index`, inclusive."""

    store_id: str
    message_index: int


class ConfigureStore(Command, frozen=True):
    """Set from which age in ms of its oldest message on a store suspends trading."""

    store_id: str
    age_ms_max: int
