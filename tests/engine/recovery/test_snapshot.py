"""Snapshots restore everything that decides what happens next, at random points of random lives."""

from __future__ import annotations

import random
from functools import cache
from typing import Any

import msgspec
import pytest

from engine.core import commands as cm
from engine.core.commands import BUY, SELL
from engine.core.exchange import Exchange
from engine.core.state import State
from engine.journal.format import START
from engine.recovery.snapshot import Restored, restore, snapshot
from engine.recovery.snapshot_format import (
    FORMAT,
    Generation,
    SnapshotInvalid,
    SnapshotTooNew,
    StoredExchange,
    StoredSnapshot,
    check,
    decode,
    encode,
    sealed,
)
from engine.stores.message_builder import MessageBuilder
from tests.engine.lives import Life, answers, life
from tests.engine.recovery import test_restarts as test_replay

CHAIN = bytes(range(16))


def plain_life(seed: int) -> Life:
    """Return the life that the journal is tested with: poor accounts, wild marks, liquidations; it begins at index 0."""
    return [(index, index, command) for index, command in test_replay.commands(seed)]


def everything(state: State) -> list[Any]:
    """Return all of a state, in the order in which it is held; heaps without what is skipped anyway."""
    books = {
        symbol: [[(level.price, list(level.items())) for level in market.book.levels(side)] for side in (BUY, SELL)]
        for symbol, market in state.markets.items()
    }
    plain = {symbol: (m.last_ticks, m.pending_mark_ticks, m.stops) for symbol, m in state.markets.items()}
    accounts = [
        (n, a.balance_units, list(a.positions.items()), list(a.orders), list(a.client_ids.items()), a.deadline_ns, a.killed,
         {s: lots for s, lots in a.open_lots.items() if any(lots)})
        for n, a in state.ledger.accounts.items()
    ]  # fmt: skip
    expiries = sorted(entry for entry in state.expiries if entry[1] in state.orders)
    timers = sorted({entry for entry in state.timers if state.ledger.accounts[entry[1]].deadline_ns == entry[0]})
    return [
        list(books.items()), plain, accounts, list(state.orders.items()), state.ledger.contracts, state.ledger.deposited_units,
        state.trades, state.suspended, list(state.stores.items()), state.message_index, expiries, timers,
    ]  # fmt: skip


def there_and_back(generation: Generation) -> Restored:
    """Restore from the bytes of the files."""
    markets = [decode(encode(market), StoredSnapshot) for market in generation.markets]
    return restore(Generation(decode(encode(generation.exchange), StoredExchange), markets))


@pytest.mark.parametrize("commands", [*(life(seed) for seed in range(6)), *(plain_life(seed) for seed in range(3))])
def test_a_restored_exchange_is_the_same_and_goes_on_the_same(commands: Life) -> None:
    """Ten points of a life: equal to the last entry and its place, then the same events and messages, byte for byte."""
    expected = list(answers(Exchange(MessageBuilder), commands))
    dice, exchange, done = random.Random(commands[-1][0]), Exchange(MessageBuilder), 0
    for stop in [*sorted(dice.sample(range(len(commands)), 10)), len(commands)]:
        list(answers(exchange, commands[done:stop]))
        done = stop
        state, index, chain, time_ns, _ = there_and_back(snapshot(exchange.state, stop, CHAIN, 5_000_000, 77))
        assert (index, chain, time_ns) == (stop, CHAIN, 77)
        assert state.digest() == exchange.state.digest()
        assert everything(state) == everything(exchange.state)
        rest = [answer for answer in expected if stop == 0 or answer[0] > commands[stop - 1][0]]
        assert list(answers(Exchange(MessageBuilder, state), commands[stop:])) == rest


def test_an_empty_exchange_has_a_snapshot_too() -> None:
    """No markets, the two accounts of the house."""
    restored = there_and_back(snapshot(State(), 0, START, 0))
    assert restored.state.digest() == State().digest()


def grown(seed: int = 1, count: int = 600) -> Generation:
    """Return the snapshot at the end of a life."""
    exchange = Exchange(MessageBuilder)
    list(answers(exchange, life(seed, count)))
    open_ms = {order_id: 1_700_000_000_000 + order_id for order_id in exchange.state.orders}
    return snapshot(exchange.state, count, CHAIN, 1_700_000_000_123_456_789, 0, open_ms)


def test_a_file_has_the_names_that_readers_of_the_book_know() -> None:
    """Market, sequence, stream id, time, book; levels best first; each order with all its fields, in this order."""
    orders = 0
    for market in [*grown(2).markets, busy_market()]:
        plain = msgspec.json.decode(encode(market))
        assert list(plain)[:5] == ["market", "engineSequence", "lastRedisStreamId", "createdAt", "orderBook"]
        assert plain["engineSequence"] == market.engine_sequence
        assert (plain["lastRedisStreamId"], plain["createdAt"]) == (f"{market.engine_sequence}-0", 1_700_000_000_123)
        book = plain["orderBook"]
        assert list(book) == ["market", "sequence", "bids", "asks"]
        assert (book["market"], book["sequence"]) == (plain["market"], market.engine_sequence)
        prices = [[level["priceTicks"] for level in book[side]] for side in ("bids", "asks")]
        assert prices == [sorted(prices[0], reverse=True), sorted(prices[1])]
        for level in book["bids"] + book["asks"]:
            assert list(level) == ["priceTicks", "totalQtyLots", "orders"]
            assert level["totalQtyLots"] == sum(order["remainingQtyLots"] for order in level["orders"])
            for order in level["orders"]:
                assert list(order)[:14] == [
                    "orderId", "userId", "market", "side", "type", "qtyLots", "remainingQtyLots", "priceTicks", "status",
                    "timeInForce", "reduceOnly", "postOnly", "createdAt", "sequence",
                ]  # fmt: skip
                assert order["orderId"] == str(order["sequence"])
                assert order["createdAt"] == 1_700_000_000_000 + order["sequence"]
                assert order["type"] == "limit"
                filled = order["remainingQtyLots"] < order["qtyLots"]
                assert order["status"] == ("PARTIALLY_FILLED" if filled else "OPEN")
                orders += 1
    assert orders > 5


@cache
def busy_market() -> StoredSnapshot:
    """Return a market with two levels a side and a stop."""
    markets = [market for seed in range(8) for count in (400, 600) for market in grown(seed, count).markets]
    return next(m for m in markets if len(m.order_book.bids) > 1 and len(m.order_book.asks) > 1 and m.stops)


def test_when_orders_were_accepted_comes_back_with_them() -> None:
    """The state does not know it: it decides nothing."""
    assert set(there_and_back(grown()).accepted_ms) == set(there_and_back(grown()).state.orders)
    assert all(ms == 1_700_000_000_000 + order_id for order_id, ms in there_and_back(grown()).accepted_ms.items())


def test_a_changed_byte_anywhere_is_noticed() -> None:
    """Of any file: no change of the content passes for a snapshot, and nothing but the documented errors escapes."""
    generation, dice = grown(), random.Random(1)
    for stored in [generation.exchange, *generation.markets]:
        content = encode(stored)
        for at in dice.sample(range(len(content)), 150):
            changed = content[:at] + bytes([content[at] ^ (1 << dice.randrange(7))]) + content[at + 1 :]
            with pytest.raises((SnapshotInvalid, SnapshotTooNew)):
                decode(changed, type(stored))
        for length in dice.sample(range(len(content)), 40):
            with pytest.raises(SnapshotInvalid):
                decode(content[:length], type(stored))


def changed(stored: StoredSnapshot, path: str, value: Any) -> StoredSnapshot:
    """Return a market's snapshot with another value somewhere in it, and the hash that belongs to that."""
    plain = msgspec.to_builtins(stored)
    *way, last = (int(part) if part.isdecimal() else part for part in path.split("."))
    inner: Any = plain
    for part in way:
        inner = inner[part]
    inner[last] = value
    return sealed(msgspec.convert(plain, StoredSnapshot))


@pytest.mark.parametrize(
    ("path", "value", "why"),
    [
        ("market", "Z", "another market or sequence"),
        ("engineSequence", 7, "another market or sequence"),
        ("orderBook.bids.0.totalQtyLots", 999_999, "does not add up"),
        ("orderBook.bids.0.priceTicks", 99_999, "crossed"),
        ("orderBook.bids.1.priceTicks", 99_999, "do not fall"),
        ("orderBook.asks.0.priceTicks", 99_999, "do not rise"),
        ("orderBook.bids.0.orders.0.side", "sell", "belongs elsewhere"),
        ("orderBook.bids.0.orders.0.priceTicks", 1, "belongs elsewhere"),
        ("orderBook.bids.0.orders.0.stopTicks", 1, "belongs elsewhere"),
        ("orderBook.bids.0.orders.0.market", "Z", "of another market"),
        ("orderBook.bids.0.orders.0.orderId", "order-1", "are numbered"),
        ("orderBook.bids.0.orders.0.qtyLots", 0, "lots"),
        ("orderBook.bids.0.orders.0.shownQtyLots", 0, "shows 0 lots"),
        ("orderBook.bids.0.orders.0.userId", "77", "differs from its terms"),
        ("orderBook.bids.0.orders.0.postOnly", None, "Expected `bool`"),
        ("stops.0.stopTicks", None, "has no trigger"),
    ],
)
def test_what_does_not_make_sense_is_refused(path: str, value: Any, why: str) -> None:
    """Also with the right hash: a fault of whoever wrote it."""
    stored = busy_market()
    check(stored)
    with pytest.raises((SnapshotInvalid, msgspec.ValidationError), match=why):
        check(changed(stored, path, value))


def test_an_order_that_is_twice_in_it_is_refused() -> None:
    """Once a level, once among the stops."""
    stored = busy_market()
    with pytest.raises(SnapshotInvalid, match="twice"):
        check(msgspec.structs.replace(stored, stops=[*stored.stops, stored.order_book.bids[0].orders[0]]))


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"trades": 1}, "another digest"),
        ({"deposited_units": 1}, "cannot be restored"),
        ({"accounts": []}, "cannot be restored"),
        ({"markets": []}, "are not those"),
        ({"engine_sequence": 599}, "another sequence"),
        ({"message_index": 1}, "another digest"),
    ],
)
def test_a_generation_that_does_not_add_up_is_refused(change: dict[str, Any], why: str) -> None:
    """Money, digest and the markets it names."""
    generation = grown()
    with pytest.raises(SnapshotInvalid, match=why):
        restore(Generation(sealed(msgspec.structs.replace(generation.exchange, **change)), generation.markets))


def test_files_of_two_generations_do_not_mix() -> None:
    """The exchange's file names the very files that belong to it."""
    older, newer = grown(1, 500), grown(1, 600)
    with pytest.raises(SnapshotInvalid, match="are not those"):
        restore(Generation(newer.exchange, [older.markets[0], *newer.markets[1:]]))


def test_a_later_format_is_named_to_the_operator() -> None:
    """It is no damage: an older snapshot must not be taken silently."""
    content = encode(msgspec.structs.replace(grown().exchange, version=FORMAT + 1))
    with pytest.raises(SnapshotTooNew, match=f"format {FORMAT + 1}"):
        decode(content.replace(b'"trades"', b'"unheard":1,"trades"'), StoredExchange)
    with pytest.raises(SnapshotInvalid, match="no format 0"):
        decode(encode(msgspec.structs.replace(grown().exchange, version=0)), StoredExchange)


def test_a_field_that_nobody_knows_is_refused() -> None:
    """What is written must be what is read."""
    content = encode(grown().exchange).replace(b'"trades"', b'"unheard":1,"trades"')
    with pytest.raises(SnapshotInvalid, match="unheard"):
        decode(content, StoredExchange)


def test_a_snapshot_does_not_change_with_the_state() -> None:
    """What was taken is what is written, though stores go on."""
    exchange = Exchange(MessageBuilder)
    list(answers(exchange, life(1, 200)))
    taken = snapshot(exchange.state, 200, CHAIN, 0)
    before = encode(taken.exchange)
    exchange.decide(201, 0, cm.PurgeStore("", 100))
    assert encode(taken.exchange) == before
