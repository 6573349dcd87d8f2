"""Shows books, contracts, orders and accounts as the gateway's answers, read from the state between two groups."""

from __future__ import annotations

from collections.abc import Callable
from itertools import islice

from msgspec import UNSET

from engine.core import units
from engine.core.accounts import Account, Contract
from engine.core.book import Book
from engine.core.commands import (
    BUY,
    SELL,
    SIDE_NAMES,
    Instrument,
)  # fmt: skip
from engine.core.events import CancelReason, RejectReason
from engine.core.linked import group_of, ids_of
from engine.core.solvency import Solvency
from engine.core.state import Order, State
from engine.core.units import PPM
from engine.gateway.bodies import (
    AccountSummary,
    AccountView,
    BookView,
    ControlsView,
    InstrumentView,
    LevelView,
    LinkedView,
    OrderView,
    PositionView,
)  # fmt: skip
from engine.gateway.problems import rejected
from engine.journal.sequencer import Sequencer
from engine.stores.message_builder import contingency, link_id, ord_type, status_of
from engine.stores.message_log import MessageLog
from service.clock import Clock


class Views:
    """What books, contracts, orders and accounts look like now, as the journal has them."""

    def __init__(self, sequencer: Sequencer, log: MessageLog, clock: Clock) -> None:
        self._sequencer = sequencer
        self._log = log
        self._clock = clock

    @property
    def state(self) -> State:
        return self._sequencer.state

    @property
    def index(self) -> int:
        return self._sequencer.committed_index

    def instrument(self, symbol: str) -> InstrumentView:
        """Return a contract as it is now.  Raises: Refused."""
        return instrument_view(self.contract(symbol), self.state)

    def instruments(self, delisted: bool) -> list[InstrumentView]:
        """Return the contracts by name, those that are delisted only if they are wanted."""
        shown = (self.instrument(symbol) for symbol in sorted(self.state.ledger.contracts))
        return [one for one in shown if delisted or one.status != "Delisted"]

    def contract(self, symbol: str) -> Contract:
        """Raises: Refused."""
        contract = self.state.ledger.contracts.get(symbol)
        if contract is None:
            raise rejected(RejectReason.UNKNOWN_SYMBOL)
        return contract

    def book(self, symbol: str, depth: int) -> BookView:
        """Return the best levels.  Raises: Refused. Cost: O(levels × their orders)."""
        contract = self.contract(symbol)
        market, instrument = self.state.markets[symbol], contract.instrument
        last = units.price(instrument, market.last_ticks) if market.last_ticks else None
        at = units.iso(self._log.time_ns or self._clock.wall_ns())
        bids, asks = (_levels(market.book, side, depth, instrument) for side in (BUY, SELL))
        return BookView(symbol, self.index, at, bids, asks, last, units.price(instrument, contract.mark_ticks))

    def open_order(self, order: Order) -> OrderView:
        """Return an open order as it is now."""
        return self.order(order, self.index, order.filled_lots, order.cost_units, None)

    def order(self, order: Order, index: int, filled: int, cost: int, reason: CancelReason | None) -> OrderView:
        """Return an order after command `index`: lots filled by then, what they cost, why it was cancelled if it was."""
        terms = order.terms
        instrument = self.state.ledger.contracts[terms.symbol].instrument
        left = order.size_lots - filled
        over, under = units.scale(instrument.tick_size)
        price, stop, trail = order.price_ticks, order.stop_ticks, order.terms.trail
        return OrderView(
            message_index=index, order_id=str(order.order_id), cl_ord_id=terms.cl_ord_id, account=terms.account,
            symbol=terms.symbol, side=SIDE_NAMES[terms.side], ord_type=ord_type(terms), time_in_force=terms.time_in_force.value,
            price=None if price is None else price * over / under, stop_px=None if stop is None else stop * over / under,
            ord_status="Canceled" if reason else ("PartiallyFilled" if left else "Filled") if filled else status_of(order),
            order_qty=order.size_lots, leaves_qty=0 if reason else left, cum_qty=filled, cum_cost=cost,
            avg_px=cost * over / (filled * instrument.lot_tick_units * under) if filled else 0.0,
            text=reason.value if reason else "", trail_amount=trail.ticks * over / under if trail and trail.ticks else None,
            trail_rate=trail.ppm / PPM if trail and trail.ppm else None, link_id=link_id(order),
            contingency_type=contingency(order), linked=self._linked(order),
        )  # fmt: skip

    def _linked(self, order: Order) -> list[LinkedView]:
        """Return the open orders that came with this one."""
        if order.link is UNSET:
            return []
        orders = (self.state.orders.get(one) for one in ids_of(group_of(order.order_id)) if one != order.order_id)
        return [LinkedView(str(one.order_id), one.terms.cl_ord_id) for one in orders if one is not None]

    def account(self, number: int) -> AccountView:
        """Return an account with its positions and open orders.  Raises: Refused."""
        account = self.state.ledger.accounts.get(number)
        if account is None:
            raise rejected(RejectReason.UNKNOWN_ACCOUNT)
        summary, orders = self.summary(account), self.state.orders
        listed = [orders[order_id] for order_id in account.orders]
        shown = [self.open_order(order) for order in listed if not self.state.noted(order)]
        return AccountView(
            account=number, balance=summary.balance, equity=summary.equity, initial_margin=summary.initial_margin,
            maintenance_margin=summary.maintenance_margin, available=summary.available, kill_switch=summary.kill_switch,
            message_index=self.index, deadline=units.iso(account.deadline_ns) if account.deadline_ns else None,
            positions=self._positions(account), open_orders=shown,
        )  # fmt: skip

    def summary(self, account: Account) -> AccountSummary:
        """Return an account's money."""
        ledger = self.state.ledger
        return AccountSummary(
            account=account.number, balance=account.balance_units, equity=ledger.equity_units(account),
            initial_margin=ledger.initial_units(account), maintenance_margin=ledger.maintenance_units(account),
            available=max(0, Solvency(self.state).free_units(account)), kill_switch=account.killed,
        )  # fmt: skip

    def summaries(self, after: int, limit: int, seen: Callable[[int], bool]) -> list[AccountSummary]:
        """Return accounts by rising number, those that may be `seen`. Cost: O(accounts)."""
        accounts = self.state.ledger.accounts
        numbers = sorted(number for number in accounts if number > after and seen(number))
        return [self.summary(accounts[number]) for number in islice(numbers, limit)]

    def controls(self, index: int) -> ControlsView:
        """Return why trading is suspended."""
        return ControlsView(index, bool(self.state.suspended), sorted(self.state.suspended))

    def _positions(self, account: Account) -> list[PositionView]:
        found = []
        for symbol, position in sorted(account.positions.items()):
            contract = self.state.ledger.contracts[symbol]
            mark, profit = units.price(contract.instrument, contract.mark_ticks), contract.value_units(position.lots)
            found.append(PositionView(symbol, position.lots, position.cost_units, mark, profit - position.cost_units))
        return found


def _levels(book: Book, side: int, depth: int, instrument: Instrument) -> list[LevelView]:
    levels = book.levels(side)
    return [
        LevelView(units.price(instrument, level.price), sum(level.values()), len(level))
        for level in (islice(levels, depth) if depth else levels)
    ]


def instrument_view(contract: Contract, state: State) -> InstrumentView:
    """Return a contract of the state, and its mark."""
    one = contract.instrument
    status = "Open" if contract.listed else "Closing" if one.symbol in state.work.delistings else "Delisted"
    return InstrumentView(
        symbol=one.symbol, tick_size=one.tick_size, lot_size=one.lot_size, lot_tick_units=one.lot_tick_units,
        maker_fee=one.maker_fee_ppm / PPM, taker_fee=one.taker_fee_ppm / PPM, initial_margin=one.initial_margin_ppm / PPM,
        maintenance_margin=one.maintenance_margin_ppm / PPM, liquidation_fee=one.liquidation_fee_ppm / PPM,
        price_band=one.band_ppm / PPM, order_qty_max=one.size_lots_max, price_max=units.price(one, one.price_ticks_max),
        mark_price=units.price(one, contract.mark_ticks), status=status,
    )  # fmt: skip
