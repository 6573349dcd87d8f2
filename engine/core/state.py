"""Holds the state of the exchange; only applying events changes it, so that the events alone rebuild it hash for hash.

Deciding (`exchange.py`) applies each event as it makes it and reads the state for the next: one pass, one truth.
"""

from __future__ import annotations

import hashlib
from bisect import bisect_left, insort
from collections.abc import Callable, Iterator
from heapq import heappush
from itertools import islice
from typing import Any

import msgspec
from msgspec import UNSET, UnsetType
from msgspec.structs import replace

from engine.core import events as ev
from engine.core.accounts import Account, Contract, Ledger
from engine.core.book import Book
from engine.core.commands import BUY, CLEARING, FEES, INSURANCE, PlaceOrder
from engine.core.keys import Kept, Keys
from engine.core.trailing import moves_at
from engine.core.work import Funding, Review, Work

CLIENT_IDS_MAX = 10_000  # remembered by account; the oldest closed ones are forgotten first
ORDERS_MAX = 1_000  # open ones by account
LEG_STEP = 2**50  # between the ids of the orders of one command, see linked.py
SPARE = 1_000  # entries of a heap that may be stale until it pays to look for them
STORE_AGE_MS_MAX = 21_600_000  # six hours


class Order(msgspec.Struct, gc=False):
    """An open order: waiting for its trigger, in a book, or (within one command) in neither."""

    order_id: int
    terms: PlaceOrder
    size_lots: int
    price_ticks: int | None
    stop_ticks: int | None
    expire_ns: int
    waiting: bool = False
    resting: bool = False
    filled_lots: int = 0
    cost_units: int = 0
    shown_lots: int = 0  # of the queue's view while resting
    link: ev.Link | UnsetType = UNSET

    @property
    def leaves_lots(self) -> int:
        return self.size_lots - self.filled_lots

    @property
    def held(self) -> bool:
        """Whether it waits for the first fill of its bracket's entry."""
        return self.link is not UNSET and self.link.held


class Market:
    """The book and the waiting stops of one contract."""

    def __init__(self) -> None:
        self.book = Book()
        self.last_ticks = 0  # of the last trade, 0 = none yet
        self.pending_mark_ticks = 0  # came while trading was suspended, 0 = none
        # by trigger: buys (stop, id) rising, sells (-stop, id) rising, so that the first of each triggers first
        self.stops: tuple[list[tuple[int, int]], list[tuple[int, int]]] = ([], [])
        # those of them that trail, by the last price that moves them: buys (-price, id), sells (price, id)
        self.trailing: tuple[list[tuple[int, int]], list[tuple[int, int]]] = ([], [])
        self.trails = 0  # open orders with a trail, held ones too

    def due_stop(self) -> int | None:
        """Return the stop that the last trade triggers first, or None: buys before sells."""
        for stops, reached in zip(self.stops, (self.last_ticks, -self.last_ticks), strict=True):
            if stops and self.last_ticks and stops[0][0] <= reached:
                return stops[0][1]
        return None


class Store(msgspec.Struct):
    """A consumer's place in the messages: it has all up to `purged_index`; its first one ever was at or above `first_index`."""

    store_id: str
    first_index: int
    purged_index: int
    age_ms_max: int = STORE_AGE_MS_MAX
    waived: bool | UnsetType = UNSET  # trading was resumed by hand although it is behind


class State:
    """Everything that decides what happens next."""

    def __init__(self) -> None:
        self.ledger = Ledger()
        self.markets: dict[str, Market] = {}
        self.orders: dict[int, Order] = {}
        self.trades = 0
        self.version = 1  # of the events that made it
        self.term = 0  # of the leader that made the last of them
        self.suspended: set[str] = set()
        self.stores: dict[str, Store] = {}
        self.message_index = 0  # of the last command that had a message, 0 = none yet
        self.work = Work()
        self.keys = Keys()
        # Heaps of what falls due; entries whose order is gone or whose deadline has moved are skipped. Not part of the hash.
        self.expiries: list[tuple[int, int]] = []
        self.timers: list[tuple[int, int]] = []
        self._appliers: dict[type, Callable[[Any], None]] = {
            ev.InstrumentCreated: self._instrument_created, ev.Transferred: self._transferred, ev.OrderAccepted: self._accepted,
            ev.OrderStopped: self._stopped, ev.OrderTriggered: self._triggered, ev.OrderRested: self._rested,
            ev.OrderAmended: self._amended, ev.OrderCanceled: self._canceled, ev.Traded: self._traded, ev.MarkSet: self._mark_set,
            ev.FundingCharged: self._funding, ev.PositionMoved: self._position_moved, ev.MoneyMoved: self._money_moved,
            ev.TimerSet: self._timer_set, ev.KillSwitchSet: self._kill_switch, ev.Suspended: self._suspended,
            ev.Resumed: self._resumed, ev.OrderRejected: _nothing, ev.CancelRejected: _nothing, ev.CommandRejected: _nothing,
            ev.LivenessChecked: _nothing, ev.SentBy: _nothing,
            ev.StoreCreated: self._store_created, ev.StoreDeleted: self._store_deleted,
            ev.StorePurged: self._store_purged, ev.StoreConfigured: self._store_configured,
            ev.SchemaSet: self._schema_set, ev.StoreWaived: self._store_waived,
            ev.OrderReleased: self._released, ev.StopsTrailed: self._trailed, ev.OrderPaused: self._paused,
            ev.FundingBegun: self._funding_begun, ev.FundingStepped: self._funding_stepped, ev.FundingEnded: self._funding_ended,
            ev.ReviewBegun: self._review_begun, ev.ReviewStepped: self._review_stepped, ev.ReviewEnded: self._review_ended,
            ev.SuspectsNoted: self._suspects_noted, ev.SuspectsTaken: self._suspects_taken, ev.KeyUsed: self._key_used,
            ev.TermBegan: self._term_began, ev.CancelsNoted: self._cancels_noted, ev.CancelsDone: self._cancels_done,
            ev.DelistingBegun: self._delisting_begun,
            ev.InstrumentDelisted: self._delisted,
        }  # fmt: skip

    def apply(self, event: ev.Event) -> None:
        """Change the state as the event says. An event that does not fit is a broken invariant. Cost: O(1), cancels O(levels)."""
        self._appliers[type(event)](event)

    def due(self, time_ns: int) -> bool:
        """Return whether time alone would change something: an order that expires, a timer that runs out."""
        expiries, timers = self.expiries, self.timers
        return bool((expiries and expiries[0][0] <= time_ns) or (timers and timers[0][0] <= time_ns))

    def digest(self) -> str:
        """Return the SHA-256 of everything that decides what happens next. Cost: O(state)."""
        return hashlib.sha256(msgspec.msgpack.encode(self.snapshot())).hexdigest()

    def snapshot(self) -> list[Any]:
        """Return the state as plain values, each collection in an order of its own that history cannot change."""
        ledger = self.ledger
        return [
            [[s, c.instrument, c.mark_ticks, *self._market_of(s), *_ended(c)] for s, c in sorted(ledger.contracts.items())],
            [_account_of(account) for _, account in sorted(ledger.accounts.items())],
            [order for _, order in sorted(self.orders.items())],
            [self.trades, ledger.deposited_units, sorted(self.suspended)],
            [self.message_index, [store for _, store in sorted(self.stores.items())]],
            *([self.version] if self.version > 1 else []),  # the hash of what version 1 made is what it was
            *([self.work.snapshot()] if self.work or self.keys.kept else []),
            *([list(self.keys.kept.values())] if self.keys.kept else []),
            *([["term", self.term]] if self.term else []),
        ]

    def _market_of(self, symbol: str) -> list[Any]:
        market = self.markets[symbol]
        sides = [[[lv.price, list(lv.items())] for lv in market.book.levels(side)] for side in (0, 1)]
        return [market.last_ticks, market.pending_mark_ticks, sides, market.stops]

    def forget(self, order: Order) -> None:
        """Take an order out of wherever it waits or rests."""
        market = self.markets[order.terms.symbol]
        if order.resting:
            market.book.remove(order.order_id)
            order.resting, order.shown_lots = False, 0
        elif order.waiting:
            stops = market.stops[order.terms.side]
            del stops[bisect_left(stops, _stop_key(order))]
            if order.terms.trail is not UNSET:
                trailing = market.trailing[order.terms.side]
                del trailing[bisect_left(trailing, _trail_key(order))]
            order.waiting = False
        self.work.entering.pop(order.order_id, None)

    def _close(self, order: Order) -> None:
        self.work.entering.pop(order.order_id, None)
        self._reserve(order, -order.leaves_lots)
        account = self.ledger.accounts[order.terms.account]
        del self.orders[order.order_id]
        del account.orders[order.order_id]
        account.special -= _is_special(order)
        if order.terms.trail is not UNSET:
            self.markets[order.terms.symbol].trails -= 1
        if order.link is not UNSET and order.link.partner:
            self._uncover(self.orders.get(order.link.partner))

    def _reserve(self, order: Order, lots: int) -> None:
        if order.terms.reduce_only or not lots or (self.work.cancels and self.noted(order)):
            return
        if order.link is UNSET or not order.link.covered:
            self.ledger.reserve(order.terms.account, order.terms.symbol, order.terms.side, lots)

    def find(self, number: int, cl_ord_id: str) -> Order | None:
        """Return an account's open order; one that is as good as cancelled is none."""
        account = self.ledger.accounts.get(number)
        order = self.orders.get(account.client_ids.get(cl_ord_id, -1)) if account else None
        return None if order is None or self.noted(order) else order

    def noted(self, order: Order) -> ev.CancelReason | None:
        """Return why an open order is as good as cancelled, None when it is not."""
        cancels, terms = self.work.cancels, order.terms
        for key in ((terms.account, ""), (terms.account, terms.symbol)) if cancels else ():
            if (found := cancels.get(key)) is not None and order.order_id % LEG_STEP <= found[0]:
                return found[1]
        return None

    def noted_of(self, number: int, symbol: str) -> Iterator[Order]:
        """Yield the open orders that an entry of `work.cancels` is about, oldest first."""
        upto, _ = self.work.cancels[number, symbol]
        for order_id in self.ledger.accounts[number].orders:
            if order_id % LEG_STEP > upto:
                return
            if symbol in ("", (order := self.orders[order_id]).terms.symbol):
                yield order

    def _uncover(self, order: Order | None) -> None:
        """Count the open lots of an order that its partner had counted."""
        if order is not None and order.link is not UNSET and order.link.covered:
            order.link = replace(order.link, covered=False)
            self._reserve(order, order.leaves_lots)

    def add_order(self, order: Order) -> None:
        """Enter an order into the table, its account and what is reserved; it is in no book yet."""
        self.orders[order.order_id] = order
        account = self.ledger.account(order.terms.account)
        account.orders[order.order_id] = None
        account.special += _is_special(order)
        self._reserve(order, order.leaves_lots)
        if order.terms.trail is not UNSET:
            self.markets[order.terms.symbol].trails += 1

    def _term_began(self, event: ev.TermBegan) -> None:
        assert event.term > self.term, f"term {event.term} comes after {self.term}"
        self.term = event.term

    def _schema_set(self, event: ev.SchemaSet) -> None:
        if event.version > ev.VERSION:
            raise ev.EventsTooNew(event.version)
        self.version = event.version

    def _instrument_created(self, event: ev.InstrumentCreated) -> None:
        self.ledger.add_contract(event.instrument, event.mark_ticks)
        self.markets[event.instrument.symbol] = Market()

    def _delisting_begun(self, event: ev.DelistingBegun) -> None:
        self.ledger.contracts[event.symbol].listed = False
        self.work.delistings[event.symbol] = None

    def _delisted(self, event: ev.InstrumentDelisted) -> None:
        contract, market = self.ledger.contracts[event.symbol], self.markets[event.symbol]
        assert not contract.holders, f"somebody holds {event.symbol}"
        contract.listed, market.pending_mark_ticks = False, 0
        self.work.delistings.pop(event.symbol, None)

    def _transferred(self, event: ev.Transferred) -> None:
        self.ledger.deposit(event.account, event.amount_units)

    def _accepted(self, event: ev.OrderAccepted) -> None:
        terms = event.order
        order = Order(event.order_id, terms, terms.size_lots, terms.price_ticks, terms.stop_ticks, event.expire_ns)
        order.link = event.link
        account = self.ledger.accounts[terms.account]
        self.add_order(order)
        account.client_ids[terms.cl_ord_id] = event.order_id
        if len(account.client_ids) > CLIENT_IDS_MAX:
            del account.client_ids[next(c for c, order_id in account.client_ids.items() if order_id not in account.orders)]
        if event.expire_ns:
            heappush(self.expiries, (event.expire_ns, event.order_id))
            if len(self.expiries) > 2 * len(self.orders) + SPARE:  # most are of orders that are gone
                self.expiries = sorted((order.expire_ns, order.order_id) for order in self.orders.values() if order.expire_ns)

    def _stopped(self, event: ev.OrderStopped) -> None:
        order = self.orders[event.order_id]
        order.waiting = True
        market = self.markets[order.terms.symbol]
        insort(market.stops[order.terms.side], _stop_key(order))
        if order.terms.trail is not UNSET:
            insort(market.trailing[order.terms.side], _trail_key(order))

    def _triggered(self, event: ev.OrderTriggered) -> None:
        """What is triggered goes its own way: the others of its links are cancelled next."""
        order = self.orders[event.order_id]
        self.forget(order)
        order.stop_ticks = None
        self._uncover(order)
        order.link = UNSET

    def _released(self, event: ev.OrderReleased) -> None:
        order = self.orders[event.order_id]
        self.forget(order)
        assert order.link is not UNSET, f"order {order.order_id} has no entry"
        assert not order.filled_lots, f"exit {order.order_id} has traded and follows its entry no more"
        order.link = replace(order.link, held=False)
        order.size_lots = event.size_lots

    def _trailed(self, event: ev.StopsTrailed) -> None:
        for order_id, stop_ticks in event.moves:
            order = self.orders[order_id]
            waiting = order.waiting
            self.forget(order)
            order.stop_ticks = stop_ticks
            if waiting:
                self._stopped(ev.OrderStopped(order_id))

    def _paused(self, event: ev.OrderPaused) -> None:
        self.work.entering[event.order_id] = None

    def _cancels_noted(self, event: ev.CancelsNoted) -> None:
        self.work.cancels[event.account, event.symbol] = event.upto, event.reason
        open_lots = self.ledger.accounts[event.account].open_lots
        for symbol in [event.symbol] if event.symbol else list(open_lots):
            open_lots.pop(symbol, None)

    def _cancels_done(self, event: ev.CancelsDone) -> None:
        del self.work.cancels[event.account, event.symbol]

    def _rested(self, event: ev.OrderRested) -> None:
        self.work.entering.pop(event.order_id, None)
        self._show(self.orders[event.order_id])

    def _show(self, order: Order, taken_lots: int = 0) -> None:
        """Let an order rest, last in its queue; `taken_lots` of what it shows next are gone already."""
        assert order.price_ticks is not None, f"order {order.order_id} has no price to rest at"
        order.resting = True
        order.shown_lots = min(order.leaves_lots, (order.terms.display_lots or order.leaves_lots) - taken_lots)
        book = self.markets[order.terms.symbol].book
        book.rest(order.terms.side, order.order_id, order.price_ticks, order.shown_lots)

    def _amended(self, event: ev.OrderAmended) -> None:
        order = self.orders[event.order_id]
        if not event.kept:
            self.forget(order)
        self._reserve(order, event.size_lots - order.size_lots)
        order.size_lots, order.price_ticks, order.stop_ticks = event.size_lots, event.price_ticks, event.stop_ticks
        if order.shown_lots > order.leaves_lots:
            order.shown_lots = order.leaves_lots
            self.markets[order.terms.symbol].book.resize(order.order_id, order.shown_lots)

    def _canceled(self, event: ev.OrderCanceled) -> None:
        order = self.orders[event.order_id]
        self.forget(order)
        self._close(order)

    def _traded(self, event: ev.Traded) -> None:
        taker, maker = self.orders[event.taker_id], self.orders[event.maker_id]
        symbol, market = taker.terms.symbol, self.markets[taker.terms.symbol]
        value = self.ledger.contracts[symbol].value_units(event.size_lots, event.price_ticks)
        buyer, seller = (taker, maker) if taker.terms.side == BUY else (maker, taker)
        self.ledger.exchange(symbol, buyer.terms.account, seller.terms.account, event.size_lots, value)
        self.ledger.move(taker.terms.account, FEES, event.taker_fee_units)
        self.ledger.move(maker.terms.account, FEES, event.maker_fee_units)
        self.trades, market.last_ticks = event.trade_id, event.price_ticks
        self._fill_maker(maker, event.size_lots, value)
        self._fill(taker, event.size_lots, value)

    def _fill(self, order: Order, lots: int, value_units: int) -> None:
        order.filled_lots += lots
        order.cost_units += value_units
        self._reserve(order, -lots)
        assert order.leaves_lots >= 0, f"order {order.order_id} is filled beyond its size"
        if not order.leaves_lots:
            self._close(order)

    def _fill_maker(self, maker: Order, lots: int, value_units: int) -> None:
        """Fill a resting order; an iceberg whose shown part is gone shows the next one, last in its queue.

        A fill of more than it shows stands for all its refills: nobody else was at its price.
        """
        beyond = lots - maker.shown_lots
        if beyond >= 0:
            self.forget(maker)
        else:
            maker.shown_lots -= lots
            self.markets[maker.terms.symbol].book.resize(maker.order_id, maker.shown_lots)
        self._fill(maker, lots, value_units)
        if maker.leaves_lots and not maker.resting:
            self._show(maker, beyond % maker.terms.display_lots if maker.terms.display_lots else 0)

    def _mark_set(self, event: ev.MarkSet) -> None:
        market = self.markets[event.symbol]
        if event.pending:
            market.pending_mark_ticks = event.mark_ticks
            return
        market.pending_mark_ticks = 0
        self.ledger.contracts[event.symbol].mark_ticks = event.mark_ticks

    def _funding(self, event: ev.FundingCharged) -> None:
        for account, units in event.payments:
            self.ledger.move(account, INSURANCE, units)

    def _funding_begun(self, event: ev.FundingBegun) -> None:
        self.work.fundings[event.symbol] = Funding(event.symbol, event.rate_ppm, event.mark_ticks, ahead={})

    def _funding_stepped(self, event: ev.FundingStepped) -> None:
        funding = self.work.fundings[event.symbol]
        for account, units in event.payments:
            self.ledger.move(account, CLEARING, units)
            funding.held_units += units
        funding.after = event.upto
        funding.ahead.update(dict.fromkeys(event.ahead))

    def _funding_ended(self, event: ev.FundingEnded) -> None:
        del self.work.fundings[event.symbol]
        self.ledger.move(CLEARING, INSURANCE, event.rest_units)

    def _review_begun(self, event: ev.ReviewBegun) -> None:
        review = self.work.reviews.setdefault(event.symbol, Review(event.symbol))
        review.until, review.wrapped = review.after, False

    def _review_stepped(self, event: ev.ReviewStepped) -> None:
        review = self.work.reviews[event.symbol]
        review.after, review.wrapped = event.after, event.wrapped

    def _review_ended(self, event: ev.ReviewEnded) -> None:
        del self.work.reviews[event.symbol]

    def _suspects_noted(self, event: ev.SuspectsNoted) -> None:
        self.work.suspects.update(dict.fromkeys(event.accounts))

    def _suspects_taken(self, event: ev.SuspectsTaken) -> None:
        for number in list(islice(self.work.suspects, event.count)):
            del self.work.suspects[number]

    def _key_used(self, event: ev.KeyUsed) -> None:
        self.keys.add(Kept(event.key, event.digest, event.time_ns, event.index, event.status, event.body))

    def _position_moved(self, event: ev.PositionMoved) -> None:
        self.ledger.exchange(event.symbol, event.taker, event.giver, event.lots, event.value_units)

    def _money_moved(self, event: ev.MoneyMoved) -> None:
        self.ledger.move(event.payer, event.payee, event.amount_units)

    def _timer_set(self, event: ev.TimerSet) -> None:
        self.ledger.account(event.account).deadline_ns = event.deadline_ns
        if event.deadline_ns:
            heappush(self.timers, (event.deadline_ns, event.account))
            if len(self.timers) > 2 * len(self.ledger.accounts) + SPARE:  # most have been set anew since
                self.timers = sorted((a.deadline_ns, a.number) for a in self.ledger.accounts.values() if a.deadline_ns)

    def _kill_switch(self, event: ev.KillSwitchSet) -> None:
        self.ledger.account(event.account).killed = event.on

    def _suspended(self, event: ev.Suspended) -> None:
        self.suspended.add(event.reason)

    def _resumed(self, event: ev.Resumed) -> None:
        self.suspended.remove(event.reason)

    def _store_created(self, event: ev.StoreCreated) -> None:
        self.stores[event.store_id] = Store(event.store_id, event.after_index + 1, event.after_index)

    def _store_waived(self, event: ev.StoreWaived) -> None:
        self.stores[event.store_id].waived = True if event.on else UNSET

    def _store_deleted(self, event: ev.StoreDeleted) -> None:
        del self.stores[event.store_id]

    def _store_purged(self, event: ev.StorePurged) -> None:
        self.stores[event.store_id].purged_index = event.message_index

    def _store_configured(self, event: ev.StoreConfigured) -> None:
        self.stores[event.store_id].age_ms_max = event.age_ms_max


def _is_special(order: Order) -> bool:
    """Return whether it is one of `Account.special`; it stays the same for an order's life."""
    return order.terms.reduce_only or order.terms.more is not UNSET or order.order_id >= LEG_STEP


def _nothing(_: ev.Event) -> None:
    """A rejection or a milestone changes nothing."""


def _stop_key(order: Order) -> tuple[int, int]:
    assert order.stop_ticks is not None
    return (order.stop_ticks if order.terms.side == BUY else -order.stop_ticks), order.order_id


def _trail_key(order: Order) -> tuple[int, int]:
    assert order.stop_ticks is not None
    assert order.terms.trail is not UNSET
    price = moves_at(order.terms.trail, order.terms.side, order.stop_ticks)
    return (-price if order.terms.side == BUY else price), order.order_id


def _ended(contract: Contract) -> list[str]:
    return [] if contract.listed else ["delisted"]


def _account_of(account: Account) -> list[Any]:
    positions = [[s, p.lots, p.cost_units] for s, p in sorted(account.positions.items())]
    open_lots = [[s, lots] for s, lots in sorted(account.open_lots.items())]
    fixed = [account.number, account.balance_units, account.deadline_ns, account.killed]
    return [*fixed, positions, open_lots, list(account.orders), list(account.client_ids.items())]
