"""Says why an order, an amend or a contract is refused, before anything changes.

Cheap questions come first, so that a bad order costs little; margin comes last.
"""

from __future__ import annotations

from msgspec import UNSET

from engine.core.accounts import Contract
from engine.core.commands import BUY, INSURANCE, SELL, AmendOrder, Delist, Instrument, PlaceOrder, TimeInForce
from engine.core.events import RejectReason
from engine.core.linked import is_pair, pair_size, refuse_legs, with_legs
from engine.core.matching import IMMEDIATE, in_band, reducible_lots
from engine.core.solvency import Solvency
from engine.core.state import ORDERS_MAX, Order, State
from engine.core.trailing import refuse_trail
from engine.core.units import scale

MONEY_UNITS_MAX = 10**15  # of one deposit and of the largest order's value: sums of thousands still fit 64 bits
CLIENT_ID_LENGTH_MAX = 64
DISPLAYS_MAX = 100  # times an iceberg may show itself: each is a trade, and somebody else's turn, of one command


def refuse_instrument(state: State, instrument: Instrument, mark_ticks: int) -> RejectReason | None:
    """Return why a contract cannot be listed."""
    if instrument.symbol in state.ledger.contracts:
        return RejectReason.DUPLICATE_SYMBOL
    margins = 0 < instrument.maintenance_margin_ppm <= instrument.initial_margin_ppm
    fees = instrument.maker_fee_ppm + instrument.taker_fee_ppm >= 0 and instrument.liquidation_fee_ppm >= 0
    sizes = instrument.lot_tick_units > 0 and instrument.size_lots_max > 0 and instrument.band_ppm >= 0
    largest = instrument.lot_tick_units * instrument.size_lots_max * instrument.price_ticks_max
    if instrument.symbol and margins and fees and sizes and 0 < largest <= MONEY_UNITS_MAX and _readable(instrument):
        return None if 0 < mark_ticks <= instrument.price_ticks_max else RejectReason.INVALID_PRICE
    return RejectReason.INVALID_INSTRUMENT


def _readable(instrument: Instrument) -> bool:
    """Return whether the sizes for people are decimals above zero: messages divide by them."""
    try:
        scale(instrument.tick_size)
        scale(instrument.lot_size)
    except ValueError:
        return False
    return True


def refuse_delisting(state: State, command: Delist) -> RejectReason | None:
    """Return why a contract cannot be delisted. Cost: O(open orders)."""
    symbol, contract = command.symbol, state.ledger.contracts.get(command.symbol)
    if contract is None:
        return RejectReason.UNKNOWN_SYMBOL
    if not contract.listed:
        return RejectReason.DELISTED
    if state.suspended:
        return RejectReason.SUSPENDED
    if symbol in state.work.fundings:
        return RejectReason.FUNDING_UNDER_WAY
    if command.settle:
        return None
    if any(order.terms.symbol == symbol for order in state.orders.values()):
        return RejectReason.OPEN_ORDERS
    return RejectReason.OPEN_POSITIONS if contract.holders else None


def refuse_order(state: State, order: PlaceOrder, time_ns: int) -> RejectReason | None:
    """Return why an order cannot be accepted, with all that it brings: one that is refused refuses all."""
    orders = with_legs(order)
    if len(orders) > 1 and (reason := refuse_legs(order, orders)) is not None:
        return reason
    besides_units = 0
    for n, one in enumerate(orders):
        exits, covered = n > 0 and not is_pair(order), n > 0 and one.side == order.side
        more = 0 if one.reduce_only or covered else one.size_lots
        if (reason := _refuse_one(state, one, time_ns, len(orders), exits, more, besides_units)) is not None:
            return reason
        if is_pair(order) and n == 0:
            besides_units = Solvency(state).needs_units(one.symbol, one.side, more, None if one.is_stop else one.price_ticks)
    return None


def _refuse_one(
    state: State, order: PlaceOrder, time_ns: int, count: int, is_exit: bool, more: int, besides_units: int
) -> RejectReason | None:
    """Return why one of `count` orders cannot be accepted. An exit reduces a position that is still to come."""
    contract, account = state.ledger.contracts.get(order.symbol), state.ledger.accounts.get(order.account)
    if contract is None:
        return RejectReason.UNKNOWN_SYMBOL
    if not contract.listed:
        return RejectReason.DELISTED
    if account is None or order.account < INSURANCE:
        return RejectReason.UNKNOWN_ACCOUNT
    if order.cl_ord_id in account.client_ids:
        return RejectReason.DUPLICATE_CL_ORD_ID
    if state.suspended:
        return RejectReason.SUSPENDED
    if account.killed:
        return RejectReason.KILLED
    if len(account.orders) + count > ORDERS_MAX:
        return RejectReason.TOO_MANY_ORDERS
    if (reason := _refuse_terms(contract, order, time_ns)) is not None:
        return reason
    if order.trail is not UNSET:
        reason = refuse_trail(order.trail, contract.instrument, state.markets[order.symbol].trails)
    if reason is not None or is_exit:
        return reason
    lots = reducible_lots(state.ledger.lots(order.account, order.symbol), order.side) if order.reduce_only else order.size_lots
    if not lots:
        return RejectReason.REDUCE_ONLY
    price = None if order.is_stop else order.price_ticks  # a stop is asked when it enters
    size = min(lots, order.size_lots)
    if not Solvency(state).affords(account, order.symbol, order.side, size, price, more, besides_units=besides_units):
        return RejectReason.MARGIN
    return None


def _refuse_terms(contract: Contract, order: PlaceOrder, time_ns: int) -> RejectReason | None:
    """Return what is wrong with an order by itself."""
    most = contract.instrument
    if order.side not in (BUY, SELL):
        return RejectReason.INVALID_SIDE
    if not 0 < order.size_lots <= most.size_lots_max or not _shows_enough(order.size_lots, order.display_lots):
        return RejectReason.INVALID_SIZE
    if (reason := _refuse_prices(contract, order.price_ticks, order.stop_ticks)) is not None:
        return reason
    if not (order.expire_ns > time_ns if order.time_in_force is TimeInForce.GTD else order.expire_ns == 0):
        return RejectReason.INVALID_EXPIRY
    rests = order.price_ticks is not None and order.time_in_force not in IMMEDIATE
    if (order.post_only or order.display_lots) and not rests:
        return RejectReason.INVALID_COMBINATION
    if not 0 < len(order.cl_ord_id) <= CLIENT_ID_LENGTH_MAX:
        return RejectReason.INVALID_COMBINATION
    return None


def _shows_enough(size_lots: int, display_lots: int) -> bool:
    return display_lots == 0 or display_lots <= size_lots <= DISPLAYS_MAX * display_lots


def _refuse_prices(contract: Contract, price_ticks: int | None, stop_ticks: int | None) -> RejectReason | None:
    for ticks in (price_ticks, stop_ticks):
        if ticks is not None and not 0 < ticks <= contract.instrument.price_ticks_max:
            return RejectReason.INVALID_PRICE
    if price_ticks is not None and not in_band(contract, price_ticks):
        return RejectReason.PRICE_BAND
    return None


def refuse_amend(state: State, order: Order, amend: AmendOrder) -> RejectReason | None:
    """Return why an open order cannot be given other terms."""
    terms = order.terms
    contract, account = state.ledger.contracts[terms.symbol], state.ledger.accounts[terms.account]
    if state.suspended:
        return RejectReason.SUSPENDED
    if not contract.listed:
        return RejectReason.DELISTED
    prices_a_market_order = amend.price_ticks is not None and order.price_ticks is None
    if prices_a_market_order or (amend.stop_ticks is not None and order.stop_ticks is None):
        return RejectReason.INVALID_COMBINATION  # an amend makes no limit of a market order and no stop of a limit
    if (reason := _refuse_prices(contract, amend.price_ticks, amend.stop_ticks)) is not None:
        return reason
    size = order.size_lots if amend.size_lots is None else amend.size_lots
    if pair_size(order, size):
        return RejectReason.INVALID_COMBINATION
    if not order.filled_lots < size <= contract.instrument.size_lots_max or not _shows_enough(size, terms.display_lots):
        return RejectReason.INVALID_SIZE
    more = 0 if terms.reduce_only else size - order.size_lots
    price = order.price_ticks if amend.price_ticks is None else amend.price_ticks
    if order.waiting or order.held or (more <= 0 and price == order.price_ticks):
        price = None  # asked when it enters, or accepted already
    lots = size - order.filled_lots
    if not Solvency(state).affords(account, terms.symbol, terms.side, lots, price, more, order):
        return RejectReason.MARGIN
    return None
