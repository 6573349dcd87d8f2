"""Recovers the book of one market from its snapshot and later events, for readers that do not want the whole exchange.

Only what rests, cancels, trades or amends changes the book. The state's own rules do it, on one market, with money that means
nothing: there is no second account of icebergs, clips and stops.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from engine.core import events as ev
from engine.core.commands import BUY, SELL
from engine.core.linked import ids_of
from engine.core.state import State
from engine.journal.format import Record
from engine.recovery.snapshot import MS_NS, open_orders, restore_markets, stored_book, stored_market
from engine.recovery.snapshot_format import SnapshotInvalid, StoredBook, StoredSnapshot, check, orders_of, sealed, stream_id


class RecoveredBook:
    """The book of one market, with the stops that wait for it, as a snapshot and the events after it give it.

    Two are equal when they hold the same orders in the same places. `sequence` is that of the snapshot or of the last record.
    """

    def __init__(self, stored: StoredSnapshot) -> None:
        check(stored)
        self.market = stored.market
        self.sequence = stored.engine_sequence
        self._stored = stored
        self._state = State()  # of this market only, and its money means nothing
        self._accepted_ms = {int(order.order_id): order.created_at for order in orders_of(stored)}
        open_orders(self._state, restore_markets(self._state, [stored]))

    def apply(self, event: ev.Event) -> None:
        """Take an event of the exchange. What is of another market, or of no book, changes nothing.  Raises: KeyError."""
        match event:
            case ev.OrderAccepted() if event.order.symbol == self.market:
                self._state.ledger.account(event.order.account)
                self._state.apply(event)
            case (
                ev.OrderStopped()
                | ev.OrderTriggered()
                | ev.OrderRested()
                | ev.OrderAmended()
                | ev.OrderReleased()
                | ev.OrderCanceled()
            ):
                if event.order_id in self._state.orders:
                    self._state.apply(event)
            case ev.Traded() | ev.StopsTrailed() if event.symbol == self.market:
                self._state.apply(event)

    def take(self, record: Record) -> None:
        """Take a record of the journal or the stream; one that the snapshot has already changes nothing."""
        if record.command_index <= self.sequence:
            return
        for event in ev.decode(record.payload):
            self.apply(event)
        known = (one for one in ids_of(record.command_index) if one in self._state.orders)
        self._accepted_ms.update((one, record.time_ns // MS_NS) for one in known)
        self.sequence = record.command_index

    def book(self) -> StoredBook:
        """Return the book as it would be stored."""
        return stored_book(self._state, self.market, self.sequence, self._accepted_ms)

    def stored(self, created_at: int, last_redis_stream_id: str) -> StoredSnapshot:
        """Return the market as it would be stored; marks are those of the snapshot it came from."""
        made = stored_market(self._state, self.market, self.sequence, created_at, self._accepted_ms)
        made.last_redis_stream_id, made.instrument = last_redis_stream_id, self._stored.instrument
        return sealed(made)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, RecoveredBook) and self._content() == other._content()

    def _content(self) -> list[Any]:
        market = self._state.markets[self.market]
        sides = [[(level.price, list(level.items())) for level in market.book.levels(side)] for side in (BUY, SELL)]
        return [self.market, sides, market.stops, self._state.orders]


def create_stored_snapshot(
    *, order_book: RecoveredBook | StoredBook | Mapping[str, Any], created_at: int, last_redis_stream_id: str = ""
) -> StoredSnapshot:
    """Return a market's snapshot of its book, which may be plain values in the shape of `StoredBook`.

    `created_at` in ms; without a stream id it is that of the book's sequence.  Raises: SnapshotInvalid.
    """
    if isinstance(order_book, RecoveredBook):
        return order_book.stored(created_at, last_redis_stream_id or stream_id(order_book.sequence))
    try:
        book = order_book if isinstance(order_book, StoredBook) else msgspec.convert(order_book, StoredBook)
    except msgspec.ValidationError as error:
        raise SnapshotInvalid(f"it is no order book: {error}") from error
    made = StoredSnapshot(book.market, book.sequence, last_redis_stream_id or stream_id(book.sequence), created_at, book)
    check(made)
    return sealed(made)


def recover_order_book_from_snapshot(
    snapshot: StoredSnapshot, events_after_snapshot: Iterable[ev.Event | Record] = ()
) -> RecoveredBook:
    """Return the book that a snapshot and what happened after it give.

    Events are taken to come after the snapshot, records say themselves whether they do. An accepted order waits outside the
    book for the event that rests, stops, trades or cancels it; rejections, marks and other markets' events change nothing.
    Raises: SnapshotInvalid; KeyError, AssertionError for events that do not follow from the snapshot.
    """
    recovered = RecoveredBook(snapshot)
    for item in events_after_snapshot:
        if isinstance(item, Record):
            recovered.take(item)
        else:
            recovered.apply(item)
    return recovered
