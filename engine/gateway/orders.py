"""HTTP routes of orders: each answer shows the order right after its own command.

The state may be ahead of a command when its answer is written: other commands of the same group came after it. What they did
to the order is taken back from the events of that group, so that `messageIndex` and quantities belong together.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Annotated, Any, TypeVar

from litestar import delete, get, post, put
from litestar.openapi.spec import Example
from litestar.params import Body, QueryParameter
from litestar.types import ControllerRouterHandler

from engine.core import events as ev
from engine.core import units
from engine.core.admission import CLIENT_ID_LENGTH_MAX
from engine.core.commands import (
    AmendOrder,
    CancelAll,
    CancelAllAfter,
    CancelOrder,
    Command,
    KillSwitch,
    PlaceOrder,
    Tick,
)
from engine.core.events import CancelReason, Event, RejectReason
from engine.core.state import Order, State
from engine.core.units import WHOLE_MAX, Misaligned
from engine.gateway.bodies import CanceledView, KillSwitchView, OrderView, TimerView
from engine.gateway.idempotency import answer_again, asked, refused_of
from engine.gateway.order_bodies import SYMBOL_LENGTH_MAX, AmendBody, PlaceBody, amend_of, place_of
from engine.gateway.problems import Answered, Refused, StrictBody, problems, rejected
from engine.gateway.views import Views
from engine.journal.sequencer import Asked, KeyReused, KeysFull, Outcome, Sequencer
from engine.risk.checker import RiskChecker
from engine.risk.rules import Verdict

AccountQuery = Annotated[
    int, QueryParameter(name="account", ge=-1, le=WHOLE_MAX, description="account number", examples=[Example(value=1)])
]
ClientIdQuery = Annotated[
    str, QueryParameter(name="clOrdID", min_length=1, max_length=CLIENT_ID_LENGTH_MAX, description="the account's own id")
]
SymbolQuery = Annotated[
    str, QueryParameter(name="symbol", min_length=1, max_length=SYMBOL_LENGTH_MAX, examples=[Example(value="BTC-PERP")])
]
SymbolOrAll = Annotated[
    str | None, QueryParameter(name="symbol", max_length=SYMBOL_LENGTH_MAX, description="all contracts without it")
]
TimeoutQuery = Annotated[int, QueryParameter(name="timeoutMillis", ge=0, le=86_400_000, description="0 = never")]
OnQuery = Annotated[bool, QueryParameter(name="on", description="true refuses and cancels, false allows again")]

PLACE = {
    "account": 1, "symbol": "BTC-PERP", "clOrdID": "a-1", "side": "Buy", "orderQty": 10, "price": 100.5,
}  # fmt: skip
AMEND = {"account": 1, "clOrdID": "a-1", "orderQty": 8, "price": 101}
PlaceData = Annotated[PlaceBody, Body(examples=[Example(value=PLACE)])]
AmendData = Annotated[AmendBody, Body(examples=[Example(value=AMEND)])]


T = TypeVar("T")


class PlaceDTO(StrictBody[PlaceBody]):
    """The body of a new order."""


class AmendDTO(StrictBody[AmendBody]):
    """The body of an amend."""


class OrderDesk:
    """Submits order commands and tells what became of them."""

    def __init__(self, sequencer: Sequencer, views: Views, risk: RiskChecker | None = None) -> None:
        self._sequencer = sequencer
        self._views = views
        self._risk = risk

    @property
    def state(self) -> State:
        return self._sequencer.state

    async def place(self, body: PlaceBody) -> OrderView:
        """Enter an order.  Raises: Refused."""
        contract = self.state.ledger.contracts.get(body.symbol)
        try:
            command = place_of(body, contract.instrument if contract else None)
        except Misaligned as error:
            raise Refused(422, RejectReason.INVALID_PRICE.value, str(error)) from None
        except ValueError as error:
            raise Refused(400, "BadRequest", str(error)) from None

        def view(outcome: Outcome) -> OrderView:
            for event in outcome.events:
                if isinstance(event, ev.OrderRejected):
                    raise rejected(event.reason, self._first_id(command, event.reason))
            order = Order(outcome.index, command, command.size_lots, command.price_ticks, command.stop_ticks, 0)
            return self._view(order, outcome.index, outcome.events)

        return await self._ask(command, view, asked("place", body.account, body, view, 201))

    async def amend(self, body: AmendBody) -> OrderView:
        """Change an open order.  Raises: Refused."""
        order = await self._find_to("amend", body.account, body.cl_ord_id, body)
        try:
            command = amend_of(body, self.state.ledger.contracts[order.terms.symbol].instrument)
        except Misaligned as error:
            raise Refused(422, RejectReason.INVALID_PRICE.value, str(error)) from None
        except ValueError as error:
            raise Refused(400, "BadRequest", str(error)) from None
        return await self._changed("amend", order, command, body)

    async def cancel(self, account: int, cl_ord_id: str) -> OrderView:
        """Cancel an open order.  Raises: Refused."""
        command = CancelOrder(account, cl_ord_id)
        order = await self._find_to("cancel", account, cl_ord_id, command)
        return await self._changed("cancel", order, command, command)

    async def order(self, account: int, cl_ord_id: str) -> OrderView:
        """Return an open order as it is.  Raises: Refused."""
        return self._views.open_order(await self._find(account, cl_ord_id))

    async def _find(self, account: int, cl_ord_id: str) -> Order:
        """Return an open order; one that is just being placed by somebody else is waited for.  Raises: Refused."""
        if (order := self._known(account, cl_ord_id)) is None:
            await self._sequencer.submit(Tick())  # decided after everything that was submitted before; it leaves no record
            order = self._known(account, cl_ord_id)
        if order is None:
            holder = self.state.ledger.accounts.get(account)
            closed = holder.client_ids.get(cl_ord_id) if holder else None
            raise rejected(RejectReason.UNKNOWN_ORDER, "" if closed is None else str(closed))
        return order

    async def _find_to(self, kind: str, account: int, cl_ord_id: str, what: Any) -> Order:
        """Return the order of a request, or answer a retry: the first may have closed it.  Raises: Refused, Answered."""
        one = asked(kind, account, what, _nothing, 200)
        answer_again(self.state, one)
        try:
            return await self._find(account, cl_ord_id)
        except Refused:
            answer_again(self.state, one)
            raise

    def _known(self, account: int, cl_ord_id: str) -> Order | None:
        holder = self.state.ledger.accounts.get(account)
        return self.state.orders.get(holder.client_ids.get(cl_ord_id, -1)) if holder else None

    def _first_id(self, command: PlaceOrder, reason: RejectReason) -> str:
        if reason is not RejectReason.DUPLICATE_CL_ORD_ID:
            return ""
        return str(self.state.ledger.accounts[command.account].client_ids.get(command.cl_ord_id, ""))

    async def _ask(self, command: Command, view: Callable[[Outcome], T], one: Asked | None) -> T:
        """Submit an order command and show its outcome.  Raises: Refused; Answered when it has a key."""
        answer_again(self.state, one)
        try:
            outcome = await self._submit(command, one)
        except (KeyReused, KeysFull) as error:
            raise refused_of(error) from None
        if outcome.answer is not None:
            raise Answered(*outcome.answer)
        return view(outcome)

    async def _submit(self, command: Command, one: Asked | None) -> Outcome:
        """Send a command, after the risk service approved it where there is one.  Raises: Refused."""
        if self._risk is None:
            return await self._sequencer.submit(command, one)
        done = await self._risk.submit(command, self.state, partial(self._sequencer.submit, asked=one))
        if isinstance(done, Verdict):
            raise Refused(422, "RiskRejected", f"{done.reason} (request {done.request_id})")
        return done

    async def _changed(self, kind: str, order: Order, command: AmendOrder | CancelOrder, what: Any) -> OrderView:
        view = partial(self._changed_view, order)
        return await self._ask(command, view, asked(kind, command.account, what, view, 200))

    def _changed_view(self, order: Order, outcome: Outcome) -> OrderView:
        before = Order(order.order_id, order.terms, order.size_lots, order.price_ticks, order.stop_ticks, 0)
        before.filled_lots, before.cost_units = order.filled_lots, order.cost_units
        for events in (outcome.events, *outcome.later()):
            for event in events:
                if isinstance(event, ev.Traded) and order.order_id in (event.taker_id, event.maker_id):
                    before.filled_lots -= event.size_lots
                    before.cost_units -= event.size_lots * event.price_ticks * self._units_of(order)
        for event in outcome.events:
            if isinstance(event, ev.CancelRejected):
                raise rejected(event.reason)
        return self._view(before, outcome.index, outcome.events)

    def _units_of(self, order: Order) -> int:
        return self.state.ledger.contracts[order.terms.symbol].instrument.lot_tick_units

    def _view(self, order: Order, index: int, events: Sequence[Event]) -> OrderView:
        """Return an order after a command that found it as `order`."""
        filled, cost, reason = order.filled_lots, order.cost_units, None
        for event in events:
            if isinstance(event, ev.Traded) and order.order_id in (event.taker_id, event.maker_id):
                filled += event.size_lots
                cost += event.size_lots * event.price_ticks * self._units_of(order)
            elif isinstance(event, ev.OrderCanceled) and event.order_id == order.order_id:
                reason = event.reason
            elif isinstance(event, ev.OrderAmended) and event.order_id == order.order_id:
                order.size_lots, order.price_ticks, order.stop_ticks = event.size_lots, event.price_ticks, event.stop_ticks
            elif isinstance(event, ev.OrderTriggered) and event.order_id == order.order_id:
                order.stop_ticks = None
        return self._views.order(order, index, filled, cost, reason)

    async def carry_out(self, command: Command, view: Callable[[Outcome], T], what: Any = None) -> T:
        """Submit a command that is no order; `view` shows its outcome, right after it. `what` was asked, if not the command.

        Raises: Refused when it is rejected; Answered when it has a key.
        """

        def checked(outcome: Outcome) -> T:
            for event in outcome.events:
                if isinstance(event, ev.CommandRejected):
                    raise rejected(event.reason)
            return view(outcome)

        one = asked(type(command).__name__, getattr(command, "account", None), what or command, checked, 200)
        try:
            outcome = await self._sequencer.submit(command, one)
        except (KeyReused, KeysFull) as error:
            raise refused_of(error) from None
        if outcome.answer is not None:
            raise Answered(*outcome.answer)
        return checked(outcome)


def _nothing(_: Outcome) -> None:
    """Show nothing."""


def canceled(events: Iterable[Event], reason: CancelReason) -> list[str]:
    """Return the ids of the orders that a command cancelled for a reason."""
    return [str(event.order_id) for event in events if isinstance(event, ev.OrderCanceled) and event.reason is reason]


def routes(desk: OrderDesk) -> list[ControllerRouterHandler]:
    """Return the handlers of everything that concerns orders."""

    @post(
        "/Order", dto=PlaceDTO, return_dto=None, responses=problems(404, 409, 413, 422), tags=["orders"], summary="Place an order"
    )
    async def place(data: PlaceData) -> OrderView:
        return await desk.place(data)

    @put(
        "/Order",
        dto=AmendDTO,
        return_dto=None,
        responses=problems(404, 413, 422),
        tags=["orders"],
        summary="Change an open order",
    )
    async def amend(data: AmendData) -> OrderView:
        return await desk.amend(data)

    @delete("/Order", status_code=200, responses=problems(404), tags=["orders"], summary="Cancel an open order")
    async def cancel(account: AccountQuery, cl_ord_id: ClientIdQuery) -> OrderView:
        return await desk.cancel(account, cl_ord_id)

    @get("/Order", responses=problems(404), tags=["orders"], summary="An open order as it is")
    async def order(account: AccountQuery, cl_ord_id: ClientIdQuery) -> OrderView:
        return await desk.order(account, cl_ord_id)

    return [place, amend, cancel, order, *_bulk_routes(desk)]


def _bulk_routes(desk: OrderDesk) -> list[ControllerRouterHandler]:
    @delete("/Order/All", status_code=200, responses=problems(404), tags=["orders"], summary="Cancel an account's open orders")
    async def cancel_all(account: AccountQuery, symbol: SymbolOrAll = None) -> CanceledView:
        return await desk.carry_out(
            CancelAll(account, symbol or None),
            lambda outcome: CanceledView(outcome.index, canceled(outcome.events, CancelReason.REQUESTED)),
        )

    @put(
        "/Order/CancelAllAfter", responses=problems(404, 422), tags=["orders"], summary="Cancel all unless heard of again in time"
    )
    async def cancel_all_after(account: AccountQuery, timeout_millis: TimeoutQuery) -> TimerView:
        def view(outcome: Outcome) -> TimerView:
            deadline = next(event.deadline_ns for event in reversed(outcome.events) if isinstance(event, ev.TimerSet))
            return TimerView(outcome.index, account, units.iso(deadline) if deadline else None)

        return await desk.carry_out(CancelAllAfter(account, timeout_millis * 1_000_000), view)

    @put("/KillSwitch", responses=problems(404), tags=["orders"], summary="Stop an account's trading, or let it go on")
    async def kill_switch(account: AccountQuery, on: OnQuery) -> KillSwitchView:
        return await desk.carry_out(
            KillSwitch(account, on),
            lambda outcome: KillSwitchView(outcome.index, account, on, canceled(outcome.events, CancelReason.KILLED)),
        )

    return [cancel_all, cancel_all_after, kill_switch]
