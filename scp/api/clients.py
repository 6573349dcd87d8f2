"""Who is connected to the data services: /api/v1/clients, over all workers."""

from __future__ import annotations

from typing import Any

import msgspec

from scp.api.calls import Answer, Body, Call, Route
from scp.fleet.fleet import Fleet
from scp.fleet.inventory import Component
from scp.problems import Problem

PAGE, PAGE_MAX = 200, 1000


class KickBody(Body):
    """How a client is sent off: for good (close code 4003), or to come back a little later (4200)."""

    come_back: bool = False


class Client(msgspec.Struct):
    """A client of a data service. `pace`: open, conflate or pause (it reads too slowly); `hidden` = it asked for no pushes.

    `user` is null until it has shown a token; `session` is the control plane's session, or the API token's id.
    """

    conn: str
    worker: str
    user: str | None
    session: str
    address: str
    transport: str
    open_s: float
    subscriptions: int
    patterns: int
    buffered_bytes: int
    pace: str
    hidden: bool


class Unasked(msgspec.Struct):
    """A worker that did not answer, and why."""

    component: str
    detail: str


class Clients(msgspec.Struct):
    """A page of clients in the order of their ids; `next` goes into `after` of the next request, null = the end.

    `unreachable` are the workers whose clients are missing here.
    """

    clients: list[Client]
    next: str | None
    total: int
    unreachable: list[Unasked]


def list_clients(call: Call) -> Answer:
    """List the clients of all data services."""
    size, after = max(1, call.number("limit", PAGE, PAGE_MAX)), call.word("after")
    fleet = call.control.fleet
    answers = fleet.ask_each(_workers(fleet), "GET", "/clients", params={"limit": str(size), "after": after[:64]})
    found, more, total, unreachable = [], False, 0, []
    for one, said in answers:
        if isinstance(said, Problem):
            unreachable.append(Unasked(one.id, said.detail))
            continue
        page: Any = said.document
        found += [Client(worker=one.id, **client) for client in page["clients"]]
        more, total = more or page["next"] is not None, total + page["total"]
    found.sort(key=lambda client: client.conn)
    more = more or len(found) > size
    return Answer(Clients(found[:size], found[:size][-1].conn if more and found else None, total, unreachable))


def kick_client(call: Call) -> Answer:
    """Send a client off, whichever worker has it."""
    name, body, fleet = call.path["client"], call.body(KickBody), call.control.fleet
    if not (name.isascii() and name.isalnum() and len(name) <= 64):
        raise _nobody(name)
    workers = _workers(fleet)
    with call.acting("client.kick", name, after={"close": 4200 if body.come_back else 4003}) as done:
        answers = fleet.ask_each(workers, "POST", f"/clients/{name}/kick", {"come_back": body.come_back})
        for one, said in answers:
            if not isinstance(said, Problem):
                client = Client(worker=one.id, **said.document)
                done["before"] = msgspec.to_builtins(client)
                return Answer(client)
        silent = [said for _, said in answers if isinstance(said, Problem) and said.status == 503]
        raise silent[0] if silent else _nobody(name)


def _workers(fleet: Fleet) -> list[Component]:
    return fleet.of_kind("wds")


def _nobody(name: str) -> Problem:
    return Problem(404, "not_found", f"There is no client {name[:80]!r}; it may have left. GET /api/v1/clients lists them")


ROUTES = (
    Route(
        "GET", "/api/v1/clients", "inspect", list_clients, gives=Clients,
        query=(("limit", "how many"), ("after", "`next` of the page before", "string")),
    ),
    Route("POST", "/api/v1/clients/{client}/kick", "operate", kick_client, KickBody, Client, may_answer=(404,), destroys=True),
)  # fmt: skip
