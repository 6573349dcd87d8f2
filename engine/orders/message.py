"""Reads a message of the order queue as a command, or says why it is none, and writes the answer to its sender.

Body: one JSON object, `type` place | amend | cancel | cancelAll, else the fields of the HTTP bodies, and `expiresAt` (ISO time
or ms): not executed after that. Everything here is a function of bytes, headers, state and time.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Literal

import msgspec

from engine.core import events as ev
from engine.core.commands import SIDE_NAMES, AmendOrder, CancelAll, CancelOrder, Command, Instrument, PlaceOrder
from engine.core.events import CancelReason, Event, RejectReason
from engine.core.linked import canceled
from engine.core.state import Order, State
from engine.core.units import price, time_ns
from engine.gateway.order_bodies import AccountNumber, AmendBody, Body, ClientId, PlaceBody, Symbol, Whole, amend_of, place_of

BODY_BYTES_MAX = 16 * 1024
DETAIL_LENGTH_MAX = 500
ATTEMPTS_MAX = 3
KEY = "x-api-key"  # the header in which a message shows its key; it goes no further than the engine
ATTEMPTS, REASON, DETAIL, AT = "x-attempts", "x-reason", "x-detail", "x-at"

Reason = Literal["Unauthorized", "ForeignAccount", "Malformed", "Expired", "Poisoned", "RiskRejected", "Overflow", "Rejected"]
REASON_OF_DEATH: dict[str, Reason] = {"expired": "Expired", "maxlen": "Overflow", "rejected": "Rejected"}  # RabbitMQ's x-death


class PlaceMessage(PlaceBody, frozen=True, kw_only=True, tag_field="type", tag="place"):
    """Enter an order."""

    expires_at: str | Whole | None = None


class AmendMessage(AmendBody, frozen=True, kw_only=True, tag_field="type", tag="amend"):
    """Change an open order."""

    expires_at: str | Whole | None = None


class CancelMessage(Body, frozen=True, kw_only=True, tag_field="type", tag="cancel"):
    """Cancel one order."""

    account: AccountNumber
    cl_ord_id: ClientId
    expires_at: str | Whole | None = None


class CancelAllMessage(Body, frozen=True, kw_only=True, tag_field="type", tag="cancelAll"):
    """Cancel all orders of an account, or those of one symbol."""

    account: AccountNumber
    symbol: Symbol | None = None
    expires_at: str | Whole | None = None


OrderMessage = PlaceMessage | AmendMessage | CancelMessage | CancelAllMessage
_DECODER = msgspec.json.Decoder(OrderMessage)


class MessageRefused(Exception):
    """A message that will not become a command; `reason` and `detail` go to the dead letters."""

    def __init__(self, reason: Reason, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail[:DETAIL_LENGTH_MAX]


def read(body: bytes) -> tuple[OrderMessage, int]:
    """Return a message and when it expires in ns (0 = never).  Raises: MessageRefused("Malformed")."""
    if len(body) > BODY_BYTES_MAX:
        raise MessageRefused("Malformed", f"{len(body)} bytes are more than {BODY_BYTES_MAX}")
    try:
        message = _DECODER.decode(body)
        return message, 0 if message.expires_at is None else time_ns(message.expires_at)
    except (ValueError, RecursionError) as error:  # of JSON, UTF-8, fields and times
        raise MessageRefused("Malformed", str(error)) from None


def expires_ns(own_ns: int, sent: datetime | None, time_to_live_ms: str | None) -> int:
    """Return the earlier of a message's own end and that of its AMQP time to live, in ns (0 = never).

    The broker drops what is too old while it is in the queue, from `sent` on it is looked at here, too; that has whole
    seconds, so that one more is granted.
    """
    if sent is None or time_to_live_ms is None or not time_to_live_ms.isdecimal() or sent.tzinfo is None:
        return own_ns
    ends_ns = (int(sent.timestamp()) + 1) * 10**9 + int(time_to_live_ms[:15]) * 10**6
    return min(own_ns, ends_ns) if own_ns else ends_ns


def attempts(headers: Mapping[str, Any] | None) -> int:
    """Return how many attempts at a message have failed, as its header says; nonsense counts as none."""
    found = (headers or {}).get(ATTEMPTS, 0)
    return found if type(found) is int and found > 0 else 0


def death(headers: Mapping[str, Any] | None) -> tuple[Reason, str]:
    """Return the reason and the detail of a message that RabbitMQ itself has taken out of the order queue."""
    deaths = (headers or {}).get("x-death")
    latest = deaths[0] if isinstance(deaths, list) and deaths and isinstance(deaths[0], dict) else {}
    why = str(latest.get("reason", "expired"))
    ttl_ms = latest.get("original-expiration")
    after = f" after {ttl_ms} ms" if ttl_ms else ""
    return REASON_OF_DEATH.get(why, "Rejected"), f"the broker took it out of {latest.get('queue', 'the queue')}: {why}{after}"


# Commands


def waits_for_order(message: OrderMessage, state: State) -> bool:
    """Return whether a message can be converted only with an order that the state does not know (yet)."""
    if not isinstance(message, AmendMessage) or (message.price is None and message.stop_px is None):
        return False
    account = state.ledger.accounts.get(message.account)
    return account is None or message.cl_ord_id not in account.client_ids


def command_of(message: OrderMessage, state: State) -> Command:
    """Return the command of a message.  Raises: MessageRefused("Malformed") for prices between ticks and the like.

    Unknown accounts, symbols and orders are the engine's answers to give, so that they are in the journal.
    """
    try:
        match message:
            case PlaceMessage():
                return place_of(message, instrument_of(state, message.symbol))
            case AmendMessage():
                order = open_order(state, message.account, message.cl_ord_id)
                return amend_of(message, None if order is None else instrument_of(state, order.terms.symbol))
            case CancelMessage():
                return CancelOrder(message.account, message.cl_ord_id)
            case CancelAllMessage():
                return CancelAll(message.account, message.symbol)
    except ValueError as error:
        raise MessageRefused("Malformed", str(error)) from None


def instrument_of(state: State, symbol: str) -> Instrument | None:
    """Return a listed contract's instrument."""
    contract = state.ledger.contracts.get(symbol)
    return contract.instrument if contract else None


def open_order(state: State, account: int, cl_ord_id: str) -> Order | None:
    """Return an open order by its client id."""
    known = state.ledger.accounts.get(account)
    return state.orders.get(known.client_ids.get(cl_ord_id, -1)) if known else None


def done_before(command: Command, state: State) -> int | None:
    """Return the id of the order that a repeated command has made already, None when there is none.

    An open order must have the very terms; of a closed one only its client id is known, and that is never used twice.
    """
    if not isinstance(command, PlaceOrder):
        return None
    account = state.ledger.accounts.get(command.account)
    order_id = account.client_ids.get(command.cl_ord_id) if account else None
    order = state.orders.get(order_id) if order_id is not None else None
    return order_id if order is None or order.terms == command else None


# Answers

Answer = dict[str, Any]
MALFORMED, UNAUTHORIZED, FORBIDDEN, NOT_FOUND, CONFLICT, REJECTED = 400, 401, 403, 404, 409, 422  # as HTTP says it
TITLES = {
    MALFORMED: "Bad Request", UNAUTHORIZED: "Unauthorized", FORBIDDEN: "Forbidden", NOT_FOUND: "Not Found",
    CONFLICT: "Conflict", REJECTED: "Unprocessable Entity",
}  # fmt: skip
STATUS_OF_REFUSAL: dict[str, int] = {"Malformed": MALFORMED, "Unauthorized": UNAUTHORIZED, "ForeignAccount": FORBIDDEN}
STATUS_OF: dict[RejectReason, int] = {
    RejectReason.UNKNOWN_SYMBOL: NOT_FOUND,
    RejectReason.UNKNOWN_ACCOUNT: NOT_FOUND,
    RejectReason.UNKNOWN_ORDER: NOT_FOUND,
    RejectReason.DUPLICATE_CL_ORD_ID: CONFLICT,
}


def problem(status: int, code: str, detail: str, **more: Any) -> Answer:
    """Return an error in the shape of the HTTP gateway's (RFC 9457)."""
    return {
        "type": f"urn:tapeline:problem:{code}",
        "title": TITLES[status],
        "status": status,
        "code": code,
        "detail": detail,
        **more,
    }


def refusal_answer(reason: str, detail: str) -> Answer:
    """Return what the sender of a message is told that went to the dead letters."""
    return problem(STATUS_OF_REFUSAL.get(reason, REJECTED), reason, detail)


def repeated_answer(command: PlaceOrder, order_id: int, state: State) -> Answer:
    """Return what the sender of a message is told whose order was made before."""
    order = state.orders.get(order_id)
    answer = {"orderId": str(order_id), "clOrdID": command.cl_ord_id, "account": command.account, "repeated": True}
    return answer | (_open_answer(order, state) if order else {"ordStatus": None})  # closed: how is in the messages


def answer(command: Command, index: int, events: Sequence[Event], state: State) -> Answer:
    """Return what the sender is told of a command that the journal has; `state` is the present one."""
    for event in events:
        if isinstance(event, ev.OrderRejected | ev.CancelRejected):
            return _rejection(command, index, event.reason, state, clOrdID=event.cl_ord_id)
        if isinstance(event, ev.CommandRejected):
            return _rejection(command, index, event.reason, state)
    match command:
        case PlaceOrder():
            return {"messageIndex": index, **_placed(command, index, events, state)}
        case AmendOrder():
            return {"messageIndex": index, **_amended(command, events, state)}
        case CancelOrder():
            cancelled = next(e.order_id for e in events if isinstance(e, ev.OrderCanceled) and e.reason is CancelReason.REQUESTED)
            names = {"clOrdID": command.cl_ord_id, "account": command.account}
            return {"messageIndex": index, "orderId": str(cancelled), **names, "ordStatus": "Canceled"}
        case _:
            return {"messageIndex": index, "canceled": canceled(events, CancelReason.REQUESTED)}


def _rejection(command: Command, index: int, reason: RejectReason, state: State, **more: Any) -> Answer:
    if isinstance(command, PlaceOrder):
        more["ordStatus"] = "Rejected"
        account = state.ledger.accounts.get(command.account)
        if reason is RejectReason.DUPLICATE_CL_ORD_ID and account and command.cl_ord_id in account.client_ids:
            more["orderId"] = str(account.client_ids[command.cl_ord_id])
    status = STATUS_OF.get(reason, REJECTED)
    return problem(status, reason.value, f"{type(command).__name__} was refused: {reason.value}", messageIndex=index, **more)


def _placed(command: PlaceOrder, order_id: int, events: Sequence[Event], state: State) -> Answer:
    """Return an order as its own command left it: later ones may have changed it since."""
    instrument = state.ledger.contracts[command.symbol].instrument
    fills = [e for e in events if isinstance(e, ev.Traded) and order_id in (e.taker_id, e.maker_id)]
    cancelled = any(isinstance(e, ev.OrderCanceled) and e.order_id == order_id for e in events)
    filled = sum(e.size_lots for e in fills)
    lot_ticks = sum(e.size_lots * e.price_ticks for e in fills)
    size = next(
        (e.size_lots for e in reversed(events) if isinstance(e, ev.OrderAmended) and e.order_id == order_id), command.size_lots
    )  # its pair may have taken a part of it
    left = 0 if cancelled else size - filled
    status = "Canceled" if cancelled else _status(filled, left)
    return {
        "orderId": str(order_id), "clOrdID": command.cl_ord_id, "account": command.account, "symbol": command.symbol,
        "side": SIDE_NAMES[command.side], "ordStatus": status, "orderQty": size, "leavesQty": left,
        "cumQty": filled, "cumCost": lot_ticks * instrument.lot_tick_units,
        "avgPx": price(instrument, lot_ticks) / filled if filled else 0.0,
    }  # fmt: skip


def _amended(command: AmendOrder, events: Sequence[Event], state: State) -> Answer:
    order_id = next(e.order_id for e in events if isinstance(e, ev.OrderAmended))
    names = {"orderId": str(order_id), "clOrdID": command.cl_ord_id, "account": command.account}
    if order := state.orders.get(order_id):
        return names | _open_answer(order, state)
    cancelled = any(isinstance(e, ev.OrderCanceled) and e.order_id == order_id for e in events)
    return {**names, "ordStatus": "Canceled" if cancelled else "Filled"}


def _open_answer(order: Order, state: State) -> Answer:
    instrument = state.ledger.contracts[order.terms.symbol].instrument
    filled = order.filled_lots
    lot_ticks = order.cost_units // instrument.lot_tick_units
    return {
        "symbol": order.terms.symbol, "side": SIDE_NAMES[order.terms.side], "ordStatus": _status(filled, order.leaves_lots),
        "orderQty": order.size_lots, "leavesQty": order.leaves_lots, "cumQty": filled, "cumCost": order.cost_units,
        "avgPx": price(instrument, lot_ticks) / filled if filled else 0.0,
    }  # fmt: skip


def _status(filled: int, left: int) -> str:
    return ("PartiallyFilled" if left else "Filled") if filled else "New"
