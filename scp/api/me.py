"""One's own account: /api/v1/me, its password, second factor, sessions and tokens."""

from __future__ import annotations

import msgspec

from scp.api.calls import Answer, Body, Call, Route
from scp.problems import Problem
from scp.security import api_tokens, people, sessions
from scp.security.account import NewFactor
from scp.security.audit import note
from scp.security.roles import SCOPES, TOKEN_SCOPES

DAY_MS = 86_400_000


class PasswordBody(Body):
    """The present password and the new one."""

    old: str
    new: str


class ConfirmBody(Body):
    """The present password."""

    password: str


class FactorBody(Body):
    """The first code of the app."""

    code: str


class TokenBody(Body):
    """A new token: what it is for, what it may, and for how many days."""

    name: str
    scopes: list[str]
    days: int = 90


class Me(msgspec.Struct):
    """Who you are. `csrf` goes into the header X-CSRF-Token of every change that a page makes; null for tokens."""

    username: str
    role: str
    scopes: list[str]
    second_factor: bool
    csrf: str | None


class SessionShown(msgspec.Struct):
    """A session: since when, last used, until when (ms since the epoch), from where."""

    id: str
    created_ms: int
    seen_ms: int
    ends_ms: int
    address: str
    agent: str
    this: bool


class TokenShown(msgspec.Struct):
    """A token without its secret; times in ms since the epoch."""

    id: str
    name: str
    scopes: list[str]
    created_ms: int
    ends_ms: int
    used_ms: int | None


class NewToken(msgspec.Struct):
    """A new token; `token` is shown this once."""

    id: str
    token: str
    ends_ms: int


class Codes(msgspec.Struct):
    """Recovery codes, each good once; they are shown this once."""

    recovery_codes: list[str]


def me(call: Call) -> Answer:
    """Say who you are and what you may."""
    with call.control.store.transaction() as db:
        row = people.by_id(db, call.me.user_id)
    scopes = sorted(call.me.scopes & set(SCOPES))
    return Answer(Me(call.me.username, call.me.role, scopes, bool(row and row.totp_secret), call.me.csrf or None))


def change_password(call: Call) -> Answer:
    """Change the password; all other sessions end."""
    body = call.body(PasswordBody)
    secret = call.control.account.change_password(person(call), body.old, body.new, call.asked)
    call.control.announce()
    return Answer(status=204, secret=secret)


def offer_factor(call: Call) -> Answer:
    """Get a new second factor for an app: as text, address and QR code. It counts once its first code was given."""
    return Answer(call.control.account.offer_factor(person(call), call.body(ConfirmBody).password, call.asked), 201)


def set_factor(call: Call) -> Answer:
    """Set the offered second factor by its first code; gives recovery codes."""
    return Answer(Codes(call.control.account.set_factor(person(call), call.body(FactorBody).code, call.asked)))


def drop_factor(call: Call) -> Answer:
    """Take the second factor off."""
    call.control.account.drop_factor(person(call), call.body(ConfirmBody).password, call.asked)
    return Answer(status=204)


def list_sessions(call: Call) -> Answer:
    """List your sessions, the newest first."""
    own = call.me.session
    with call.control.store.transaction() as db:
        found = sessions.living(db, call.me.user_id, call.asked.now_ms, call.control.lives)
    return Answer([SessionShown(**one, this=own is not None and own.public_id == one["id"]) for one in found])


def end_session(call: Call) -> Answer:
    """End one of your sessions; its sockets close within two seconds."""
    wanted = call.path["session"]
    with call.control.store.transaction() as db:
        mine = {one["id"] for one in sessions.living(db, call.me.user_id, call.asked.now_ms, call.control.lives)}
        if wanted not in mine or not sessions.end(db, [wanted], call.asked.now_ms):
            raise Problem(404, "not_found", "You have no such session")
        note(db, call.asked, call.me.name, "session.end", wanted)
    call.control.announce()
    return Answer(status=204)


def list_tokens(call: Call) -> Answer:
    """List your tokens."""
    with call.control.store.transaction() as db:
        return Answer([TokenShown(**one) for one in api_tokens.listed(db, call.me.user_id, call.asked.now_ms)])


def make_token(call: Call) -> Answer:
    """Make a token for scripts; it may at most what you may, and is shown this once."""
    body, user_id = call.body(TokenBody), person(call)
    name = body.name.strip()
    if not 1 <= len(name) <= 64 or not name.isprintable():
        raise Problem(422, "bad_name", "A name has 1 to 64 characters")
    if not 1 <= body.days <= api_tokens.DAYS_MAX:
        raise Problem(422, "bad_days", f"days is from 1 to {api_tokens.DAYS_MAX}")
    wanted = frozenset(body.scopes)
    if not wanted or wanted - (call.me.scopes & TOKEN_SCOPES):
        raise Problem(422, "bad_scopes", f"scopes are some of {', '.join(sorted(call.me.scopes & TOKEN_SCOPES))}")
    ends_ms = call.asked.now_ms + body.days * DAY_MS
    with call.control.store.transaction() as db:
        try:
            made = api_tokens.make(db, user_id, name, wanted, ends_ms, call.asked.now_ms, call.control.draw)
        except api_tokens.TooManyTokens:
            raise Problem(409, "too_many_tokens", f"You have {api_tokens.PER_PERSON_MAX} tokens; revoke one first") from None
        note(db, call.asked, call.me.name, "token.make", made[0], name=name, scopes=sorted(wanted), days=body.days)
    return Answer(NewToken(*made, ends_ms), 201)


def revoke_token(call: Call) -> Answer:
    """Revoke one of your tokens; it is refused from now on."""
    with call.control.store.transaction() as db:
        name = api_tokens.revoke(db, call.path["token"], call.me.user_id, call.asked.now_ms)
        if name is None:
            raise Problem(404, "not_found", "You have no such token")
        note(db, call.asked, call.me.name, "token.revoke", call.path["token"], name=name)
    return Answer(status=204)


def person(call: Call) -> int:
    """Return who asks, if by a session.  Raises: Problem 403: a token changes no account."""
    if call.me.session is None:
        raise Problem(403, "session_needed", "A token cannot do this; sign in on the page")
    return call.me.user_id


ROUTES = (
    Route("GET", "/api/v1/me", "account", me, gives=Me),
    Route("PUT", "/api/v1/me/password", "account", change_password, PasswordBody, status=204, may_answer=(422, 429)),
    Route("POST", "/api/v1/me/second-factor", "account", offer_factor, ConfirmBody, NewFactor, 201, (429,)),
    Route("PUT", "/api/v1/me/second-factor", "account", set_factor, FactorBody, Codes, may_answer=(429,)),
    Route("DELETE", "/api/v1/me/second-factor", "account", drop_factor, ConfirmBody, status=204, may_answer=(429,)),
    Route("GET", "/api/v1/me/sessions", "account", list_sessions, gives=list[SessionShown]),
    Route("DELETE", "/api/v1/me/sessions/{session}", "account", end_session, status=204, may_answer=(404,)),
    Route("GET", "/api/v1/me/tokens", "account", list_tokens, gives=list[TokenShown]),
    Route("POST", "/api/v1/me/tokens", "account", make_token, TokenBody, NewToken, 201, (409, 422)),
    Route("DELETE", "/api/v1/me/tokens/{token}", "account", revoke_token, status=204, may_answer=(404,)),
)
