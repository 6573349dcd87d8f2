"""Signing in and out, and one-time links: /api/v1/sign-in, /sign-out, /links, /password-reset."""

from __future__ import annotations

import msgspec

from scp.api.calls import Answer, Body, Call, Route
from scp.problems import Problem
from scp.security.rules import HALF_OPEN, PUBLIC
from scp.security.sign_in import Way


class SignInBody(Body):
    """Name and password."""

    username: str
    password: str


class CodeBody(Body):
    """Six digits of an app, or a recovery code."""

    code: str


class LinkBody(Body):
    """A link's secret, as it stands behind the # of its address."""

    link: str


class UseLinkBody(Body):
    """A link's secret and the new password; `username` for the first administrator only."""

    link: str
    password: str
    username: str | None = None


class ForgottenBody(Body):
    """Who forgot their password."""

    username: str


class Ways(msgspec.Struct):
    """How one may sign in: by password always, and at the provider of that name when there is one (GET /sign-in/oidc)."""

    provider: str | None


class Step(msgspec.Struct):
    """`next` = done, or second-factor: then POST /api/v1/sign-in/code within five minutes."""

    next: str


class LinkAbout(msgspec.Struct):
    """What a link is for (welcome, invitation, reset), and whose it is; null = whoever comes first."""

    purpose: str
    username: str | None


class State(msgspec.Struct):
    """Where signing in stands: done or second-factor, and the word that goes into X-CSRF-Token."""

    next: str
    csrf: str


def state(call: Call) -> Answer:
    """Say how far signing in is."""
    half_open = call.me.session is not None and call.me.session.half_open
    return Answer(State("second-factor" if half_open else "done", call.me.csrf))


def ways(call: Call) -> Answer:
    """Say how one may sign in."""
    return Answer(Ways(call.control.provider_name if call.control.provider else None))


def sign_in(call: Call) -> Answer:
    """Sign in by name and password; the session's cookie is set."""
    body = call.body(SignInBody)
    return _in(call.control.sign_in.by_password(body.username, body.password, call.asked))


def give_code(call: Call) -> Answer:
    """Complete signing in by the second factor."""
    session = call.me.session
    if session is None or not session.half_open:
        raise Problem(409, "signed_in", "You are signed in already")
    return _in(call.control.sign_in.by_code(session, call.body(CodeBody).code, call.asked))


def sign_out(call: Call) -> Answer:
    """End this session; its sockets close within two seconds."""
    if call.me.session is None:
        raise Problem(409, "no_session", "A token has no session; DELETE /api/v1/me/tokens/{token} revokes it")
    call.control.sign_in.out(call.me.session, call.me.name, call.asked)
    call.control.announce()
    return Answer(status=204, secret="")


def about_link(call: Call) -> Answer:
    """Say what a one-time link is for; it stays unused."""
    return Answer(call.control.sign_in.about(call.body(LinkBody).link, call.asked))


def use_link(call: Call) -> Answer:
    """Set a password by a one-time link, and sign in."""
    body = call.body(UseLinkBody)
    way = call.control.sign_in.by_link(body.link, body.username, body.password, call.asked)
    call.control.welcome_file.unlink(missing_ok=True)
    call.control.announce()
    return _in(way)


def forgotten(call: Call) -> Answer:
    """Have a reset link sent, if there is such a person with an e-mail address; the answer is the same if not."""
    call.control.send_reset(call.body(ForgottenBody).username, call.asked)
    return Answer(status=202)


def _in(way: Way) -> Answer:
    return Answer(Step("second-factor" if way.half_open else "done"), secret=way.secret)


ROUTES = (
    Route("GET", "/api/v1/sign-in", HALF_OPEN, state, gives=State),
    Route("POST", "/api/v1/sign-in", PUBLIC, sign_in, SignInBody, Step, may_answer=(401, 429)),
    Route("GET", "/api/v1/sign-in/ways", PUBLIC, ways, gives=Ways),
    Route("POST", "/api/v1/sign-in/code", HALF_OPEN, give_code, CodeBody, Step, may_answer=(409, 429)),
    Route("POST", "/api/v1/sign-out", HALF_OPEN, sign_out, status=204, may_answer=(409,)),
    Route("POST", "/api/v1/links/about", PUBLIC, about_link, LinkBody, LinkAbout, may_answer=(401, 429)),
    Route("POST", "/api/v1/links/use", PUBLIC, use_link, UseLinkBody, Step, may_answer=(401, 422, 429)),
    Route("POST", "/api/v1/password-reset", PUBLIC, forgotten, ForgottenBody, status=202, may_answer=(429,)),
)
