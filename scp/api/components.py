"""The components at runtime: /api/v1/components, what each says of itself, and what is asked of it."""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from scp.api.calls import Answer, Body, Call, Route
from scp.fleet.fleet import SLOW_S
from scp.fleet.inventory import Component
from scp.problems import Problem

PAGE, PAGE_MAX = 200, 1000


class LevelBody(Body):
    """From which level on events are logged."""

    level: Literal["debug", "info", "warning", "error"]


class Components(msgspec.Struct):
    """A page of components in the order of their ids; `next` goes into `after` of the next request, null = the end.

    `total` and `states` count all of them.
    """

    components: list[Component]
    next: str | None
    total: int
    states: dict[str, int]


class Readiness(msgspec.Struct):
    """Whether data can flow through a component, and what is missing, in words."""

    ready: bool
    reasons: list[str]


class Drained(msgspec.Struct):
    """A component that was asked to hand over and end. When it is back its `instance` is another one."""

    component: str
    instance: str


class Level(msgspec.Struct):
    """From which level on a component logs."""

    component: str
    before: str
    level: str


def list_components(call: Call) -> Answer:
    """List the components, those included that are stale or missing; `kind` and `state` choose some."""
    kind, state, after = call.word("kind"), call.word("state"), call.word("after")
    size = max(1, call.number("limit", PAGE, PAGE_MAX))
    listing = call.control.fleet.listing()
    return Answer(listing.page((kind, state, after, size), lambda: _page(listing.components, kind, state, after, size)))


def _page(found: list[Component], kind: str, state: str, after: str, size: int) -> Components:
    states = {state: sum(one.state == state for one in found) for state in ("ready", "unready", "stale", "missing")}
    chosen = [one for one in found if kind in ("", one.kind) and state in ("", one.state) and one.id > after]
    return Components(chosen[:size], chosen[size - 1].id if len(chosen) > size else None, len(found), states)


def read_component(call: Call) -> Answer:
    """Show one component."""
    return Answer(_component(call))


def read_readiness(call: Call) -> Answer:
    """Ask a component whether it is ready (its /readyz)."""
    said = call.control.fleet.ask(_component(call), "GET", "/readyz").document
    if not isinstance(said, dict):
        raise Problem(503, "component_failed", "Its answer is not one of /readyz")
    return Answer(Readiness(bool(said.get("ready")), [str(one) for one in said.get("reasons", [])]))


def read_metrics(call: Call) -> Answer:
    """Get a component's metrics (its /metrics), for scrapers that cannot reach it."""
    reply = call.control.fleet.ask(_component(call), "GET", "/metrics")
    return Answer(reply.body, content_type="text/plain; version=0.0.4; charset=utf-8")


def drain(call: Call) -> Answer:
    """Have a component hand over and end, with exit code 0; who supervises it starts it again."""
    one = _component(call)
    with call.acting("component.drain", one.id, before={"state": one.state, "instance": one.instance}) as done:
        call.control.fleet.ask(one, "POST", "/drain")
        done["after"] = {"state": "draining"}
    return Answer(Drained(one.id, one.instance), 202)


def set_log_level(call: Call) -> Answer:
    """Set from which level on a component logs, until it is started again."""
    one, body = _component(call), call.body(LevelBody)
    with call.acting("component.log_level", one.id, before={"level": one.log_level}, after={"level": body.level}):
        call.control.fleet.ask(one, "PUT", "/log-level", {"level": body.level})
    return Answer(Level(one.id, one.log_level, body.level))


def read_feed(call: Call) -> Answer:
    """Show what a listener follows: its sources with state, counters, settings, lease and recording; never a key."""
    return Answer(_document(call.control.fleet.ask(_listener(call), "GET", "/feed").document))


def start_feed(call: Call) -> Answer:
    """Start every feed of a listener that does not run."""
    return _turn(call, "/feed/start", "feed.start")


def stop_feed(call: Call) -> Answer:
    """Stop a listener's feeds; connections and leases are given back, and a standby takes over."""
    return _turn(call, "/feed/stop", "feed.stop")


def start_recording(call: Call) -> Answer:
    """Record every source of a listener from now on."""
    return _turn(call, "/record/start", "record.start")


def stop_recording(call: Call) -> Answer:
    """End a listener's recordings."""
    return _turn(call, "/record/stop", "record.stop")


def _turn(call: Call, path: str, action: str) -> Answer:
    one, fleet = _listener(call), call.control.fleet
    before = _states(fleet.ask(one, "GET", "/feed").document)
    with call.acting(action, one.id, before=before) as done:
        said = _document(fleet.ask(one, "POST", path, seconds=SLOW_S).document)
        done["after"] = _states(said)
    return Answer(said)


def _states(said: Any) -> dict[str, Any]:
    sources = said.get("sources", {}) if isinstance(said, dict) else {}
    return {name: {key: source.get(key) for key in ("feed", "state", "recording")} for name, source in sources.items()}


def _document(said: Any) -> dict[str, Any]:
    if not isinstance(said, dict):
        raise Problem(503, "component_failed", "It answered with something that is no document")
    return said


def _component(call: Call) -> Component:
    return call.control.fleet.component(call.path["component"])


def _listener(call: Call) -> Component:
    one = _component(call)
    if one.kind != "mdl":
        raise Problem(409, "wrong_kind", f"{one.id} is no listener: only components of the kind mdl have feeds")
    return one


ASKED = (404, 409, 422)
ONE = "/api/v1/components/{component}"
ROUTES = (
    Route(
        "GET",
        "/api/v1/components",
        "inspect",
        list_components,
        gives=Components,
        query=(
            ("limit", "how many"),
            ("after", "`next` of the page before", "string"),
            ("kind", "mdl, mdp, wds, scp, engine, bots, oms, risk", "string"),
            ("state", "ready, unready, stale or missing", "string"),
        ),
    ),
    Route("GET", ONE, "inspect", read_component, gives=Component, may_answer=(404,)),
    Route("GET", f"{ONE}/readyz", "inspect", read_readiness, gives=Readiness, may_answer=ASKED),
    Route("GET", f"{ONE}/metrics", "inspect", read_metrics, may_answer=ASKED, content_types=("text/plain",)),
    Route("POST", f"{ONE}/drain", "operate", drain, gives=Drained, status=202, may_answer=ASKED, destroys=True),
    Route("PUT", f"{ONE}/log-level", "operate", set_log_level, LevelBody, Level, may_answer=ASKED),
    Route("GET", f"{ONE}/feed", "inspect", read_feed, gives=dict, may_answer=ASKED),
    Route("POST", f"{ONE}/feed/start", "operate", start_feed, gives=dict, may_answer=ASKED),
    Route("POST", f"{ONE}/feed/stop", "operate", stop_feed, gives=dict, may_answer=ASKED, destroys=True),
    Route("POST", f"{ONE}/record/start", "operate", start_recording, gives=dict, may_answer=ASKED),
    Route("POST", f"{ONE}/record/stop", "operate", stop_recording, gives=dict, may_answer=ASKED),
)
