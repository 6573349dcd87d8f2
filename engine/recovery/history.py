"""Finds the orders that are asked for in journal and archive, and shows the exchange as it was after any command.

Records are looked at for the order's id before they are decoded: that takes less than twice as long as reading the journal.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from engine.core import events as ev
from engine.core.commands import Instrument, PlaceOrder
from engine.core.linked import group_of
from engine.core.units import iso, price
from engine.journal.format import START, Record
from engine.journal.reader import beginning, read, segments
from engine.recovery.inspection import PUT_BACK, Moment, beyond, ensure_there
from engine.recovery.order_life import UNITS, Biographer, OrderLife, number, written
from engine.recovery.replay import RecordUnknown
from engine.recovery.snapshot_files import FileSnapshotStore
from engine.recovery.snapshot_format import StoredAccount, StoredExchange, StoredOrder, StoredSnapshot
from service.errors import OperatorError

LISTED = b"instrument.created"


class Places(NamedTuple):
    """Where an exchange has its history; `archive` None is none."""

    journal: Path
    snapshots: Path
    archive: Path | None = None


class Wanted(NamedTuple):
    """Which order: by its id, or by account and client order id, under which there may have been several."""

    order_id: int | None = None
    account: int = 0
    cl_ord_id: str = ""

    def __str__(self) -> str:
        return f"order {self.order_id}" if self.order_id is not None else f"order {self.cl_ord_id!r} of account {self.account}"


class Told(NamedTuple):
    """The lives that were found, and up to which index was read."""

    lives: list[OrderLife]
    text: str
    read_to: int


def orders(places: Places, wanted: Wanted, at: int | None = None) -> Told:
    """Return what became of an order, up to command `at` or the journal's end.

    Raises: as `inspection.verify`; OperatorError when there is no such order, when it came before what journal and archive have,
    and when the journal ends before `at`. Cost: reads everything after the order, or all when it is named by its client id.
    """
    ensure_there(places.journal, places.archive)
    begins, before = beginning(places.journal, places.archive)
    first = -1 if wanted.order_id is None else group_of(wanted.order_id) - 1
    complete = before == START or (wanted.order_id is not None and begins <= first + 1)
    search = _Search(wanted, places)
    for record in read(places.journal, first, places.archive):
        if at is not None and record.command_index > at:
            search.later = True
            break
        search.look_at(record)
        if search.over and at is None:
            break
    read_to = search.read_to if search.read_to >= 0 else _end(places)
    if at is not None and not search.later and read_to < at:
        raise beyond(read_to, at)
    if not search.found:
        raise _unknown(wanted, begins if not complete else None, read_to)
    lives = [one.life for one in search.found]
    text = "\n\n".join(written(one.life, one.terms, search.read_to) for one in search.found)
    return Told(lives, text, search.read_to)


def _end(places: Places) -> int:
    """Return the index of the last record."""
    last = int(segments(places.journal, places.archive)[-1].stem) - 1
    for record in read(places.journal, last, places.archive):
        last = record.command_index
    return last


def _unknown(wanted: Wanted, begins: int | None, read_to: int) -> OperatorError:
    if begins is not None:
        what = f"There is no {wanted} from index {begins} on, where journal and archive begin: it may have come before"
        return OperatorError(what, PUT_BACK.partition(", or ask")[0], 3)
    fix = "Give the orderId of an answer or message, or --account with --client-id; rejected orders are found, too"
    return OperatorError(f"There is no {wanted} up to index {read_to}", fix, 3)


def _instruments(places: Places) -> dict[str, Instrument]:
    """Return the contracts of the newest snapshot."""
    for restored in FileSnapshotStore(places.snapshots).restored():
        return {symbol: contract.instrument for symbol, contract in restored.state.ledger.contracts.items()}
    return {}


def _listed(places: Places, symbol: str) -> Instrument | None:
    """Return a contract from the record that listed it, None when that is not there any more: prices are then shown in ticks."""
    for record in read(places.journal, -1, places.archive):
        if LISTED in record.payload:
            for event in _decoded(record):
                if isinstance(event, ev.InstrumentCreated) and event.instrument.symbol == symbol:
                    return event.instrument
    return None


def _decoded(record: Record) -> list[ev.AnyEvent]:
    try:
        return ev.decode(record.payload)
    except msgspec.DecodeError as error:
        raise RecordUnknown(record.command_index, str(error)) from error


class _Search:
    """Looks through records for an order; `over` when nothing more can come of it."""

    def __init__(self, wanted: Wanted, places: Places) -> None:
        self.found: list[Biographer] = []
        self.read_to = -1
        self.later = False
        self._wanted = wanted
        self._places = places
        self._instruments = _instruments(places)
        name = wanted.order_id if wanted.order_id is not None else wanted.cl_ord_id
        self._marks = [LISTED, msgspec.msgpack.encode(name)]

    @property
    def over(self) -> bool:
        return self._wanted.order_id is not None and bool(self.found) and self.found[0].over

    def look_at(self, record: Record) -> None:
        """Raises: RecordUnknown."""
        index, payload, wanted = record.command_index, record.payload, self._wanted
        self.read_to = index
        own = wanted.order_id is not None and index == group_of(wanted.order_id)
        if not own and not any(mark in payload for mark in self._marks):
            return
        events = _decoded(record)
        for event in events:
            if isinstance(event, ev.InstrumentCreated):
                self._instruments[event.instrument.symbol] = event.instrument
            elif isinstance(event, ev.OrderAccepted) and self._is_wanted(event.order_id, event.order):
                self._begin(event.order_id, event.order)
            elif isinstance(event, ev.OrderRejected) and (own or self._names(event.account, event.cl_ord_id)):
                self._refuse(record, event, events)
        for one in self.found:
            if not one.over or one is self.found[-1]:  # a cancel that comes too late is told of the last one of its name
                one.take(index, record.time_ns, events)

    def _is_wanted(self, order_id: int, terms: PlaceOrder) -> bool:
        by_id = self._wanted.order_id is not None
        return order_id == self._wanted.order_id if by_id else self._names(terms.account, terms.cl_ord_id)

    def _names(self, account: int, cl_ord_id: str) -> bool:
        return self._wanted.order_id is None and (account, cl_ord_id) == self._wanted[1:]

    def _begin(self, order_id: int, terms: PlaceOrder) -> None:
        instrument = self._instruments.get(terms.symbol) or _listed(self._places, terms.symbol)
        self.found.append(Biographer(order_id, terms, instrument))
        self._marks += [msgspec.msgpack.encode(order_id), msgspec.msgpack.encode(terms.cl_ord_id)]

    def _refuse(self, record: Record, event: ev.OrderRejected, events: list[ev.AnyEvent]) -> None:
        sender = next((one.sender for one in events if isinstance(one, ev.SentBy)), "")
        terms = PlaceOrder(event.account, event.symbol, event.cl_ord_id, 0, 0)
        one = Biographer(record.command_index, terms, None)
        one.refused(record.command_index, record.time_ns, sender, event.reason.value)
        self.found.append(one)


# The state


def shown(found: Moment, account: int | None = None) -> dict[str, Any]:
    """Return a moment as JSON's types, of one account when one is named.  Raises: OperatorError when there is no such account."""
    exchange, markets = found.files.exchange, found.files.markets
    if account is None:
        return {"index": found.last_index, "digest": found.digest, "exchange": exchange, "markets": markets}
    return {
        "index": found.last_index,
        "account": _account(exchange, account, found.last_index),
        "orders": _orders_of(markets, account),
    }


def told(found: Moment, account: int | None = None) -> str:
    """Return a moment as people read it.  Raises: as `shown`."""
    exchange, markets = found.files.exchange, found.files.markets
    lines = [f"after command {found.last_index} ({iso(exchange.time_ns)}), digest {found.digest}"]
    if account is not None:
        lines.append(_account_line(_account(exchange, account, found.last_index)))
        return "\n".join([*lines, *(f"    {line}" for line in _order_lines(markets, account))])
    if exchange.suspended:
        lines.append(f"  trading is suspended: {', '.join(exchange.suspended)}")
    lines += [f"  {_market_line(market)}" for market in markets]
    lines += [_account_line(one) for one in exchange.accounts]
    lines += [f"  store {one.store_id!r}: purged up to {one.purged_index}" for one in exchange.stores]
    return "\n".join(lines)


def _account(exchange: StoredExchange, account: int, index: int) -> StoredAccount:
    for one in exchange.accounts:
        if one.account == account:
            return one
    raise OperatorError(f"There is no account {account} after command {index}", "Give another one, or none to see all", 3)


def _stored(market: StoredSnapshot) -> Iterator[StoredOrder]:
    levels = [*market.order_book.bids, *market.order_book.asks]
    for orders in (*(level.orders for level in levels), market.stops, market.entering, market.held):
        yield from orders


def _orders_of(markets: list[StoredSnapshot], account: int) -> list[StoredOrder]:
    return [order for market in markets for order in _stored(market) if order.user_id == str(account)]


def _order_lines(markets: list[StoredSnapshot], account: int) -> Iterator[str]:
    for market in markets:
        for one in _orders_of([market], account):
            at = "market" if one.price_ticks is None else f"at {_price(market, one.price_ticks)}"
            stop = "" if one.stop_ticks is None else f", stop {_price(market, one.stop_ticks)}"
            yield f"order {one.order_id}: {one.side} {one.remaining_qty_lots} of {one.qty_lots} {one.market} {at}{stop}"


def _market_line(market: StoredSnapshot) -> str:
    bids, asks = market.order_book.bids, market.order_book.asks
    best = " / ".join(_price(market, side[0].price_ticks) if side else "-" for side in (bids, asks))
    last = _price(market, market.last_ticks) if market.last_ticks else "-"
    count, state = sum(1 for _ in _stored(market)), "" if market.listed else ", takes no orders"
    return f"{market.market}: mark {_price(market, market.mark_ticks)}, last {last}, {best}, {count} open orders{state}"


def _price(market: StoredSnapshot, ticks: int) -> str:
    return number(price(market.instrument or Instrument(market.market), ticks))


def _account_line(one: StoredAccount) -> str:
    held = "".join(f", {lots:+} {symbol}" for symbol, (lots, _) in one.positions.items())
    return f"  account {one.account}: balance {number(one.balance_units / UNITS)}{held}{', kill switch on' if one.killed else ''}"
