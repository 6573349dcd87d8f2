"""HTTP routes of orders: each answer shows the order right after its own command.

The state may be ahead of a command when its answer is written: other commands of the same group came after it. What they did
to the order is taken back from the events of that group, so that `messageIndex` and quantities belong together.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Annotated, Any, TypeVar

from litestar import delete, get, post, put
from litestar.openapi.spec import Example
from litestar.params import Body, QueryParameter
from litestar.types import ControllerRouterHandler, Scope

from engine.access.keys import Caller
from engine.core import events as ev
from engine.core import units
from engine.core.admission import CLIENT_ID_LENGTH_MAX
from engine.core.commands import (
    AmendOrder,
    CancelAll,
    CancelAllAfter,
    CancelOrder,
    Command,
    Deposit,
    KillSwitch,
    PlaceOrder,
    Tick,
    Withdraw,
)
from engine.core.events import CancelReason, Event, RejectReason
from engine.core.linked import canceled
from engine.core.state import Order, State
from engine.core.units import WHOLE_MAX, Misaligned
from engine.gateway.bodies import CanceledView, KillSwitchView, OrderView, TimerView
from engine.gateway.door import caller_of
from engine.gateway.idempotency import answer_again, asked, refused_of
from engine.gateway.order_bodies import SYMBOL_LENGTH_MAX, AmendBody, PlaceBody, amend_of, place_of
from engine.gateway.problems import Answered, Refused, StrictBody, foreign_account, problems, rejected
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

OF_ACCOUNTS = CancelAll, CancelAllAfter, KillSwitch, Deposit, Withdraw

PLACE = {
    "account": 1, "symbol": "BTC-PERP", "clOrdID": "a-1", "side": "Buy", "orderQty": 10, "price": 100.5,
}  # fmt: skip
BRACKET = {
    "account": 1, "symbol": "BTC-PERP", "clOrdID": "b-1", "side": "Buy", "orderQty": 10, "price": 100.5,
    "takeProfit": {"clOrdID": "b-1-profit", "price": 104}, "stopLoss": {"clOrdID": "b-1-loss", "stopPx": 98.5, "trailRate": 0.02},
}  # fmt: skip
PAIR = {
    "account": 1, "symbol": "BTC-PERP", "clOrdID": "c-1", "side": "Sell", "orderQty": 10, "price": 104,
    "oco": {"clOrdID": "c-2", "stopPx": 98.5},
}  # fmt: skip
AMEND = {"account": 1, "clOrdID": "a-1", "orderQty": 8, "price": 101}
EXAMPLES = [
    Example("A limit order", value=PLACE), Example("A bracket whose stop trails", value=BRACKET),
    Example("One cancels the other", value=PAIR),
]  # fmt: skip
PlaceData = Annotated[PlaceBody, Body(examples=EXAMPLES)]
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

    @property
    def has_risk(self) -> bool:
        """Whether orders are asked about before they go to the engine: then they are placed one at a time."""
        return self._risk is not None

    async def place(self, caller: Caller, body: PlaceBody) -> OrderView:
        """Enter an order.  Raises: Refused."""
        command = self.placing(caller, body)
        view = partial(self.placed, command)
        return await self._ask(caller, command, view, asked("place", body.account, body, view, 201))

    def placing(self, caller: Caller, body: PlaceBody) -> PlaceOrder:
        """Return the command of a new order.  Raises: Refused."""
        own(caller, body.account)
        contract = self.state.ledger.contracts.get(body.symbol)
        try:
            return place_of(body, contract.instrument if contract else None)
        except Misaligned as error:
            raise Refused(422, RejectReason.INVALID_PRICE.value, str(error)) from None
        except ValueError as error:
            raise Refused(400, "BadRequest", str(error)) from None

    def placed(self, command: PlaceOrder, outcome: Outcome) -> OrderView:
        """Return an order right after the command that made it.  Raises: Refused."""
        for event in outcome.events:
            if isinstance(event, ev.OrderRejected):
                raise rejected(event.reason, self._first_id(command, event.reason))
        order = Order(outcome.index, command, command.size_lots, command.price_ticks, command.stop_ticks, 0)
        accepted = next(e for e in outcome.events if isinstance(e, ev.OrderAccepted) and e.order_id == outcome.index)
        order.link = accepted.link
        return self._view(order, outcome.index, outcome.events)

    async def amend(self, caller: Caller, body: AmendBody) -> OrderView:
        """Change an open order.  Raises: Refused."""
        own(caller, body.account)
        order = await self._find_to("amend", body.account, body.cl_ord_id, body)
        return await self._change("amend", caller, order, self.amending(order, body), body)

    def amending(self, order: Order, body: AmendBody) -> AmendOrder:
        """Return the command that changes an order.  Raises: Refused."""
        try:
            return amend_of(body, self.state.ledger.contracts[order.terms.symbol].instrument)
        except Misaligned as error:
            raise Refused(422, RejectReason.INVALID_PRICE.value, str(error)) from None
        except ValueError as error:
            raise Refused(400, "BadRequest", str(error)) from None

    async def cancel(self, caller: Caller, account: int, cl_ord_id: str) -> OrderView:
        """Cancel an open order.  Raises: Refused."""
        own(caller, account)
        command = CancelOrder(account, cl_ord_id)
        order = await self._find_to("cancel", account, cl_ord_id, command)
        return await self._change("cancel", caller, order, command, command)

    async def _change(self, kind: str, caller: Caller, order: Order, command: AmendOrder | CancelOrder, what: Any) -> OrderView:
        view = partial(self._changed_view, order)
        return await self._ask(caller, command, view, asked(kind, command.account, what, view, 200))

    async def order(self, caller: Caller, account: int, cl_ord_id: str) -> OrderView:
        """Return an open order as it is.  Raises: Refused."""
        return self._views.open_order(await self.find(caller, account, cl_ord_id))

    async def find(self, caller: Caller, account: int, cl_ord_id: str) -> Order:
        """Return a caller's open order, without waiting when it is known.  Raises: Refused."""
        own(caller, account)
        return await self._find(account, cl_ord_id)

    def send(self, caller: Caller, command: Command) -> asyncio.Future[Outcome]:
        """Submit a command that no risk service is asked about.  Raises: EngineBusy, EngineUnavailable."""
        return self._sequencer.submit(command, caller.sender)

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
        return self.state.find(account, cl_ord_id)

    def _first_id(self, command: PlaceOrder, reason: RejectReason) -> str:
        if reason is not RejectReason.DUPLICATE_CL_ORD_ID:
            return ""
        return str(self.state.ledger.accounts[command.account].client_ids.get(command.cl_ord_id, ""))

    async def _ask(self, caller: Caller, command: Command, view: Callable[[Outcome], T], one: Asked | None) -> T:
        """Submit an order command and show its outcome.  Raises: Refused; Answered when it has an idempotency key."""
        answer_again(self.state, one)
        try:
            outcome = await self._submit(caller, command, one)
        except (KeyReused, KeysFull) as error:
            raise refused_of(error) from None
        if outcome.answer is not None:
            raise Answered(*outcome.answer)
        return view(outcome)

    async def _submit(self, caller: Caller, command: Command, one: Asked | None = None) -> Outcome:
        """Send a command, after the risk service approved it where there is one.  Raises: Refused."""
        if self._risk is None:
            return await self._sequencer.submit(command, caller.sender, one)
        send = partial(self._sequencer.submit, sender=caller.sender, asked=one)
        done = await self._risk.submit(command, self.state, send)
        if isinstance(done, Verdict):
            raise Refused(422, "RiskRejected", f"{done.reason} (request {done.request_id})")
        return done

    async def changed(self, order: Order, sent: Awaitable[Outcome]) -> OrderView:
        """Return an order after the amend or cancel that was sent, without what came after it.  Raises: Refused."""
        return self._changed_view(order, await sent)

    def _changed_view(self, order: Order, outcome: Outcome) -> OrderView:
        before = Order(order.order_id, order.terms, order.size_lots, order.price_ticks, order.stop_ticks, 0)
        before.filled_lots, before.cost_units, before.link = order.filled_lots, order.cost_units, order.link
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
            elif isinstance(event, ev.StopsTrailed):
                order.stop_ticks = dict(event.moves).get(order.order_id, order.stop_ticks)
        return self._views.order(order, index, filled, cost, reason)

    async def answer(self, caller: Caller, command: Command, view: Callable[[Outcome], T], what: Any = None) -> T:
        """Submit a command that is no order; `view` shows its outcome, right after it. `what` was asked, if not the command.

        Raises: Refused as `carry_out`; Answered when the request has an idempotency key.
        """
        if isinstance(command, OF_ACCOUNTS):
            own(caller, command.account)

        def checked(outcome: Outcome) -> T:
            for event in outcome.events:
                if isinstance(event, ev.CommandRejected):
                    raise rejected(event.reason)
            return view(outcome)

        one = asked(type(command).__name__, getattr(command, "account", None), what or command, checked, 200)
        try:
            outcome = await self._sequencer.submit(command, caller.sender, one)
        except (KeyReused, KeysFull) as error:
            raise refused_of(error) from None
        if outcome.answer is not None:
            raise Answered(*outcome.answer)
        return checked(outcome)

    async def carry_out(self, caller: Caller, command: Command) -> Outcome:
        """Submit a command that is no order.  Raises: Refused when it is rejected, or moves what is not the caller's."""
        if isinstance(command, OF_ACCOUNTS):
            own(caller, command.account)
        outcome = await self._sequencer.submit(command, caller.sender)
        for event in outcome.events:
            if isinstance(event, ev.CommandRejected):
                raise rejected(event.reason)
        return outcome


def _nothing(_: Outcome) -> None:
    """Show nothing."""


def own(caller: Caller, account: int) -> None:
    """Raises: Refused when an account is not the caller's."""
    if not caller.may_use(account):
        raise foreign_account(account)


def routes(desk: OrderDesk) -> list[ControllerRouterHandler]:
    """Return the handlers of everything that concerns orders."""

    @post(
        "/Order", dto=PlaceDTO, return_dto=None, responses=problems(404, 409, 413, 422), tags=["orders"], summary="Place an order"
    )
    async def place(data: PlaceData, scope: Scope) -> OrderView:
        return await desk.place(caller_of(scope), data)

    @put(
        "/Order",
        dto=AmendDTO,
        return_dto=None,
        responses=problems(404, 413, 422),
        tags=["orders"],
        summary="Change an open order",
    )
    async def amend(data: AmendData, scope: Scope) -> OrderView:
        return await desk.amend(caller_of(scope), data)

    @delete("/Order", status_code=200, responses=problems(404), tags=["orders"], summary="Cancel an open order")
    async def cancel(account: AccountQuery, cl_ord_id: ClientIdQuery, scope: Scope) -> OrderView:
        return await desk.cancel(caller_of(scope), account, cl_ord_id)

    @get("/Order", responses=problems(404), tags=["orders"], summary="An open order as it is")
    async def order(account: AccountQuery, cl_ord_id: ClientIdQuery, scope: Scope) -> OrderView:
        return await desk.order(caller_of(scope), account, cl_ord_id)

    return [place, amend, cancel, order, *_bulk_routes(desk)]


def _bulk_routes(desk: OrderDesk) -> list[ControllerRouterHandler]:
    @delete("/Order/All", status_code=200, responses=problems(404), tags=["orders"], summary="Cancel an account's open orders")
    async def cancel_all(account: AccountQuery, scope: Scope, symbol: SymbolOrAll = None) -> CanceledView:
        return await desk.answer(
            caller_of(scope), CancelAll(account, symbol or None),
            lambda outcome: CanceledView(outcome.index, canceled(outcome.events, CancelReason.REQUESTED)),
        )  # fmt: skip

    @put(
        "/Order/CancelAllAfter", responses=problems(404, 422), tags=["orders"], summary="Cancel all unless heard of again in time"
    )
    async def cancel_all_after(account: AccountQuery, timeout_millis: TimeoutQuery, scope: Scope) -> TimerView:
        def view(outcome: Outcome) -> TimerView:
            deadline = next(event.deadline_ns for event in reversed(outcome.events) if isinstance(event, ev.TimerSet))
            return TimerView(outcome.index, account, units.iso(deadline) if deadline else None)

        return await desk.answer(caller_of(scope), CancelAllAfter(account, timeout_millis * 1_000_000), view)

    @put("/KillSwitch", responses=problems(404), tags=["orders"], summary="Stop an account's trading, or let it go on")
    async def kill_switch(account: AccountQuery, on: OnQuery, scope: Scope) -> KillSwitchView:
        caller = caller_of(scope)
        own(caller, account)
        if not on and not caller.is_operator:
            raise Refused(403, "Forbidden", "Only an operator switches a kill switch off: it may have been an operator's.")
        return await desk.answer(
            caller, KillSwitch(account, on),
            lambda outcome: KillSwitchView(outcome.index, account, on, canceled(outcome.events, CancelReason.KILLED)),
        )  # fmt: skip

    return [cancel_all, cancel_all_after, kill_switch]
