"""Paper trading on the built-in exchange: /api/v1/paper. Everybody who may trade has one account there, and none but that one."""

from __future__ import annotations

import hashlib
from typing import Annotated, Any, Literal

import msgspec

from scp.api.calls import Answer, Body, Call, Route
from scp.api.repeats import KEY
from scp.fleet.paper import Paper, PaperDesk, PaperOrder
from scp.fleet.paper_streams import Place
from scp.problems import Problem
from scp.security.throttle import ORDERS
from scp.store import paper_accounts

NAME_MAX = 64


class PaperOrderBody(Body):
    """A new order: `qty` in lots; without a price a market order, whose rest is cancelled at the end of the price band."""

    symbol: Annotated[str, msgspec.Meta(min_length=1, max_length=64)]
    side: Literal["Buy", "Sell"]
    qty: int
    price: float | None = None
    time_in_force: Literal["GoodTillCancel", "Day", "ImmediateOrCancel", "FillOrKill"] = "GoodTillCancel"
    post_only: bool = False
    reduce_only: bool = False


class PaperAmendBody(Body):
    """Other terms of an open order; null = as it is. `qty` is the whole order, what has traded included."""

    qty: int | None = None
    price: float | None = None


def read_paper(call: Call) -> Answer:
    """Show your paper account: money, positions, open orders, newest fills. With If-None-Match: 304 while nothing has changed."""
    body = msgspec.json.encode(_paper(call).desk(_account(call)))
    tag = f'"{hashlib.sha256(body).hexdigest()[:24]}"'
    if call.if_none_match == tag:
        return Answer(None, 304, headers=(("ETag", tag),))
    return Answer(body, headers=(("ETag", tag),))


def stream_paper(call: Call) -> Answer:
    """Push your paper account (server-sent events): `desk`, all of it, whenever it has changed; `away` while it may be old."""
    session = call.me.session
    if session is None:
        words = "Streams are for signed-in people; a script asks GET /api/v1/paper, with If-None-Match"
        raise Problem(403, "session_needed", words)
    if (account := _account(call)) is None:
        raise Problem(409, "no_paper_account", "Open your paper account first: POST /api/v1/paper/account")
    place = Place(call.control.paper_streams, call.me.user_id, session.public_id, account)
    return Answer(b"", headers=(("X-Accel-Buffering", "no"),), content_type="text/event-stream", stream=place)


def open_paper(call: Call) -> Answer:
    """Open your paper account with the deposit that everybody gets; one that is open stays as it is."""
    paper, account = _paper(call), _account(call)
    if account is None:
        with call.control.store.transaction() as db:
            account = paper_accounts.keep(db, call.me.user_id, call.control.draw_below, call.asked.now_ms)
    with call.acting("paper.open", str(account)):
        paper.open(account)
    return Answer(paper.desk(account))


def place_paper_order(call: Call) -> Answer:
    """Place a paper order. Send it again with the same Idempotency-Key when the answer was lost: it is entered once."""
    body, account, key = call.body(PaperOrderBody), _own(call), _key(call)
    order: dict[str, Any] = {
        "symbol": body.symbol, "side": body.side, "orderQty": body.qty, "price": body.price, "timeInForce": body.time_in_force,
        "postOnly": body.post_only, "reduceOnly": body.reduce_only,
    }  # fmt: skip
    with call.acting("paper.place", str(account), key=key, order=order) as done:
        placed = _paper(call).place(account, order, key)
        done["after"] = msgspec.to_builtins(placed)
    return Answer(placed)


def amend_paper_order(call: Call) -> Answer:
    """Change size or price of an open paper order; more size or another price puts it last in its queue."""
    body, account, key, name = call.body(PaperAmendBody), _own(call), _key(call), _order(call)
    changed = {"orderQty": body.qty, "price": body.price}
    with call.acting("paper.amend", str(account), key=key, order=name, changed=changed) as done:
        amended = _paper(call).amend(account, name, changed, key)
        done["after"] = msgspec.to_builtins(amended)
    return Answer(amended)


def cancel_paper_order(call: Call) -> Answer:
    """Cancel an open paper order."""
    account, key, name = _own(call), _key(call), _order(call)
    with call.acting("paper.cancel", str(account), key=key, order=name) as done:
        canceled = _paper(call).cancel(account, name, key)
        done["after"] = msgspec.to_builtins(canceled)
    return Answer(canceled)


def _paper(call: Call) -> Paper:
    return Paper(call.control.fleet, call.control.paper_deposit)


def _account(call: Call) -> int | None:
    with call.control.store.transaction() as db:
        return paper_accounts.find(db, call.me.user_id)


def _own(call: Call) -> int:
    """Return the account of who asks, and count the order.  Raises: Problem 409, TooMany."""
    call.control.guard.count((ORDERS, (str(call.me.user_id),)))
    if (account := _account(call)) is None:
        raise Problem(409, "no_paper_account", "Open your paper account first: POST /api/v1/paper/account")
    return account


def _order(call: Call) -> str:
    """Return the order of the path.  Raises: Problem 404."""
    name = call.path["order"]
    if len(name) > NAME_MAX or not name.isprintable():
        raise Problem(404, "not_found", "You have no such order")
    return name


def _key(call: Call) -> str:
    if not call.idempotency_key:
        words = "Send an Idempotency-Key, a new one for each order: it lets you send the order again when its answer was lost"
        raise Problem(400, "key_needed", words)
    if not KEY.fullmatch(call.idempotency_key):
        raise Problem(400, "bad_key", "An Idempotency-Key has 1 to 128 printable characters without spaces")
    return call.idempotency_key


ONE = "/api/v1/paper/orders/{order}"
ASKED = (400, 404, 409, 422, 429)
ROUTES = (
    Route("GET", "/api/v1/paper", "trade", read_paper, gives=PaperDesk, may_answer=(304, *ASKED)),
    Route("GET", "/api/v1/paper/stream", "trade", stream_paper, may_answer=(409, 429), content_types=("text/event-stream",)),
    Route("POST", "/api/v1/paper/account", "trade", open_paper, gives=PaperDesk, may_answer=ASKED),
    Route("POST", "/api/v1/paper/orders", "trade", place_paper_order, PaperOrderBody, PaperOrder, may_answer=ASKED, keyed=True),
    Route("PUT", ONE, "trade", amend_paper_order, PaperAmendBody, PaperOrder, may_answer=ASKED, keyed=True),
    Route("DELETE", ONE, "trade", cancel_paper_order, gives=PaperOrder, may_answer=ASKED, keyed=True),
)
