"""The contents of a snapshot's files: their shapes, their bytes as JSON, and whether they make sense by themselves.

A generation is one `StoredSnapshot` for each market, readable alone, and one `StoredExchange` for all the rest, which says what
belongs to it. Prices are ticks, sizes lots, money units, `createdAt` milliseconds; ids are decimal strings. Every file carries
its own hash.
"""

from __future__ import annotations

from collections.abc import Iterator
from hashlib import sha256
from itertools import pairwise
from typing import Any, Literal, NamedTuple, TypeVar, cast

import msgspec
from msgspec import UNSET, UnsetType

from engine.core.commands import BUY, SELL, SIDE_NAMES, Instrument, PlaceOrder
from engine.core.events import Link
from engine.core.keys import Kept
from engine.core.state import Store
from service.errors import OperatorError

FORMAT = 3  # 1 had no linked orders and no work left to be done, 2 nothing delisted: what it lacks stands for none
StoredSide = Literal["buy", "sell"]
STORED_SIDES = cast(tuple[StoredSide, StoredSide], tuple(name.lower() for name in SIDE_NAMES))

Life = Literal["GTC", "DAY", "GTD", "IOC", "FOK"]
Kind = Literal["limit", "market", "stop", "stop_limit"]


class SnapshotInvalid(Exception):
    """A file, or a generation, is not what was written; an older one may be."""


class SnapshotTooNew(OperatorError):
    """A later version of the engine wrote it."""

    def __init__(self, version: int) -> None:
        fix = "Start the version that wrote it, or move the snapshots away to replay the whole journal"
        super().__init__(f"The snapshot has format {version}, this version reads up to {FORMAT}", fix)


class StoredOrder(msgspec.Struct, rename="camel", forbid_unknown_fields=True, gc=False):
    """An open order. `sequence` is the index of its command, `createdAt` 0 when nobody knows.

    What has a default is the engine's own: without it an order is taken to show all it has, on the terms above.
    """

    order_id: str
    user_id: str
    market: str
    side: StoredSide
    type: Kind
    qty_lots: int
    remaining_qty_lots: int
    price_ticks: int | None
    status: Literal["OPEN", "PARTIALLY_FILLED"]
    time_in_force: Life
    reduce_only: bool
    post_only: bool
    created_at: int
    sequence: int
    shown_qty_lots: int | None = None  # in the queue, of an iceberg; None = all that remains
    stop_ticks: int | None = None  # while it waits
    cost_units: int = 0  # of what is filled
    expire_ns: int = 0
    terms: PlaceOrder | None = None  # as it was accepted; amends are above
    link: Link | UnsetType = UNSET


class StoredLevel(msgspec.Struct, rename="camel", forbid_unknown_fields=True, gc=False):
    """The queue of one price, oldest first; `totalQtyLots` is all that remains, hidden parts included."""

    price_ticks: int
    total_qty_lots: int
    orders: list[StoredOrder]


class StoredBook(msgspec.Struct, rename="camel", forbid_unknown_fields=True, gc=False):
    """Both sides, best level first."""

    market: str
    sequence: int
    bids: list[StoredLevel]
    asks: list[StoredLevel]


class StoredSnapshot(msgspec.Struct, rename="camel", forbid_unknown_fields=True, gc=False):
    """One market after command `engineSequence`. The stream's entries after `lastRedisStreamId` go on from here."""

    market: str
    engine_sequence: int
    last_redis_stream_id: str
    created_at: int
    order_book: StoredBook
    version: int = FORMAT
    stops: list[StoredOrder] = []  # waiting, buys then sells, each side as it will trigger
    entering: list[StoredOrder] = []  # in no book: their matching goes on with the next step
    last_ticks: int = 0  # of the last trade, 0 = none
    mark_ticks: int = 0
    pending_mark_ticks: int = 0  # came while trading was suspended, 0 = none
    instrument: Instrument | None = None
    sha256: str = ""  # of this file with this field empty
    held: list[StoredOrder] = []  # exits that wait for their entry's first fill
    listed: bool = True  # it takes orders and marks


class StoredAccount(msgspec.Struct, rename="camel", forbid_unknown_fields=True, gc=False):
    """An account without its open orders, which are in the markets."""

    account: int
    balance_units: int
    positions: dict[str, tuple[int, int]]  # symbol → lots and what they cost, both signed
    client_ids: dict[str, int]  # also of closed orders, oldest first
    deadline_ns: int
    killed: bool


class StoredMarket(msgspec.Struct, rename="camel", forbid_unknown_fields=True, gc=False):
    """Which file of a market belongs to a generation."""

    market: str
    sha256: str


class StoredExchange(msgspec.Struct, rename="camel", forbid_unknown_fields=True, gc=False):
    """All that is in no market. `chain` is the journal's at `engineSequence`, `stateDigest` that of the whole state."""

    engine_sequence: int
    last_redis_stream_id: str
    created_at: int
    chain: str
    time_ns: int  # of the record at `engineSequence`, 0 = not known
    state_digest: str
    markets: list[StoredMarket]  # as they were listed: the order matters
    accounts: list[StoredAccount]
    trades: int
    deposited_units: int
    suspended: list[str]
    stores: list[Store]
    message_index: int
    version: int = FORMAT
    keys: list[Kept] = []  # answers to commands with an idempotency key, oldest first
    work: list[Any] = []  # as `Work.snapshot` gives it; empty when nothing is left to be done
    sha256: str = ""
    events_version: int = 1
    term: int = 0  # of the leader


class Generation(NamedTuple):
    """The contents of all files of one snapshot; `markets` has one for each of `exchange.markets`."""

    exchange: StoredExchange
    markets: list[StoredSnapshot]


File = TypeVar("File", StoredSnapshot, StoredExchange)


class _Versioned(msgspec.Struct):
    version: int = FORMAT


def stream_id(index: int) -> str:
    """Return the id that the Redis stream gives to what command `index` did."""
    return f"{index}-0"


def orders_of(stored: StoredSnapshot) -> Iterator[StoredOrder]:
    """Yield the orders of a market: bids, asks, stops, those that are entering, held ones."""
    for level in [*stored.order_book.bids, *stored.order_book.asks]:
        yield from level.orders
    yield from stored.stops
    yield from stored.entering
    yield from stored.held


def sealed(stored: File) -> File:
    """Return the same content with its hash in it."""
    bare = msgspec.structs.replace(stored, sha256="")
    return msgspec.structs.replace(stored, sha256=sha256(encode(bare)).hexdigest())


def encode(stored: StoredSnapshot | StoredExchange) -> bytes:
    """Return the bytes of a file: JSON."""
    return msgspec.json.encode(stored)


def decode(content: bytes, kind: type[File]) -> File:
    """Return what `encode` was given, checked in itself; what has no hash in it is taken without.

    Raises: SnapshotInvalid, SnapshotTooNew.
    """
    try:
        version = msgspec.json.decode(content, type=_Versioned).version
        if version > FORMAT:
            raise SnapshotTooNew(version)
        stored = msgspec.json.decode(content, type=kind)
    except msgspec.DecodeError as error:
        raise SnapshotInvalid(str(error)) from error
    ensure(1 <= stored.version <= FORMAT, f"there is no format {stored.version}")
    if own := stored.sha256:  # of the very bytes: a name that was damaged may be missed, when a default stands in for it
        ensure(own == sha256(content.replace(_sealing(own), _sealing(""))).hexdigest(), "its content is not what was written")
    if isinstance(stored, StoredSnapshot):
        check(stored)
    return stored


def check(stored: StoredSnapshot) -> None:
    """Say whether a market's snapshot makes sense by itself: sums, order of prices, whose order is where.

    Raises: SnapshotInvalid.
    """
    book, bids, asks = stored.order_book, stored.order_book.bids, stored.order_book.asks
    ensure((book.market, book.sequence) == (stored.market, stored.engine_sequence), "the book is of another market or sequence")
    ids = [order.order_id for order in orders_of(stored)]
    ensure(len(set(ids)) == len(ids), "an order is in it twice")
    ensure(all(above.price_ticks > below.price_ticks for above, below in pairwise(bids)), "bids do not fall")
    ensure(all(below.price_ticks < above.price_ticks for below, above in pairwise(asks)), "asks do not rise")
    ensure(not bids or not asks or bids[0].price_ticks < asks[0].price_ticks, "the book is crossed")
    for side, levels in zip(STORED_SIDES, (bids, asks), strict=True):
        for level in levels:
            ensure(bool(level.orders), f"level {level.price_ticks} is empty")
            total = sum(order.remaining_qty_lots for order in level.orders)
            ensure(level.total_qty_lots == total, f"level {level.price_ticks} does not add up to {level.total_qty_lots}")
            for order in level.orders:
                placed = (order.side, order.price_ticks, order.stop_ticks)
                ensure(placed == (side, level.price_ticks, None), f"order {order.order_id} belongs elsewhere")
    for order in orders_of(stored):
        _check_order(order, stored.market)
    ensure(all(order.stop_ticks is not None for order in stored.stops), "a stop has no trigger")
    ensure(all(order.stop_ticks is None for order in stored.entering), "an order enters that waits for its trigger")
    ensure(all(order.link is not UNSET and order.link.held for order in stored.held), "an order is held for no entry")


def _check_order(order: StoredOrder, market: str) -> None:
    name = f"order {order.order_id}"
    ensure(order.market == market, f"{name} is of another market")
    ensure(_is_number(order.order_id) and _is_number(order.user_id), f"{name}: orders and users are numbered in this engine")
    ensure(0 < order.remaining_qty_lots <= order.qty_lots, f"{name} has {order.remaining_qty_lots} of {order.qty_lots} lots")
    if order.shown_qty_lots is not None:
        ensure(0 < order.shown_qty_lots <= order.remaining_qty_lots, f"{name} shows {order.shown_qty_lots} lots")
    if (terms := order.terms) is not None:
        told = (order.user_id, order.market, order.side, order.time_in_force, order.reduce_only, order.post_only)
        side = STORED_SIDES[terms.side] if terms.side in (BUY, SELL) else ""
        agreed = (str(terms.account), terms.symbol, side, terms.time_in_force.name, terms.reduce_only, terms.post_only)
        ensure(told == agreed, f"{name} differs from its terms")


def _is_number(text: str) -> bool:
    return text.removeprefix("-").isdecimal() and text == str(int(text))


def _sealing(own: str) -> bytes:
    return f'"sha256":"{own}"'.encode()


def ensure(true: bool, otherwise: str) -> None:
    """Raise SnapshotInvalid unless it is true."""
    if not true:
        raise SnapshotInvalid(otherwise)
