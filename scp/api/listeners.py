"""What the listeners are to do: /api/v1/listeners and their configurations, with versions, differences, dry runs and rollback."""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec import UNSET, UnsetType
from msgspec.structs import asdict

from scp.api.calls import Answer, Body, Call, Route
from scp.fleet import listeners
from scp.fleet.fleet import usable
from scp.fleet.inventory import Component
from scp.fleet.keeper import in_force, label
from scp.fleet.listeners import SECRETS, Wanted
from scp.problems import Problem
from scp.security import audit

PAGE, PAGE_MAX = 50, listeners.VERSIONS_SHOWN_MAX
NOTE_MAX = 200


class ConfigurationBody(Body):
    """The whole configuration. A field that is left out is the listener's own setting (its environment); see mdl/README.md.

    `api_key` and `engine_token` are kept closed and never shown: left out = as before, empty = forgotten. A key goes only with
    the address (`massive_url`, `engine_url`) that stood beside it when it was given. `note` says why, for the versions.
    """

    feed: str | UnsetType = UNSET
    source: str | UnsetType = UNSET
    market: str | UnsetType = UNSET
    subscriptions: str | UnsetType = UNSET
    delayed: bool | UnsetType = UNSET
    massive_url: str | UnsetType = UNSET
    tape: str | UnsetType = UNSET
    speed: str | UnsetType = UNSET
    loop: bool | UnsetType = UNSET
    symbols: int | UnsetType = UNSET
    rate: float | UnsetType = UNSET
    seed: int | UnsetType = UNSET
    quotes: float | UnsetType = UNSET
    session: str | UnsetType = UNSET
    engine_url: str | UnsetType = UNSET
    api_key: str | UnsetType = UNSET
    engine_token: str | UnsetType = UNSET
    note: str = ""


class RollbackBody(Body):
    """Which version is to be in force again."""

    version: int
    note: str = ""


class Running(msgspec.Struct):
    """A listener's process: which version it has, whether that is the wanted one, and why it could not be put back."""

    component: str
    state: str
    configuration: str
    in_force: bool
    fault: str


class Listener(msgspec.Struct):
    """A listener by its name (MDL_NAME): what is wanted of it, and the processes that run under it."""

    name: str
    version: int
    managed: bool
    running: list[Running]


class Configuration(msgspec.Struct):
    """What a listener is to do. `version` is also the ETag; 0, or `managed` false = its own environment decides.

    `secrets` are the names of those that are kept.
    """

    listener: str
    version: int
    managed: bool
    configuration: dict[str, Any]
    secrets: list[str]
    note: str
    who: str
    at_ms: int
    running: list[Running]


class Version(msgspec.Struct):
    """A version; `at_ms` when it was wanted."""

    version: int
    managed: bool
    configuration: dict[str, Any]
    note: str
    who: str
    at_ms: int


class Versions(msgspec.Struct):
    """A page of versions, the newest first; `next` goes into `before` of the next request, null = the end."""

    versions: list[Version]
    next: int | None


class Changed(msgspec.Struct):
    """A field that differs; null = the listener's own setting."""

    field: str
    before: Any
    after: Any


class Difference(msgspec.Struct):
    """What changes from one version to another."""

    listener: str
    before: int
    after: int
    changes: list[Changed]


class Judged(msgspec.Struct):
    """What a process says to a configuration."""

    component: str
    accepted: bool
    detail: str


class Proposal(msgspec.Struct):
    """What would be changed, and what the running processes say to it. `version` = what it became; null for a dry run."""

    listener: str
    version: int | None
    changes: list[Changed]
    judged: list[Judged]


def list_listeners(call: Call) -> Answer:
    """List the listeners by name: those that run, and those for which something is wanted."""
    running = [one for one in call.control.fleet.components() if one.kind == "mdl"]
    with call.control.store.transaction() as db:
        names = sorted({*listeners.names(db), *(one.name for one in running)})
        found = [listeners.newest(db, name) for name in names]
    return Answer([Listener(one.listener, one.version, one.managed, _running(call, running, one)) for one in found])


def read_configuration(call: Call) -> Answer:
    """Show what a listener is to do, and whether its processes do it."""
    return _shown(call, _newest(call))


def put_configuration(call: Call) -> Answer:
    """Want something else of a listener: it is asked, then it is kept as a new version, applied now and after every restart.

    With `dry_run=1` it is only asked.
    """
    body, before = call.body(ConfigurationBody), _newest(call)
    call.check_match(str(before.version))
    given = {name: value for name, value in asdict(body).items() if value is not UNSET and name != "note"}
    secrets = {name: given.pop(name) for name in SECRETS if name in given}
    return _want(call, before, given, secrets, _note(body.note), True)


def roll_back(call: Call) -> Answer:
    """Want again what an earlier version says, as a new version; keys stay what they are."""
    body, before = call.body(RollbackBody), _newest(call)
    call.check_match(str(before.version))
    with call.control.store.transaction() as db:
        earlier = listeners.version(db, before.listener, body.version)
    if earlier is None:
        raise Problem(404, "not_found", f"There is no version {body.version} of {before.listener!r}")
    return _want(call, before, dict(earlier.fields), {}, _note(body.note) or f"as version {body.version}", earlier.managed)


def forget_configuration(call: Call) -> Answer:
    """Want nothing of a listener any more, and forget its keys; it goes back to its own environment. The versions stay."""
    before = _newest(call)
    call.check_match(str(before.version))
    return _want(call, before, {}, dict.fromkeys(SECRETS, ""), "its own environment", False)


def list_versions(call: Call) -> Answer:
    """List the versions, the newest first."""
    size = max(1, call.number("limit", PAGE, PAGE_MAX))
    with call.control.store.transaction() as db:
        found = listeners.versions(db, _name(call), call.number("before", 0, 1 << 62) or None, size)
    shown = [Version(one.version, one.managed, dict(one.fields), one.note, one.who, one.at_ms) for one in found]
    return Answer(Versions(shown, found[-1].version if found and found[-1].version > 1 else None))


def compare_versions(call: Call) -> Answer:
    """Show what changes from version `before` to version `after` (the newest by default)."""
    newest = _newest(call)
    second = call.number("after", newest.version, 1 << 62)
    first = call.number("before", max(0, second - 1), 1 << 62)
    with call.control.store.transaction() as db:
        found = [
            listeners.version(db, newest.listener, number) if number else Wanted(newest.listener) for number in (first, second)
        ]
    if found[0] is None or found[1] is None:
        raise Problem(404, "not_found", f"There is no version {first if found[0] is None else second} of {newest.listener!r}")
    return Answer(Difference(newest.listener, first, second, _changes(found[0].fields, found[1].fields)))


def _want(call: Call, before: Wanted, fields: dict[str, Any], secrets: dict[str, str], note: str, managed: bool) -> Answer:
    """Ask the running processes, keep the version, have them take it."""
    control, dry = call.control, call.flag("dry_run")
    running = [one for one in control.fleet.of_kind("mdl") if one.name == before.listener]
    changes = _changes(before.fields, fields) + [
        Changed(name, None, "given" if value else None) for name, value in secrets.items()
    ]
    with control.store.transaction() as db:
        kept = listeners.secrets_of(db, control.box, before.listener, fields)
    sent = {**fields, **kept, **secrets}
    sent = {name: value for name, value in sent.items() if value != "" or name not in SECRETS}
    judged = _ask(call, running, sent, {"replace": "true", "dry_run": "true"})
    if dry:
        return Answer(Proposal(before.listener, None, changes, judged))
    if not any(one.accepted for one in judged):
        if not judged:
            raise Problem(
                503, "no_listener", f"No listener {before.listener!r} runs that could say whether this is right; start one"
            )
        raise Problem(422, "listener_refuses", judged[0].detail)
    wanted = Wanted(before.listener, before.version + 1, managed, fields, note, call.me.name, call.asked.now_ms)
    _keep(call, before, wanted, secrets)
    applied = _ask(call, [one for one, said in zip(running, judged, strict=True) if said.accepted], sent, in_force(wanted))
    return Answer(Proposal(before.listener, wanted.version, changes, applied), headers=(("ETag", f'"{wanted.version}"'),))


def _keep(call: Call, before: Wanted, wanted: Wanted, secrets: dict[str, str]) -> None:
    with call.control.store.transaction() as db:
        audit.wait_turn(db)
        if listeners.newest(db, wanted.listener).version != before.version:
            raise Problem(412, "changed_meanwhile", "Somebody has changed it at the same moment. Read it again")
        listeners.add(db, wanted)
        for name, value in secrets.items():
            place = listeners.place_of(name, wanted.fields)
            listeners.keep_secret(db, call.control.box, wanted.listener, name, value, place, call.asked.now_ms)
        what = {"version": wanted.version, "managed": wanted.managed, "configuration": dict(wanted.fields)}
        was = {"version": before.version, "managed": before.managed, "configuration": dict(before.fields)}
        told = {name: "given" if value else "forgotten" for name, value in secrets.items()}
        who, action = call.me.name, "listener.configure"
        audit.note(db, call.asked, who, action, wanted.listener, before=was, after=what, secrets=told, note=wanted.note)


def _ask(call: Call, running: list[Component], sent: dict[str, Any], parameters: dict[str, str]) -> list[Judged]:
    answers = call.control.fleet.ask_each(running, "POST", "/feed", sent, parameters)
    return [
        Judged(one.id, not isinstance(said, Problem), said.detail if isinstance(said, Problem) else "") for one, said in answers
    ]


def _changes(before: Any, after: Any) -> list[Changed]:
    return [Changed(**one) for one in listeners.difference(before, after)]


def _name(call: Call) -> str:
    name = call.path["listener"]
    if not name.isascii() or len(name) > 32 or not name.replace("-", "").isalnum() or name != name.lower():
        raise Problem(
            404, "not_found", f"There is no listener {name[:40]!r}: names have small letters, digits and dashes (MDL_NAME)"
        )
    return name


def _note(text: str) -> str:
    if len(text) > NOTE_MAX or not (text.isprintable() or not text):
        raise Problem(422, "bad_note", f"A note has at most {NOTE_MAX} characters, in one line")
    return text


def _newest(call: Call) -> Wanted:
    with call.control.store.transaction() as db:
        return listeners.newest(db, _name(call))


def _shown(call: Call, one: Wanted) -> Answer:
    running = [found for found in call.control.fleet.components() if found.kind == "mdl"]
    with call.control.store.transaction() as db:
        secrets = listeners.secrets_kept(db, one.listener)
    found = Configuration(
        one.listener,
        one.version,
        one.managed,
        dict(one.fields),
        secrets,
        one.note,
        one.who,
        one.at_ms,
        _running(call, running, one),
    )
    return Answer(found, headers=(("ETag", f'"{one.version}"'),))


def _running(call: Call, found: list[Component], wanted: Wanted) -> list[Running]:
    faults = call.control.fleet.faults
    return [
        Running(
            one.id, one.state, str(one.more.get("configuration") or ""),
            usable(one) and one.more.get("configuration") == label(wanted), faults.get(one.id, ""),
        )
        for one in found
        if one.name == wanted.listener
    ]  # fmt: skip


BASE = "/api/v1/listeners/{listener}/configuration"
DRY = (("dry_run", "1 = only ask whether it could be"),)
WANTS = (404, 422)
ROUTES = (
    Route("GET", "/api/v1/listeners", "inspect", list_listeners, gives=list[Listener]),
    Route("GET", BASE, "inspect", read_configuration, gives=Configuration, may_answer=(404,)),
    Route(
        "PUT", BASE, "operate", put_configuration, ConfigurationBody, Proposal,
        may_answer=WANTS, query=DRY, matches=True, destroys=True,
    ),
    Route(
        "DELETE", BASE, "operate", forget_configuration, gives=Proposal,
        may_answer=WANTS, query=DRY, matches=True, destroys=True,
    ),
    Route(
        "POST", f"{BASE}/rollback", "operate", roll_back, RollbackBody, Proposal,
        may_answer=WANTS, query=DRY, matches=True, destroys=True,
    ),
    Route(
        "GET", f"{BASE}/versions", "inspect", list_versions, gives=Versions, may_answer=(404,),
        query=(("limit", "how many"), ("before", "`next` of the page before")),
    ),
    Route(
        "GET", f"{BASE}/difference", "inspect", compare_versions, gives=Difference, may_answer=(404,),
        query=(("before", "a version; one less than `after` by default"), ("after", "a version; the newest by default")),
    ),
)  # fmt: skip
