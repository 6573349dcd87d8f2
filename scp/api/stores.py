"""The exchange's message stores and whether it trades: /api/v1/stores, /api/v1/trading."""

from __future__ import annotations

from typing import Any

import msgspec

from scp.api.calls import Answer, Body, Call, Route
from scp.problems import Problem
from scp.security import audit

REASON_MAX = 200
SUSPEND, RESUME = "trading.suspend", "trading.resume"


class PurgeBody(Body):
    """Up to which message (included); null = the last one. A dry run only counts: take its `message_index` for the purge."""

    message_index: int | None = None
    dry_run: bool = False


class SuspensionBody(Body):
    """From which age of its oldest message on, in ms, a store suspends trading."""

    age_ms_max: int


class ReasonBody(Body):
    """Why, in a few words, for the audit log and for whoever asks."""

    reason: str


class Store(msgspec.Struct):
    """A message store: what it holds, how old the oldest message is against the age at which the store suspends trading.

    `first_index` is the index right before its first message. The default store's name is "", its path `%22%22`.
    """

    name: str
    first_index: int
    last_index: int
    messages: int
    oldest_age_ms: int
    age_ms_max: int
    suspended: bool
    consumers: int


class PurgedStore(msgspec.Struct):
    """A purge, or what one would do: `messages` go with everything up to `message_index`."""

    name: str
    message_index: int
    messages: int
    left: int
    dry_run: bool


class Trading(msgspec.Struct):
    """Whether trading is suspended; why (`manual`, or `store:<name>` of a consumer that is behind), and what was said last."""

    suspended: bool
    reasons: list[str]
    message_index: int
    note: str
    who: str
    at_ms: int | None


def list_stores(call: Call) -> Answer:
    """List the message stores."""
    return Answer(_stores(call))


def read_store(call: Call) -> Answer:
    """Show one message store."""
    return Answer(_store(call))


def create_store(call: Call) -> Answer:
    """Make a message store; one that is there stays as it is."""
    name = _name(call)
    if (there := _find(call)) is not None:
        return Answer(there)
    with call.acting("store.create", name or '""', before=None) as done:
        found = _view(call.control.fleet.gateway("PUT", "/MessageStore", {"storeId": _parameter(name)}).document)
        done["after"] = msgspec.to_builtins(found)
    return Answer(found)


def delete_store(call: Call) -> Answer:
    """Delete a message store; one that holds messages or has consumers needs `force=1`."""
    before = _store(call)
    force = {"force": "true"} if call.flag("force") else {}
    parameters = {"storeId": _parameter(before.name), **force}
    with call.acting("store.delete", before.name or '""', before=msgspec.to_builtins(before), after=None):
        call.control.fleet.gateway("DELETE", "/MessageStore", parameters, call.idempotency_key)
    return Answer(status=204)


def purge_store(call: Call) -> Answer:
    """Have the exchange forget messages of a store: consumers that have not seen them never will."""
    body, before = call.body(PurgeBody), _store(call)
    index = before.last_index if body.message_index is None else body.message_index
    if not 0 <= index < 1 << 62:
        raise Problem(422, "bad_index", "message_index is 0 or more")
    parameters = {"storeId": _parameter(before.name), "messageIndex": str(index)}
    counted: Any = call.control.fleet.gateway("GET", "/MessageStore/Purge", parameters).document
    taken = int(counted["itemCount"])
    if body.dry_run:
        return Answer(PurgedStore(before.name, index, taken, before.messages - taken, True))
    with call.acting(
        "store.purge", before.name or '""', before=msgspec.to_builtins(before), message_index=index, messages=taken
    ) as done:
        said: Any = call.control.fleet.gateway("DELETE", "/MessageStore/Purge", parameters, call.idempotency_key).document
        after = _store(call)
        done["after"] = msgspec.to_builtins(after)
    return Answer(PurgedStore(before.name, int(said["purgedIndex"]), taken, after.messages, False))


def set_suspension(call: Call) -> Answer:
    """Set from which age of its oldest message on a store suspends trading."""
    body, before = call.body(SuspensionBody), _store(call)
    parameters = {"storeId": _parameter(before.name), "maximumUnpurgedItemAgeMillis": str(body.age_ms_max)}
    was, wanted = ({"age_ms_max": age_ms} for age_ms in (before.age_ms_max, body.age_ms_max))
    with call.acting("store.suspension", before.name or '""', before=was, after=wanted) as done:
        found = _view(call.control.fleet.gateway("PUT", "/MessageStore/Suspension", parameters).document)
        done["after"] = {"age_ms_max": found.age_ms_max}
    return Answer(found)


def read_trading(call: Call) -> Answer:
    """Say whether the exchange trades, and what was said when it was last suspended or resumed from here."""
    return Answer(_trading(call, call.control.fleet.gateway("GET", "/ExchangeWideControls").document))


def suspend_trading(call: Call) -> Answer:
    """Suspend trading by hand."""
    return _turn(call, SUSPEND, "/ExchangeWideControls/SuspendTrading")


def resume_trading(call: Call) -> Answer:
    """Resume trading by hand, whatever suspended it; a store that is behind counts again when it has caught up."""
    return _turn(call, RESUME, "/ExchangeWideControls/ResumeTrading")


def _turn(call: Call, action: str, path: str) -> Answer:
    reason = call.body(ReasonBody).reason.strip()
    if not 1 <= len(reason) <= REASON_MAX or not reason.isprintable():
        raise Problem(422, "bad_reason", f"Say why, in 1 to {REASON_MAX} characters")
    fleet = call.control.fleet
    before: Any = fleet.gateway("GET", "/ExchangeWideControls").document
    kept = ("suspended", "reasons")
    with call.acting(action, "exchange", before={name: before[name] for name in kept}, reason=reason) as done:
        said: Any = fleet.gateway("PUT", path, key=call.idempotency_key).document
        done["after"] = {name: said[name] for name in kept}
    return Answer(_trading(call, said))


def _trading(call: Call, said: Any) -> Trading:
    with call.control.store.transaction() as db:
        last = audit.latest(db, (SUSPEND, RESUME))
    note, who, at_ms = (last["detail"].get("reason", ""), last["who"], last["at_ms"]) if last else ("", "", None)
    return Trading(said["suspended"], said["reasons"], said["messageIndex"], note, who, at_ms)


def _stores(call: Call) -> list[Store]:
    said: Any = call.control.fleet.gateway("GET", "/MessageStore").document
    return sorted((_view(one) for one in said), key=lambda store: store.name)


def _find(call: Call) -> Store | None:
    name = _name(call)
    return next((one for one in _stores(call) if one.name == name), None)


def _store(call: Call) -> Store:
    found = _find(call)
    if found is None:
        raise Problem(404, "not_found", f"There is no message store {_name(call)[:64]!r}; GET /api/v1/stores lists them")
    return found


def _name(call: Call) -> str:
    return call.path["store"].strip('"')


def _parameter(name: str) -> str:
    return name or '""'


def _view(said: Any) -> Store:
    return Store(
        said["storeId"], said["firstItemIndex"], said["lastItemIndex"], said["itemCount"], said["oldestItemAgeMillis"],
        said["maximumUnpurgedItemAgeMillis"], said["suspended"], said["consumers"],
    )  # fmt: skip


ONE = "/api/v1/stores/{store}"
ASKED = (400, 404, 405, 409, 422, 429)
FORCE = (("force", "1 = although it holds messages or has consumers"),)
ROUTES = (
    Route("GET", "/api/v1/stores", "inspect", list_stores, gives=list[Store], may_answer=ASKED),
    Route("GET", ONE, "inspect", read_store, gives=Store, may_answer=ASKED),
    Route("PUT", ONE, "exchange", create_store, gives=Store, may_answer=ASKED),
    Route("DELETE", ONE, "exchange", delete_store, status=204, may_answer=ASKED, query=FORCE, destroys=True),
    Route("POST", f"{ONE}/purge", "exchange", purge_store, PurgeBody, PurgedStore, may_answer=ASKED, destroys=True),
    Route("PUT", f"{ONE}/suspension", "exchange", set_suspension, SuspensionBody, Store, may_answer=ASKED),
    Route("GET", "/api/v1/trading", "inspect", read_trading, gives=Trading, may_answer=ASKED),
    Route("POST", "/api/v1/trading/suspend", "exchange", suspend_trading, ReasonBody, Trading, may_answer=ASKED, destroys=True),
    Route("POST", "/api/v1/trading/resume", "exchange", resume_trading, ReasonBody, Trading, may_answer=ASKED, destroys=True),
)
