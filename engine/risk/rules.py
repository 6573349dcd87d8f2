"""Shapes of the question to the risk service and its verdict, and the sample service's rules.

Everything the rules need travels with the question, so that a risk service keeps no state and any number of them may answer.
Numbers are the engine's: lots (contracts), ticks, units (10⁻⁶ of the settlement currency), parts per million.
"""

from __future__ import annotations

from typing import Final

import msgspec

from engine.core.commands import BUY, SELL, SIDE_NAMES, AmendOrder, Command, PlaceOrder
from engine.core.state import Order, State
from engine.core.units import PPM

URL_SETTING: Final = "ENGINE_ORDERS_URL"  # names the broker that orders and risk share
REQUESTS: Final = "risk-requests"
RESPONSES: Final = "risk-responses"
WAITING_MAX = 10_000  # questions, and answers that nobody fetches: the oldest go
QUEUE_ARGUMENTS: dict[str, int | str] = {"x-queue-type": "classic", "x-max-length": WAITING_MAX, "x-overflow": "drop-head"}

TIMEOUT: Final = "risk_check_timeout"
UNAVAILABLE: Final = "risk_unavailable"

Way = tuple[int, str, int]  # account, symbol, side
Ways = dict[Way, int]  # lots of orders that are checked and not yet in the state


class Verdict(msgspec.Struct, frozen=True, forbid_unknown_fields=False):
    """The answer. `reason` is empty when approved."""

    approved: bool
    reason: str = ""
    request_id: str = ""


class RiskOrder(msgspec.Struct, frozen=True, rename="camel"):
    """What is asked for: `lots` more than before (0 for an amend to less), at a price or, None, at the market's."""

    account: int
    symbol: str
    side: str
    lots: int
    price_ticks: int | None
    cl_ord_id: str = msgspec.field(name="clOrdID")


class Exposure(msgspec.Struct, frozen=True, rename="camel"):
    """What an account holds of the order's contract, signed, and has open there, orders on their way to the engine included.

    Of all its contracts: `equity_units`, and `gross_units`, the sum of |position| at the marks.
    """

    position_lots: int
    buy_lots: int
    sell_lots: int
    mark_ticks: int
    lot_tick_units: int
    equity_units: int
    gross_units: int


class RiskRequest(msgspec.Struct, frozen=True):
    """The question. `reply_to` is where the answer is awaited, also in the AMQP properties."""

    request_id: str
    order: RiskOrder
    account: Exposure
    reply_to: str


class Limits(msgspec.Struct, frozen=True):
    """The sample service's limits, for every account alike; 0 = none."""

    position_lots_max: int = 0
    notional_units_max: int = 0
    band_ppm: int = 0


def question(state: State, command: Command, ways: Ways | None = None) -> tuple[RiskOrder, Exposure] | None:
    """Return what the service is asked about a command. Cost: O(the account's positions).

    None: there is nothing to ask. It takes no risk (cancels, amends to less), or account, contract or order are not there and
    the engine will refuse it.
    """
    order: RiskOrder | None = None
    if isinstance(command, PlaceOrder):
        order = _of_place(command)
    elif isinstance(command, AmendOrder):
        known = state.ledger.accounts.get(command.account)
        amended = state.orders.get(known.client_ids.get(command.cl_ord_id, -1)) if known else None
        order = _of_amend(command, amended) if amended else None
    view = exposure_of(state, order.account, order.symbol, ways) if order else None
    return (order, view) if order and view else None


def _of_place(command: PlaceOrder) -> RiskOrder:
    lots = 0 if command.reduce_only else command.size_lots
    name = SIDE_NAMES[command.side] if command.side in (BUY, SELL) else ""
    return RiskOrder(command.account, command.symbol, name, lots, command.price_ticks, command.cl_ord_id)


def _of_amend(command: AmendOrder, order: Order) -> RiskOrder | None:
    terms = order.terms
    more = 0 if command.size_lots is None or terms.reduce_only else max(0, command.size_lots - order.size_lots)
    ticks = order.price_ticks if command.price_ticks is None else command.price_ticks
    if not more and ticks == order.price_ticks:
        return None
    return RiskOrder(terms.account, terms.symbol, SIDE_NAMES[terms.side], more, ticks, terms.cl_ord_id)


def exposure_of(state: State, account: int, symbol: str, ways: Ways | None = None) -> Exposure | None:
    """Return what the rules look at, None for an account or a contract that is not there."""
    known, contract = state.ledger.accounts.get(account), state.ledger.contracts.get(symbol)
    if known is None or contract is None:
        return None
    buys, sells = known.open_lots.get(symbol) or (0, 0)
    coming = ways or {}
    return Exposure(
        position_lots=state.ledger.lots(account, symbol),
        buy_lots=buys + coming.get((account, symbol, BUY), 0),
        sell_lots=sells + coming.get((account, symbol, SELL), 0),
        mark_ticks=contract.mark_ticks,
        lot_tick_units=contract.instrument.lot_tick_units,
        equity_units=state.ledger.equity_units(known),
        gross_units=sum(abs(state.ledger.contracts[s].value_units(p.lots)) for s, p in known.positions.items()),
    )


def assess(order: RiskOrder, account: Exposure, limits: Limits) -> str:
    """Return why an order is too much, empty when it is not.

    Position and notional count everything open on the order's side as filled; the other side does not help, it may never be.
    What brings a position down is never refused for its size, also not where it is beyond a limit.
    """
    price_ticks = account.mark_ticks if order.price_ticks is None else order.price_ticks
    if limits.band_ppm and abs(price_ticks - account.mark_ticks) * PPM > account.mark_ticks * limits.band_ppm:
        return "price_band"
    buys = order.side == SIDE_NAMES[BUY]
    coming = (account.buy_lots if buys else -account.sell_lots) + (order.lots if buys else -order.lots)
    lots_after = abs(account.position_lots + coming)
    lots_more = lots_after - abs(account.position_lots)
    if not order.lots or lots_more <= 0:
        return ""
    if limits.position_lots_max and lots_after > limits.position_lots_max:
        return "position_limit"
    value_more = lots_more * max(account.mark_ticks, price_ticks) * account.lot_tick_units
    if limits.notional_units_max and account.gross_units + value_more > limits.notional_units_max:
        return "notional_limit"
    return ""
