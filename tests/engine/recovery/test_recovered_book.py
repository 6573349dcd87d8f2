"""The book recovered from one market's snapshot and events: equal to the exchange's own, order by order."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest

from engine.core import commands as cm
from engine.core import events as ev
from engine.core.events import decode, encode
from engine.core.exchange import Exchange
from engine.core.linked import group_of
from engine.journal.format import START, Link, Record
from engine.recovery.recovered_book import RecoveredBook, create_stored_snapshot, recover_order_book_from_snapshot
from engine.recovery.snapshot import stored_book, stored_market
from engine.recovery.snapshot_files import FileSnapshotStore
from engine.recovery.snapshot_format import SnapshotInvalid, StoredSnapshot
from engine.stores.message_builder import MessageBuilder
from tests.engine.lives import MARKETS, answers, life

X = "BTC-PERP"
ALONE = Link(START, START, 0, 0)  # nobody looks at the chain here
OPENED = (cm.CreateInstrument(cm.Instrument(X), 100), cm.Deposit(1, 10**9), cm.Deposit(2, 10**9))


@pytest.mark.parametrize("seed", range(8))
def test_the_book_goes_on_from_anywhere_as_the_exchange_does(seed: int) -> None:
    """Events of all markets, all kinds; as events, and as records of which some are in the snapshot already."""
    commands, exchange = life(seed), Exchange(MessageBuilder)
    taken: list[tuple[int, StoredSnapshot]] = []
    records: list[Record] = []
    for index, time_ns, command in commands:
        for answer in answers(exchange, [(index, time_ns, command)]):
            records.append(Record(*answer, ALONE))
        if index % 97 == 0:
            known = {order_id: commands[group_of(order_id) - 1][1] // 1_000_000 for order_id in exchange.state.orders}
            taken += [(index, stored_market(exchange.state, symbol, index, 0, known)) for symbol in exchange.state.markets]
    times = {order_id: commands[group_of(order_id) - 1][1] // 1_000_000 for order_id in exchange.state.orders}
    last = records[-1].command_index
    now = {s: recover_order_book_from_snapshot(stored_market(exchange.state, s, last, 0, times)) for s in MARKETS}
    for index, stored in taken:
        after = [event for record in records if record.command_index > index for event in decode(record.payload)]
        assert recover_order_book_from_snapshot(stored, after) == now[stored.market]
        recovered = recover_order_book_from_snapshot(stored, records)
        assert recovered == now[stored.market]
        assert recovered.book() == stored_book(exchange.state, stored.market, last, times)
        assert recovered.sequence == last
    assert len(taken) > 20
    busy = [book for book in now.values() if book.book().bids or book.book().asks]
    assert all(book != recover_order_book_from_snapshot(taken[0][1]) for book in busy)


def desk(*commands: cm.Command) -> tuple[Exchange, list[ev.Event]]:
    """Return an exchange after some commands, and the events of the last one."""
    exchange, events = Exchange(MessageBuilder), list[ev.Event]()
    for index, command in enumerate((*OPENED, *commands), 1):
        events = exchange.decide(index, index, command)
    return exchange, events


def order(account: int, name: str, side: int, size: int, price: int | None, **more: Any) -> cm.PlaceOrder:
    return cm.PlaceOrder(account, X, name, side, size, price, **more)


def test_events_that_are_of_no_book_change_none() -> None:
    """Accepted, both rejections, marks, money, other markets; and an accepted order rests only when it is told so."""
    exchange, _ = desk(order(1, "a", 0, 10, 100))
    stored = stored_market(exchange.state, X, 4, 0)
    before = recover_order_book_from_snapshot(stored)
    accepted = ev.OrderAccepted(9, order(7, "b", 0, 5, 99), 0)
    others: list[ev.Event] = [
        ev.OrderRejected(1, X, "c", ev.RejectReason.MARGIN), ev.CancelRejected(1, "c", ev.RejectReason.UNKNOWN_ORDER),
        ev.MarkSet(X, 50, False), ev.Transferred(1, 5), ev.OrderAccepted(8, cm.PlaceOrder(1, "ETH", "e", 0, 1, 1), 0),
        ev.OrderRested(8), ev.Traded(1, 8, 7, 1, 1, 0, 0, "ETH", 0), ev.OrderCanceled(8, ev.CancelReason.REQUESTED),
        ev.Suspended("manual"), ev.StoreCreated("", 1),
    ]  # fmt: skip
    assert recover_order_book_from_snapshot(stored, others) == before
    assert recover_order_book_from_snapshot(stored, [*others, accepted]).book() == before.book()
    rested = recover_order_book_from_snapshot(stored, [accepted, ev.OrderRested(9)]).book()
    assert [(level.price_ticks, level.total_qty_lots) for level in rested.bids] == [(100, 10), (99, 5)]


def test_rested_cancelled_traded_and_amended_change_it() -> None:
    """One of each, with what the book shows afterwards."""
    exchange, _ = desk(order(1, "a", 0, 10, 100), order(1, "b", 0, 4, 99))
    stored = stored_market(exchange.state, X, 5, 0)

    def levels(*commands: cm.Command) -> list[tuple[int, int]]:
        after = [e for i, command in enumerate(commands, 6) for e in exchange.decide(i, i, command)]
        return [
            (level.price_ticks, level.total_qty_lots) for level in recover_order_book_from_snapshot(stored, after).book().bids
        ]

    everything = (order(2, "s", 1, 3, 100), cm.AmendOrder(1, "a", 8), cm.CancelOrder(1, "b"), order(1, "c", 0, 2, 98))
    assert levels(*everything) == [(100, 5), (98, 2)]


def test_an_iceberg_keeps_its_hidden_part_and_its_place() -> None:
    """The level adds up to all of it; what shows is as it was, and the next part comes last in its queue."""
    exchange, _ = desk(order(1, "ice", 1, 10, 100, display_lots=4), order(1, "b", 1, 3, 100), order(2, "t", 0, 2, 100))
    stored = stored_market(exchange.state, X, 6, 0)
    (level,) = stored.order_book.asks
    assert level.total_qty_lots == 11
    assert [(o.remaining_qty_lots, o.shown_qty_lots) for o in level.orders] == [(8, 2), (3, None)]
    after = exchange.decide(7, 7, order(2, "u", 0, 2, 100))
    (level,) = recover_order_book_from_snapshot(stored, after).book().asks
    assert [(o.order_id, o.remaining_qty_lots, o.shown_qty_lots) for o in level.orders] == [("5", 3, None), ("4", 6, 4)]


def test_a_stop_that_waits_rests_when_it_is_triggered() -> None:
    """Its terms come with the snapshot, its trigger with the events."""
    exchange, _ = desk(order(1, "stop", 0, 5, 95, stop_ticks=101), order(1, "m", 1, 1, 101))
    stored = stored_market(exchange.state, X, 5, 0)
    assert [(stop.order_id, stop.type, stop.stop_ticks, stop.price_ticks) for stop in stored.stops] == [
        ("4", "stop_limit", 101, 95)
    ]
    assert not stored.order_book.bids
    after = exchange.decide(6, 6, order(2, "t", 0, 1, 101))
    assert any(isinstance(event, ev.OrderTriggered) for event in after)
    (level,) = recover_order_book_from_snapshot(stored, after).book().bids
    assert (level.price_ticks, [o.order_id for o in level.orders]) == (95, ["4"])


PLAIN = {
    "market": X,
    "sequence": 100,
    "bids": [
        {
            "priceTicks": 650_000,
            "totalQtyLots": 10,
            "orders": [
                {
                    "orderId": "12", "userId": "3", "market": X, "side": "buy", "type": "limit", "qtyLots": 10,
                    "remainingQtyLots": 10, "priceTicks": 650_000, "status": "OPEN", "timeInForce": "GTC", "reduceOnly": False,
                    "postOnly": False, "createdAt": 1_700_000_000_000, "sequence": 12,
                }
            ],
        }
    ],
    "asks": [],
}  # fmt: skip


def test_a_book_that_others_wrote_is_stored_read_and_recovered(tmp_path: Path) -> None:
    """Plain values in the shape of the book, nothing of our own in them; the way that the documentation shows."""
    store = FileSnapshotStore(tmp_path / "snapshots")
    made = create_stored_snapshot(order_book=PLAIN, last_redis_stream_id="1710000000000-0", created_at=1_700_000_000_000)
    store.write(made)
    snapshot = store.read_latest(X)
    assert snapshot == made
    assert (snapshot.engine_sequence, snapshot.last_redis_stream_id) == (100, "1710000000000-0")
    assert store.read_latest("ETH-PERP") is None
    events: list[ev.Event] = [
        ev.OrderAccepted(101, order(4, "x", 1, 4, 650_000), 0), ev.Traded(1, 101, 12, 650_000, 4, 0, 0, X, 1),
        ev.OrderAccepted(102, order(4, "y", 1, 2, 650_001), 0), ev.OrderRested(102),
    ]  # fmt: skip
    recovered = recover_order_book_from_snapshot(snapshot, events)
    book = recovered.book()
    assert [(o.order_id, o.remaining_qty_lots, o.status) for o in book.bids[0].orders] == [("12", 6, "PARTIALLY_FILLED")]
    assert [(level.price_ticks, level.total_qty_lots) for level in book.asks] == [(650_001, 2)]
    again = create_stored_snapshot(order_book=recovered, last_redis_stream_id="1710000000009-0", created_at=1)
    store.write(again)
    found = store.read_latest(X)
    assert found is not None
    assert recover_order_book_from_snapshot(found) == recovered
    assert create_stored_snapshot(order_book=book, created_at=1).last_redis_stream_id == "100-0"


@pytest.mark.parametrize(
    ("change", "why"),
    [({"bids": 5}, "Expected `array`"), ({"market": "Y"}, "another market"), ({"more": 1}, "unknown field")],
)
def test_what_is_no_book_is_refused(change: dict[str, Any], why: str) -> None:
    """With the reason, when it is made."""
    with pytest.raises(SnapshotInvalid, match=why):
        create_stored_snapshot(order_book=PLAIN | change, created_at=0)


def test_events_that_do_not_follow_are_not_taken_for_granted() -> None:
    """A trade with an order that is not there ends the recovery."""
    snapshot = create_stored_snapshot(order_book=PLAIN, created_at=0)
    with pytest.raises(KeyError):
        recover_order_book_from_snapshot(snapshot, [ev.Traded(1, 500, 12, 650_000, 4, 0, 0, X, 1)])


def test_a_record_says_itself_whether_it_comes_after_the_snapshot() -> None:
    """Up to the snapshot's sequence it changes nothing; after that it counts, with its time."""
    snapshot = create_stored_snapshot(order_book=PLAIN, created_at=0)
    payload = encode([ev.OrderAccepted(101, order(4, "x", 1, 4, 650_005), 0), ev.OrderRested(101)])
    early, late = (Record(index, 5_000_000_000, payload, b"", ALONE) for index in (100, 101))
    assert recover_order_book_from_snapshot(snapshot, [early]) == RecoveredBook(snapshot)
    (level,) = recover_order_book_from_snapshot(snapshot, [early, late]).book().asks
    assert level.orders[0].created_at == 5_000
    assert msgspec.json.encode(level).startswith(b'{"priceTicks":650005,"totalQtyLots":4,"orders":[{"orderId":"101","userId":"4"')
