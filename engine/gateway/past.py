"""HTTP routes of what is over: closed orders and fills of an account, newest first, page by page."""

from __future__ import annotations

from typing import Annotated

from litestar import get
from litestar.params import QueryParameter
from litestar.types import ControllerRouterHandler, Scope

from engine.core import units
from engine.core.commands import SIDE_NAMES
from engine.core.units import WHOLE_MAX
from engine.gateway.bodies import FillsView, FillView, PastOrdersView, PastOrderView
from engine.gateway.door import caller_of
from engine.gateway.history import Fill, History, Past, Place, Question
from engine.gateway.orders import AccountQuery, own
from engine.gateway.problems import Refused, problems
from engine.gateway.views import Views

LIMIT, LIMIT_MAX = 100, 1_000

SymbolFilter = Annotated[str | None, QueryParameter(name="symbol", max_length=64, description="of one contract only")]
OrderFilter = Annotated[
    int | None, QueryParameter(name="orderId", ge=1, le=WHOLE_MAX, description="of one order, which may be open")
]
ClientFilter = Annotated[
    str | None,
    QueryParameter(name="clOrdID", max_length=64, description="of one order by its own id, which may be open"),
]
FromQuery = Annotated[str | None, QueryParameter(name="from", max_length=40, description="ISO 8601 with its zone; included")]
ToQuery = Annotated[str | None, QueryParameter(name="to", max_length=40, description="ISO 8601 with its zone; included")]
LimitQuery = Annotated[int, QueryParameter(name="limit", ge=1, le=LIMIT_MAX, description="at most so many")]
CursorQuery = Annotated[
    str | None, QueryParameter(name="cursor", max_length=40, description="what the page before gave; older ones follow")
]


def routes(views: Views, history: History) -> list[ControllerRouterHandler]:
    """Return the handlers of closed orders and fills."""

    @get(
        "/Order/History",
        responses=problems(404),
        tags=["orders"],
        summary="Closed orders of an account, newest first; one by id, open too",
    )
    async def orders(
        account: AccountQuery, scope: Scope, symbol: SymbolFilter = None, order_id: OrderFilter = None,
        cl_ord_id: ClientFilter = None, start: FromQuery = None, end: ToQuery = None, limit: LimitQuery = LIMIT,
        cursor: CursorQuery = None,
    ) -> PastOrdersView:  # fmt: skip
        own(caller_of(scope), account)
        question = _question(account, symbol, order_id, cl_ord_id, start, end, cursor)
        found = await history.orders(question, limit)
        shown = [_order(views, past) for past in found]
        return PastOrdersView(shown, _cursor([past.place for past in found], limit), history.since_index)

    @get("/Fill", responses=problems(404), tags=["orders"], summary="What an account traded, newest first")
    async def fills(
        account: AccountQuery, scope: Scope, symbol: SymbolFilter = None, order_id: OrderFilter = None,
        cl_ord_id: ClientFilter = None, start: FromQuery = None, end: ToQuery = None, limit: LimitQuery = LIMIT,
        cursor: CursorQuery = None,
    ) -> FillsView:  # fmt: skip
        own(caller_of(scope), account)
        question = _question(account, symbol, order_id, cl_ord_id, start, end, cursor)
        found = await history.fills(question, limit)
        shown = [_fill(views, fill) for fill in found]
        return FillsView(shown, _cursor([fill.place for fill in found], limit), history.since_index)

    return [orders, fills]


def _question(
    account: int, symbol: str | None, order_id: int | None, cl_ord_id: str | None, start: str | None, end: str | None,
    cursor: str | None,
) -> Question:  # fmt: skip
    try:
        from_ns, to_ns = (None if text is None else units.time_ns(text) for text in (start, end))
        before = None if cursor is None else _place(cursor)
    except ValueError as error:
        raise Refused(400, "BadRequest", str(error)) from None
    return Question(account, symbol or None, order_id, cl_ord_id or None, from_ns, to_ns, before)


def _place(cursor: str) -> Place:
    index, dot, number = cursor.partition(".")
    if not dot or not index.isdecimal() or not number.isdecimal():
        raise ValueError(f"cursor {cursor[:40]!r} is none that a page gave")
    return int(index), int(number)


def _cursor(places: list[Place], limit: int) -> str | None:
    """Return where the next page goes on, None when this one is the last."""
    return f"{places[-1][0]}.{places[-1][1]}" if len(places) == limit else None


def _order(views: Views, past: Past) -> PastOrderView:
    order = past.order
    cost = order.cost_units * views.contract(order.terms.symbol).instrument.lot_tick_units
    view = views.order(order, past.place[0], order.filled_lots, cost, past.reason)
    closed = units.iso(past.closed_ns) if past.closed_ns else None
    return PastOrderView(view, units.iso(past.accepted_ns), closed)


def _fill(views: Views, fill: Fill) -> FillView:
    terms, instrument = fill.order.terms, views.contract(fill.order.terms.symbol).instrument
    return FillView(
        message_index=fill.place[0], trd_match_id=str(fill.trade_id), order_id=str(fill.order.order_id),
        cl_ord_id=terms.cl_ord_id, account=terms.account, symbol=terms.symbol, side=SIDE_NAMES[terms.side],
        last_qty=fill.size_lots, last_px=units.price(instrument, fill.price_ticks),
        exec_cost=fill.size_lots * fill.price_ticks * instrument.lot_tick_units, exec_comm=fill.fee_units,
        last_liquidity_ind="RemovedLiquidity" if fill.is_taker else "AddedLiquidity", transact_time=units.iso(fill.time_ns),
    )  # fmt: skip
