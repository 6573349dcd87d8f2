"""What nobody could use: bad events of the feeds and dead orders of the exchange's queue, /api/v1/dead-letters."""

from __future__ import annotations

from typing import Any

import msgspec

from scp.api.calls import Answer, Call, Route
from scp.fleet.fleet import SLOW_S
from scp.fleet.inventory import Component
from scp.problems import Problem
from service.errors import UNREADABLE

PAGE, PAGE_MAX = 100, 1000


class BadEvent(msgspec.Struct):
    """An event that the processors could not use: why, and its first bytes as they came. `ts` is the feed's time in ms."""

    ts: int
    stream: str
    partition: int
    reason: str
    event: str


class BadEvents(msgspec.Struct):
    """A page of the newest 1000 bad events, the newest first; `next` goes into `after` of the next request, null = the end."""

    letters: list[BadEvent]
    next: int | None
    total: int


class DeadOrder(msgspec.Struct):
    """A message of the order queue that was not executed: why, since when, after how many attempts, and what it said."""

    id: str
    reason: str
    detail: str
    at: str
    attempts: int
    message_id: str
    body: str
    bytes: int


class DeadOrders(msgspec.Struct):
    """The oldest dead orders, the oldest first; `total` counts all."""

    letters: list[DeadOrder]
    total: int


class Gone(msgspec.Struct):
    """How many are gone."""

    cleared: int


def list_bad_events(call: Call) -> Answer:
    """List the bad events of the feeds."""
    first, size = call.number("after", 0, 1 << 31), max(1, call.number("limit", PAGE, PAGE_MAX))
    found, total = call.control.fleet.bad_events(first, size)
    letters = [_bad_event(body) for body in found]
    return Answer(BadEvents(letters, first + size if first + size < total else None, total))


def download_bad_events(call: Call) -> Answer:
    """Download all bad events as lines of JSON, the newest first."""
    found, _ = call.control.fleet.bad_events(0, PAGE_MAX)
    lines = b"".join(msgspec.json.encode(_bad_event(body)) + b"\n" for body in found)
    attachment = ("Content-Disposition", 'attachment; filename="bad-events.ndjson"')
    return Answer(lines, content_type="application/x-ndjson", headers=(attachment,))


def clear_bad_events(call: Call) -> Answer:
    """Forget all bad events."""
    with call.acting("dead_letters.clear", "bad events", after={"total": 0}) as done:
        cleared = call.control.fleet.clear_bad_events()
        done["before"] = {"total": cleared}
    return Answer(Gone(cleared))


def list_dead_orders(call: Call) -> Answer:
    """List the dead orders of the exchange's queue, the oldest first."""
    size = max(1, call.number("limit", PAGE, PAGE_MAX))
    said = call.control.fleet.ask(_engine(call), "GET", "/dead-letters", params={"limit": str(size)}, seconds=SLOW_S).document
    return Answer(msgspec.convert(said, DeadOrders))


def requeue_dead_order(call: Call) -> Answer:
    """Give a dead order back to the queue: it is executed as an operator's, whatever key it had shown."""
    return _one(call, "POST", "/requeue", "dead_order.requeue", "queued")


def discard_dead_order(call: Call) -> Answer:
    """Forget a dead order."""
    return _one(call, "DELETE", "", "dead_order.discard", "gone")


def discard_dead_orders(call: Call) -> Answer:
    """Forget all dead orders."""
    one = _engine(call)
    with call.acting("dead_order.discard_all", one.id, after={"total": 0}) as done:
        said: Any = call.control.fleet.ask(one, "DELETE", "/dead-letters", seconds=SLOW_S).document
        cleared = int(said["discarded"])
        done["before"] = {"total": cleared}
    return Answer(Gone(cleared))


def _one(call: Call, method: str, what: str, action: str, after: str) -> Answer:
    letter = call.path["letter"]
    if not (letter.isascii() and letter.isalnum() and len(letter) <= 64):
        raise Problem(404, "not_found", f"There is no dead order {letter[:80]!r}")
    engine = _engine(call)
    with call.acting(action, letter, after={"state": after}) as done:
        said = call.control.fleet.ask(engine, method, f"/dead-letters/{letter}{what}", seconds=SLOW_S).document
        found = msgspec.convert(said, DeadOrder)
        done["before"] = msgspec.to_builtins(found)
    return Answer(found)


def _engine(call: Call) -> Component:
    found = [one for one in call.control.fleet.of_kind("engine") if one.more.get("orders_queue")]
    if not found:
        words = "No exchange with a queue of orders runs that could be asked; start it with ENGINE_ORDERS_URL"
        raise Problem(503, "no_engine", words, [("Retry-After", "5")])
    return found[0]


def _bad_event(body: bytes) -> BadEvent:
    try:
        return msgspec.json.decode(body, type=BadEvent)
    except UNREADABLE:  # of another version
        return BadEvent(0, "", -1, "not one of ours", body[:2000].decode(errors="replace"))


EVENTS, ORDERS = "/api/v1/dead-letters/events", "/api/v1/dead-letters/orders"
LIMIT = (("limit", "how many"),)
ROUTES = (
    Route("GET", EVENTS, "inspect", list_bad_events, gives=BadEvents, query=(*LIMIT, ("after", "`next` of the page before"))),
    Route("GET", f"{EVENTS}/download", "inspect", download_bad_events),
    Route("DELETE", EVENTS, "operate", clear_bad_events, gives=Gone, destroys=True),
    Route("GET", ORDERS, "inspect", list_dead_orders, gives=DeadOrders, query=LIMIT, may_answer=(404, 422)),
    Route("DELETE", ORDERS, "exchange", discard_dead_orders, gives=Gone, may_answer=(404,), destroys=True),
    Route(
        "POST", f"{ORDERS}/{{letter}}/requeue", "exchange", requeue_dead_order, gives=DeadOrder, may_answer=(404,), destroys=True
    ),
    Route("DELETE", f"{ORDERS}/{{letter}}", "exchange", discard_dead_order, gives=DeadOrder, may_answer=(404,), destroys=True),
)
