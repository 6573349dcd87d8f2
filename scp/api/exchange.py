"""The exchange's own paths /MessageStore and /ExchangeWideControls, passed on for whoever may.

`/joined` is not passed on: consumers use the gateway itself.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qsl

from scp.api.calls import Answer, Call, Route
from scp.problems import Problem

QUERY_MAX = 8


def passed_on(method: str, path: str, about: str) -> Callable[[Call], Answer]:
    """Return the handler that passes a request on to the same path of the gateway."""

    def handler(call: Call) -> Answer:
        fleet = call.control.fleet
        try:
            query = dict(parse_qsl(call.query, keep_blank_values=True, max_num_fields=QUERY_MAX))
        except ValueError:
            raise Problem(400, "bad_request", f"A query has at most {QUERY_MAX} parameters") from None
        if method == "GET":
            return Answer(fleet.gateway(method, path, query).document)
        target = query.get("storeId", "").strip('"') if path.startswith("/MessageStore") else "exchange"
        before = _state(call, path, target)
        with call.acting(f"gateway.{method.lower()}", path, store=target[:64], before=before) as done:
            said = fleet.gateway(method, path, query, call.idempotency_key).document
            done["after"] = said
        return Answer(said)

    handler.__name__ = f"gateway_{method.lower()}_{path.strip('/').replace('/', '_')}"
    handler.__doc__ = about
    return handler


def _state(call: Call, path: str, target: str) -> Any:
    """Return what a change is about as it is before it."""
    if not path.startswith("/MessageStore"):
        return call.control.fleet.gateway("GET", "/ExchangeWideControls").document
    said: Any = call.control.fleet.gateway("GET", "/MessageStore").document
    return next((one for one in said if one["storeId"] == target), None)


STORE = (("storeId", 'the store; nothing or `""` is the default one', "string"),)
INDEX = (("messageIndex", "the last message that was processed; it is purged, too"),)
AGE = (("maximumUnpurgedItemAgeMillis", "from this age of its oldest message on the store suspends trading"),)
FORCE = (("force", "true = although it holds messages or has consumers", "string"),)
ASKED = (400, 404, 405, 409, 422, 429)


def _route(method: str, path: str, about: str, query: tuple[tuple[str, ...], ...] = (), gives: Any = dict) -> Route:
    need = "inspect" if method == "GET" else "exchange"
    return Route(
        method, path, need, passed_on(method, path, about), gives=gives, may_answer=ASKED, query=query, destroys=method != "GET"
    )


ROUTES = (
    _route("GET", "/MessageStore", "List the message stores, as the exchange does.", gives=list[dict[str, Any]]),
    _route("GET", "/MessageStore/", "List the message stores, as the exchange does.", gives=list[dict[str, Any]]),
    _route("PUT", "/MessageStore", "Create a message store; one that exists stays as it is.", STORE),
    _route("DELETE", "/MessageStore", "Delete a message store.", STORE + FORCE),
    _route("DELETE", "/MessageStore/Purge", "Acknowledge messages up to an index.", STORE + INDEX),
    _route("PUT", "/MessageStore/Suspension", "Set from which age on a store suspends trading.", STORE + AGE),
    _route("GET", "/ExchangeWideControls", "Say whether trading is suspended, and why."),
    _route("PUT", "/ExchangeWideControls/SuspendTrading", "Suspend trading by hand."),
    _route("PUT", "/ExchangeWideControls/ResumeTrading", "Resume trading by hand, whatever suspended it."),
)
