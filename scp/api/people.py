"""People, for administrators: /api/v1/users, and the audit log: /api/v1/audit."""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from scp.api.calls import Answer, Body, Call, Route, whole
from scp.fleet.paper import Paper, PaperLeft
from scp.problems import Problem
from scp.security import api_tokens, audit, links, people, sessions
from scp.security.account import take_factor
from scp.security.audit import note
from scp.security.roles import scopes_of
from scp.store import paper_accounts

PAGE = 100


class NewUser(Body):
    """Somebody to invite."""

    username: str
    role: str
    email: str = ""


class UserChange(Body):
    """What is to be changed; what is left out stays. `paper_orders`: of somebody who may not trade any more."""

    role: str | None = None
    disabled: bool | None = None
    email: str | None = None
    paper_orders: Literal["cancel", "keep"] = "cancel"


class User(msgspec.Struct):
    """Somebody. `invited` = has not set a password yet."""

    id: int
    username: str
    email: str
    role: str
    created_ms: int
    disabled: bool
    invited: bool
    second_factor: bool


class UserChanged(User):
    """Somebody after a change. `paper`: what became of their paper account when they may not trade any more, else null."""

    paper: PaperLeft | None = None


class Users(msgspec.Struct):
    """A page of people; `next` goes into `after` of the next request, null = the end."""

    users: list[User]
    next: int | None


class Invited(msgspec.Struct):
    """Somebody new, and the address at which they set their password within three days; it is shown this once."""

    user: User
    link: str


class Link(msgspec.Struct):
    """A one-time address for a new password, good for 15 minutes; it is shown this once."""

    link: str


class Entry(msgspec.Struct):
    """An entry of the audit log."""

    id: int
    at_ms: int
    who: str
    action: str
    target: str
    detail: dict[str, Any]
    address: str
    request_id: str
    previous: str
    hash: str


class Entries(msgspec.Struct):
    """A page of the audit log, the newest first; `next` goes into `before` of the next request, null = the end."""

    entries: list[Entry]
    next: int | None


def list_users(call: Call) -> Answer:
    """List people in the order of their ids."""
    size = max(1, call.number("limit", PAGE, PAGE))
    with call.control.store.transaction() as db:
        found = people.listed(db, call.number("after", 0, 1 << 62), size + 1)
    more = len(found) > size
    return Answer(Users([User(**one) for one in found[:size]], found[size - 1]["id"] if more else None))


def invite(call: Call) -> Answer:
    """Add somebody; they set their password at the link."""
    body = call.body(NewUser)
    with call.control.store.transaction() as db:
        user_id = people.create(db, body.username, body.role, body.email, call.asked.now_ms)
        row = people.by_id(db, user_id)
        assert row is not None
        note(db, call.asked, call.me.name, "user.invite", row.username, role=row.role)
        secret = links.make(db, "invitation", user_id, call.asked.now_ms, call.control.draw)
        return Answer(Invited(User(**people.shown(row)), call.control.link(secret)), 201)


def read_user(call: Call) -> Answer:
    """Show somebody."""
    with call.control.store.transaction() as db:
        row = people.by_id(db, call.id("user"))
        if row is None:
            raise _nobody(call)
        return Answer(User(**people.shown(row)))


def change_user(call: Call) -> Answer:
    """Change somebody's role, access or address; whose rights change is signed out everywhere."""
    body = call.body(UserChange)
    with call.control.store.transaction() as db:
        user_id = call.id("user")
        before = people.by_id(db, user_id)
        account = paper_accounts.find(db, user_id)
        traded = before is not None and not before.disabled_ms and "trade" in scopes_of(before.role)
        try:
            after = people.change(db, user_id, call.me.name, call.asked, body.role, body.disabled, body.email)
        except KeyError:
            raise _nobody(call) from None
    call.control.announce()
    trades = not after["disabled"] and "trade" in scopes_of(after["role"])
    left = _closed(call, account, body.paper_orders == "cancel") if account is not None and traded and not trades else None
    return Answer(UserChanged(**after, paper=left))


def cancel_user_orders(call: Call) -> Answer:
    """Cancel all open paper orders of somebody, which were kept or could not be cancelled when they lost the right to trade."""
    with call.control.store.transaction() as db:
        if people.by_id(db, call.id("user")) is None:
            raise _nobody(call)
        account = paper_accounts.find(db, call.id("user"))
    if account is None:
        raise Problem(409, "no_paper_account", "This person has no paper account")
    left = _closed(call, account, cancel=True)
    if left.problem:
        raise Problem(503, "paper_orders_left", left.problem, [("Retry-After", "5")])
    return Answer(left)


def _closed(call: Call, account: int, cancel: bool) -> PaperLeft:
    """Cancel the orders of an account whose owner may not trade any more, or only count them; what goes wrong is said.

    The right to trade has ended already, whatever the exchange says: nobody keeps it because something is away.
    """
    paper = Paper(call.control.fleet, call.control.paper_deposit)
    try:
        if not cancel:
            return paper.left(account)
        with call.acting("paper.cancel_all", str(account)) as done:
            left = paper.cancel_all(account, f"paper-end-{call.asked.request_id}")
            done["after"] = msgspec.to_builtins(left)
        return left
    except Problem as problem:
        words = f"{problem.detail} The orders of the paper account {account} are as they were: cancel them when it answers"
        return PaperLeft(account, 0, -1, -1, words)


def remove_user(call: Call) -> Answer:
    """Take somebody out, with sessions, tokens and open paper orders; the audit log keeps the name.

    Orders that could not be cancelled stand in the audit log with their account (`paper.cancel_all.failed`).
    """
    user_id, keep = call.id("user"), call.flag("keep_paper_orders")
    with call.control.store.transaction() as db:
        account = paper_accounts.find(db, user_id)
        try:
            people.remove(db, user_id, call.me.name, call.asked)
        except KeyError:
            raise _nobody(call) from None
    call.control.announce()
    if account is not None and not keep:
        _closed(call, account, cancel=True)
    return Answer(status=204)


def reset_user(call: Call) -> Answer:
    """Make a link by which somebody sets a new password; for who has no e-mail address here."""
    with call.control.store.transaction() as db:
        row = people.by_id(db, call.id("user"))
        if row is None:
            raise _nobody(call)
        purpose = "reset" if row.password_hash else "invitation"
        note(db, call.asked, call.me.name, f"user.{purpose}_link", row.username)
        return Answer(Link(call.control.link(links.make(db, purpose, row.id, call.asked.now_ms, call.control.draw))), 201)


def drop_user_factor(call: Call) -> Answer:
    """Take somebody's second factor off: they lost it and their recovery codes. They are signed out everywhere."""
    with call.control.store.transaction() as db:
        row = people.by_id(db, call.id("user"))
        if row is None:
            raise _nobody(call)
        take_factor(db, row.id)
        sessions.end_all(db, row.id, call.asked.now_ms)
        note(db, call.asked, call.me.name, "user.second_factor_drop", row.username)
    call.control.announce()
    return Answer(status=204)


def kick_user(call: Call) -> Answer:
    """End all sessions of somebody; their sockets close within two seconds."""
    with call.control.store.transaction() as db:
        row = people.by_id(db, call.id("user"))
        if row is None:
            raise _nobody(call)
        ended = sessions.end_all(db, row.id, call.asked.now_ms)
        note(db, call.asked, call.me.name, "user.sign_out", row.username, sessions=len(ended))
    call.control.announce()
    return Answer(status=204)


def revoke_any_token(call: Call) -> Answer:
    """Revoke anybody's token."""
    with call.control.store.transaction() as db:
        name = api_tokens.revoke(db, call.path["token"], None, call.asked.now_ms)
        if name is None:
            raise Problem(404, "not_found", "There is no such token")
        note(db, call.asked, call.me.name, "token.revoke", call.path["token"], name=name)
    return Answer(status=204)


def list_audit(call: Call) -> Answer:
    """Show the audit log, the newest entries first."""
    size = max(1, call.number("limit", PAGE, audit.PAGE_MAX))
    before = call.number("before", 0, 1 << 62) or None
    with call.control.store.transaction() as db:
        found = audit.page(db, before, size)
    return Answer(Entries([Entry(**one) for one in found], found[-1]["id"] if found and found[-1]["id"] > 1 else None))


def export_audit(call: Call) -> Answer:
    """Export the audit log as lines of JSON, the oldest first; `python -m scp audit verify FILE` checks them."""
    after = whole(dict(pair.partition("=")[::2] for pair in call.query.split("&")).get("after", "0") or "0", "after", 1 << 62)
    with call.control.store.transaction() as db:
        lines = [msgspec.json.encode(entry) for entry in audit.everything(db) if entry["id"] > after]
    return Answer(b"".join(line + b"\n" for line in lines), content_type="application/x-ndjson")


def _nobody(call: Call) -> Problem:
    return Problem(404, "not_found", f"There is nobody with the id {call.path['user'][:40]}")


PAGING = (("limit", "how many"),)
ROUTES = (
    Route(
        "GET",
        "/api/v1/users",
        "people",
        list_users,
        gives=Users,
        query=(*PAGING, ("after", "`next` of the page before")),
        may_answer=(400,),
    ),
    Route("POST", "/api/v1/users", "people", invite, NewUser, Invited, 201, (422,)),
    Route("GET", "/api/v1/users/{user}", "people", read_user, gives=User, may_answer=(404,)),
    Route("PATCH", "/api/v1/users/{user}", "people", change_user, UserChange, UserChanged, may_answer=(404, 422)),
    Route(
        "DELETE",
        "/api/v1/users/{user}",
        "people",
        remove_user,
        status=204,
        may_answer=(404, 422),
        query=(("keep_paper_orders", "1 = their open paper orders stay on the exchange"),),
    ),
    Route("DELETE", "/api/v1/users/{user}/paper-orders", "people", cancel_user_orders, gives=PaperLeft, may_answer=(404, 409)),
    Route("POST", "/api/v1/users/{user}/link", "people", reset_user, gives=Link, status=201, may_answer=(404,)),
    Route("DELETE", "/api/v1/users/{user}/second-factor", "people", drop_user_factor, status=204, may_answer=(404,)),
    Route("DELETE", "/api/v1/users/{user}/sessions", "people", kick_user, status=204, may_answer=(404,)),
    Route("DELETE", "/api/v1/tokens/{token}", "people", revoke_any_token, status=204, may_answer=(404,)),
    Route(
        "GET",
        "/api/v1/audit",
        "audit",
        list_audit,
        gives=Entries,
        query=(*PAGING, ("before", "`next` of the page before")),
        may_answer=(400,),
    ),
    Route(
        "GET",
        "/api/v1/audit/export",
        "audit",
        export_audit,
        query=(("after", "id of the last entry you have"),),
        may_answer=(400,),
    ),
)
