"""Turns a state into the contents of a snapshot's files, and those back into the same state, digest for digest."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple, cast

from msgspec.structs import replace

from engine.core import events as ev
from engine.core.accounts import Account
from engine.core.commands import BUY, SELL, Instrument, PlaceOrder, TimeInForce
from engine.core.linked import age_of
from engine.core.state import Market, Order, State
from engine.recovery.snapshot_format import (
    STORED_SIDES,
    Generation,
    Kind,
    Life,
    SnapshotInvalid,
    StoredAccount,
    StoredBook,
    StoredExchange,
    StoredLevel,
    StoredMarket,
    StoredOrder,
    StoredSnapshot,
    check,
    ensure,
    orders_of,
    sealed,
    stream_id,
)

MS_NS = 1_000_000
NO_TIMES: Mapping[int, int] = {}  # order id → ms when it was accepted


class Restored(NamedTuple):
    """A state, the index and chain of its last record, that record's time (0 = not known), and since when orders are open."""

    state: State
    last_index: int
    chain: bytes
    time_ns: int
    accepted_ms: dict[int, int]


def snapshot(
    state: State, index: int, chain: bytes, created_ns: int, time_ns: int = 0, accepted_ms: Mapping[int, int] = NO_TIMES
) -> Generation:
    """Return what the files of a snapshot hold. `index`, `chain` and `time_ns` are the last record's. Cost: O(state)."""
    created_at = created_ns // MS_NS
    markets = [sealed(stored_market(state, symbol, index, created_at, accepted_ms)) for symbol in state.markets]
    exchange = StoredExchange(
        engine_sequence=index, last_redis_stream_id=stream_id(index), created_at=created_at, chain=chain.hex(), time_ns=time_ns,
        state_digest=state.digest(), markets=[StoredMarket(market.market, market.sha256) for market in markets],
        accounts=[_stored_account(account) for account in state.ledger.accounts.values()],
        trades=state.trades, deposited_units=state.ledger.deposited_units, suspended=sorted(state.suspended),
        stores=[replace(store) for store in state.stores.values()], message_index=state.message_index,
        work=state.work.snapshot() if state.work else [], keys=list(state.keys.kept.values()), events_version=state.version,
        term=state.term,
    )  # fmt: skip
    return Generation(sealed(exchange), markets)


def restore(files: Generation) -> Restored:
    """Return the state that `snapshot` was given.  Raises: SnapshotInvalid."""
    exchange = files.exchange
    listed = [(market.market, market.sha256) for market in exchange.markets]
    ensure(listed == [(m.market, m.sha256) for m in files.markets], "its markets are not those of the exchange's file")
    try:
        state, accepted_ms = _restored(exchange, files.markets)
        digest = state.digest()
    except (AssertionError, KeyError, TypeError, ValueError, OverflowError) as error:
        raise SnapshotInvalid(f"it cannot be restored: {error!r}") from error
    ensure(digest == exchange.state_digest, "the restored state has another digest")
    return Restored(state, exchange.engine_sequence, bytes.fromhex(exchange.chain), exchange.time_ns, accepted_ms)


def _stored_account(account: Account) -> StoredAccount:
    positions = {symbol: (position.lots, position.cost_units) for symbol, position in account.positions.items()}
    return StoredAccount(
        account.number, account.balance_units, positions, dict(account.client_ids), account.deadline_ns, account.killed
    )


def _restored(exchange: StoredExchange, markets: list[StoredSnapshot]) -> tuple[State, dict[int, int]]:
    state = State()
    for market in markets:
        check(market)
        ensure(market.engine_sequence == exchange.engine_sequence, f"{market.market} is of another sequence")
        ensure(market.instrument is not None, f"{market.market} has no instrument")
    orders = restore_markets(state, markets)
    accepted_ms = {int(stored.order_id): stored.created_at for market in markets for stored in orders_of(market)}
    for stored in exchange.accounts:
        _restore_account(state, stored)
    state.ledger.deposited_units = exchange.deposited_units
    if exchange.work:
        state.work.restore(exchange.work)  # first: orders that are as good as cancelled reserve nothing
    open_orders(state, orders)
    for kept in exchange.keys:
        state.keys.add(kept)
    state.ledger.audit()
    state.ledger.check()
    state.trades, state.message_index, state.version = exchange.trades, exchange.message_index, exchange.events_version
    state.term = exchange.term
    state.suspended = set(exchange.suspended)
    state.stores = {store.store_id: store for store in exchange.stores}
    state.expiries = sorted((order.expire_ns, order.order_id) for order in orders if order.expire_ns)
    state.timers = sorted((a.deadline_ns, n) for n, a in state.ledger.accounts.items() if a.deadline_ns)
    return state, accepted_ms


def _restore_account(state: State, stored: StoredAccount) -> None:
    """Book an account's money and positions again: the ledger's running sums come with them."""
    number = stored.account
    state.ledger.deposit(number, stored.balance_units)
    for symbol, (lots, cost_units) in stored.positions.items():
        state.ledger.fill(symbol, number, lots, cost_units)  # the first fill of a position is the position
    account = state.ledger.accounts[number]
    account.client_ids.update(stored.client_ids)
    account.deadline_ns, account.killed = stored.deadline_ns, stored.killed


# One market


def stored_market(
    state: State, symbol: str, index: int, created_at: int, accepted_ms: Mapping[int, int] = NO_TIMES
) -> StoredSnapshot:
    market, contract = state.markets[symbol], state.ledger.contracts[symbol]
    waiting = [state.orders[order_id] for side in (BUY, SELL) for _, order_id in market.stops[side]]
    entering = [order for order_id in state.work.entering if (order := state.orders[order_id]).terms.symbol == symbol]
    held = [order for order in state.orders.values() if order.held and order.terms.symbol == symbol]
    return StoredSnapshot(
        market=symbol, engine_sequence=index, last_redis_stream_id=stream_id(index), created_at=created_at,
        order_book=stored_book(state, symbol, index, accepted_ms),
        stops=[_stored_order(order, accepted_ms) for order in waiting],
        entering=[_stored_order(order, accepted_ms) for order in entering], last_ticks=market.last_ticks,
        mark_ticks=contract.mark_ticks, pending_mark_ticks=market.pending_mark_ticks, instrument=contract.instrument,
        held=[_stored_order(order, accepted_ms) for order in held], listed=contract.listed,
    )  # fmt: skip


def stored_book(state: State, symbol: str, index: int, accepted_ms: Mapping[int, int] = NO_TIMES) -> StoredBook:
    """Return the book of one market after command `index`. Cost: O(its orders)."""
    return StoredBook(symbol, index, *(_stored_levels(state, symbol, side, accepted_ms) for side in (BUY, SELL)))


def _stored_levels(state: State, symbol: str, side: int, accepted_ms: Mapping[int, int]) -> list[StoredLevel]:
    levels = []
    for level in state.markets[symbol].book.levels(side):
        orders = [_stored_order(state.orders[order_id], accepted_ms) for order_id in level]
        levels.append(StoredLevel(level.price, sum(order.remaining_qty_lots for order in orders), orders))
    return levels


def _stored_order(order: Order, accepted_ms: Mapping[int, int]) -> StoredOrder:
    terms = order.terms
    is_stop = order.stop_ticks is not None or (order.held and terms.is_stop)
    kinds: tuple[Kind, Kind] = ("stop", "stop_limit") if is_stop else ("market", "limit")
    kind = kinds[order.price_ticks is not None]
    return StoredOrder(
        order_id=str(order.order_id), user_id=str(terms.account), market=terms.symbol, side=STORED_SIDES[terms.side], type=kind,
        qty_lots=order.size_lots, remaining_qty_lots=order.leaves_lots, price_ticks=order.price_ticks,
        status="PARTIALLY_FILLED" if order.filled_lots else "OPEN", time_in_force=cast(Life, terms.time_in_force.name),
        reduce_only=terms.reduce_only, post_only=terms.post_only, created_at=accepted_ms.get(order.order_id, 0),
        sequence=order.order_id,
        shown_qty_lots=order.shown_lots if order.resting and order.shown_lots < order.leaves_lots else None,
        stop_ticks=order.stop_ticks, cost_units=order.cost_units, expire_ns=order.expire_ns, terms=terms, link=order.link,
    )  # fmt: skip


def restore_markets(state: State, markets: Iterable[StoredSnapshot]) -> list[Order]:
    """Put markets and books into a state; return all their orders, oldest first, the waiting stops too."""
    orders = []
    for stored in markets:
        state.ledger.add_contract(stored.instrument or Instrument(stored.market), stored.mark_ticks)
        state.ledger.contracts[stored.market].listed = stored.listed
        market = state.markets[stored.market] = Market()
        market.last_ticks, market.pending_mark_ticks = stored.last_ticks, stored.pending_mark_ticks
        for side, levels in ((BUY, stored.order_book.bids), (SELL, stored.order_book.asks)):
            for level in levels:
                for order in map(_restored_order, level.orders):
                    order.resting, order.shown_lots = True, order.shown_lots or order.leaves_lots
                    market.book.rest(side, order.order_id, level.price_ticks, order.shown_lots)
                    orders.append(order)
        orders += map(_restored_order, [*stored.stops, *stored.entering, *stored.held])
    return sorted(orders, key=lambda order: age_of(order.order_id))


def open_orders(state: State, orders: Iterable[Order]) -> None:
    """Enter orders into the order table and their accounts, and the stops among those that wait."""
    for order in orders:
        state.add_order(order)
        if not order.resting and not order.held and order.stop_ticks is not None:
            state.apply(ev.OrderStopped(order.order_id))


def _restored_order(stored: StoredOrder) -> Order:
    terms = stored.terms or _terms_of(stored)
    return Order(
        int(stored.order_id), terms, stored.qty_lots, stored.price_ticks, stored.stop_ticks, stored.expire_ns,
        filled_lots=stored.qty_lots - stored.remaining_qty_lots, cost_units=stored.cost_units,
        shown_lots=stored.shown_qty_lots or 0, link=stored.link,
    )  # fmt: skip


def _terms_of(stored: StoredOrder) -> PlaceOrder:
    """Return the terms that a stored order shows, for one that was not stored by us."""
    life = TimeInForce[stored.time_in_force]
    return PlaceOrder(
        int(stored.user_id), stored.market, stored.order_id, STORED_SIDES.index(stored.side), stored.qty_lots, stored.price_ticks,
        stored.stop_ticks, life, stored.post_only, stored.reduce_only,
        expire_ns=stored.expire_ns if life is TimeInForce.GTD else 0,
    )  # fmt: skip
