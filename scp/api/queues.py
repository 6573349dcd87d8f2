"""The queues between listeners and processors: /api/v1/queues."""

from __future__ import annotations

from typing import Any

import msgspec

from scp.api.calls import Answer, Call, Route
from scp.fleet.fleet import SLOW_S
from scp.fleet.inventory import Component
from scp.problems import Problem

PAGE, PAGE_MAX = 500, 5000


class Queue(msgspec.Struct):
    """A queue: how many batches wait (delivered ones not counted), how old the oldest is at most, how many read it."""

    name: str
    stream: str
    partition: int
    depth: int
    consumers: int
    age_ms: float
    ttl_ms: int
    bytes_max: int


class Stream(msgspec.Struct):
    """What the processors counted of a stream, over all partitions: events taken, and lost by age or dropped."""

    stream: str
    events: int
    expired: int
    dropped: int


class Queues(msgspec.Struct):
    """A page of queues in the order of their names, and what was lost by stream; `seen_by` is the listener that was asked."""

    queues: list[Queue]
    next: str | None
    total: int
    streams: list[Stream]
    seen_by: str


class Purged(msgspec.Struct):
    """How many batches were thrown away. Their events are counted as dropped in `status:pipeline` when the next batch arrives."""

    name: str
    purged_batches: int


def list_queues(call: Call) -> Answer:
    """List the queues with depth, age, consumers, and the losses of their streams."""
    seen, found = _survey(call)
    by_stream = call.control.fleet.pipeline().get("processors", {}).get("by_stream", {})
    streams = [
        Stream(name, **{key: int(counts.get(key, 0)) for key in ("events", "expired", "dropped")})
        for name, counts in by_stream.items()
    ]
    size, after = max(1, call.number("limit", PAGE, PAGE_MAX)), call.word("after")
    chosen = [one for one in found if one.name > after]
    return Answer(Queues(chosen[:size], chosen[size - 1].name if len(chosen) > size else None, len(found), streams, seen.id))


def purge_queue(call: Call) -> Answer:
    """Throw away what waits in a queue."""
    name = call.path["queue"]
    seen, found = _survey(call)
    before = next((one for one in found if one.name == name), None)
    if before is None:
        raise Problem(404, "not_found", f"There is no queue {name[:80]!r}; GET /api/v1/queues lists them")
    with call.acting("queue.purge", name, before={"depth": before.depth}) as done:
        said: Any = call.control.fleet.ask(seen, "DELETE", f"/queues/{name}", seconds=SLOW_S).document
        purged = int(said["purged_batches"])
        done["after"] = {"purged_batches": purged}
    return Answer(Purged(name, purged))


def _survey(call: Call) -> tuple[Component, list[Queue]]:
    """Ask listeners, one after the other, until one answers.  Raises: Problem 503."""
    fleet = call.control.fleet
    listeners = fleet.of_kind("mdl")
    if not listeners:
        raise Problem(
            503, "no_listener", "No listener runs that could be asked; start one (python -m mdl)", [("Retry-After", "5")]
        )
    fault: Problem | None = None
    for one in listeners[:2]:
        try:
            said: Any = fleet.ask(one, "GET", "/queues", seconds=SLOW_S).document
            return one, sorted((msgspec.convert(queue, Queue) for queue in said["queues"]), key=lambda queue: queue.name)
        except Problem as problem:
            if problem.code != "component_unreachable":
                raise
            fault = problem
    assert fault is not None
    raise fault


ROUTES = (
    Route(
        "GET", "/api/v1/queues", "inspect", list_queues, gives=Queues, may_answer=(404, 422),
        query=(("limit", "how many"), ("after", "`next` of the page before", "string")),
    ),
    Route("DELETE", "/api/v1/queues/{queue}", "operate", purge_queue, gives=Purged, may_answer=(404,), destroys=True),
)  # fmt: skip
