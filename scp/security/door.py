"""Finds out who a request is from and lets it through where a rule says so: cookie or token, scope, proof of origin.

Invariant: no route answers without a rule; a change by cookie comes from our own page, with a word that only the session has;
a token never opens a session; a half-open session does nothing but complete itself.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterable
from dataclasses import dataclass
from http.cookies import CookieError, SimpleCookie
from typing import Any
from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

import structlog

from scp.problems import Problem
from scp.security import api_tokens, sessions
from scp.security.audit import Asked
from scp.security.forms import csrf_of, same
from scp.security.roles import scopes_of
from scp.security.rules import HALF_OPEN, PUBLIC, Rule, Rules
from scp.security.sessions import Lives, Session
from scp.store.database import Store, StoreUnavailable

BODY_BYTES_MAX = 65_536
CSRF_HEADER = "HTTP_X_CSRF_TOKEN"

DATABASE_AWAY = Problem(
    503, "database_unavailable", "The database does not answer; try again in a moment", [("Retry-After", "5")]
)

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks, by a session or by a token, and what they may."""

    user_id: int
    username: str
    role: str
    scopes: frozenset[str]
    session: Session | None = None
    csrf: str = ""
    token_id: str = ""

    @property
    def name(self) -> str:
        """Return how the audit log calls them."""
        return f"{self.username} (token {self.token_id})" if self.token_id else self.username


class Door:
    """A WSGI middleware between the gate and the app: puts `tapeline.caller` and `tapeline.asked` into the environ."""

    def __init__(self, app: WSGIApplication, rules: Rules, store: Store, lives: Lives, cookie: str) -> None:
        self._app = app
        self._rules = rules
        self._store = store
        self._lives = lives
        self._cookie = cookie

    def __call__(self, environ: WSGIEnvironment, start: StartResponse) -> Iterable[bytes]:
        asked = Asked(
            str(environ.get("tapeline.address") or environ.get("REMOTE_ADDR", "")), time.time(), uuid.uuid4().hex,
            environ.get("HTTP_USER_AGENT", "")[:200],
        )  # fmt: skip
        environ["tapeline.asked"] = asked
        try:
            self._check(environ, asked)
        except Problem as problem:
            return self._refuse(problem, environ, start, asked)
        except StoreUnavailable as error:
            log.error("database_unavailable", error=str(error), request_id=asked.request_id)
            return DATABASE_AWAY.answer(start, asked.request_id)
        given: Iterable[bytes] = self._app(environ, start)
        return given

    def _check(self, environ: WSGIEnvironment, asked: Asked) -> None:
        method, path = environ["REQUEST_METHOD"], environ["PATH_INFO"]
        rule = self._rules.find(method, path)
        if rule is None:
            if allowed := self._rules.methods(path):
                words = f"{path} takes {', '.join(allowed)}"
                raise Problem(405, "method_not_allowed", words, [("Allow", ", ".join(allowed))])
            raise Problem(404, "not_found", "There is nothing here; /openapi.json lists what there is")
        if rule.need == PUBLIC and not rule.changes:
            return
        _check_body(environ, rule)
        secret = secret_of(environ, self._cookie)
        bearer = environ.get("HTTP_AUTHORIZATION", "")
        caller = self._caller(secret, bearer, asked)
        environ["tapeline.caller"] = caller
        if rule.need == PUBLIC:
            return
        _permit(caller, rule, bearer)
        if (
            rule.changes
            and caller is not None
            and caller.session is not None
            and not same(environ.get(CSRF_HEADER, ""), caller.csrf)
        ):
            raise Problem(403, "csrf", "Send the word `csrf` of GET /api/v1/me in the header X-CSRF-Token, or use an API token")

    def _caller(self, secret: str | None, authorization: str, asked: Asked) -> Caller | None:
        """Return who asks. A token counts alone: a cookie beside it opens nothing."""
        if not authorization and not secret:
            return None
        with self._store.transaction() as db:
            if authorization:
                scheme, _, text = authorization.partition(" ")
                token = api_tokens.find(db, text.strip(), asked.now_ms) if scheme.lower() == "bearer" else None
                if token is None:
                    return None
                may = scopes_of(token.role, token.scopes)
                return Caller(token.user_id, token.username, token.role, may, token_id=token.public_id)
            session = sessions.find(db, secret or "", asked.now_ms, self._lives)
            if session is None:
                return None
            may = frozenset({HALF_OPEN}) if session.half_open else scopes_of(session.role) | {HALF_OPEN}
            return Caller(session.user_id, session.username, session.role, may, session, csrf_of(secret or ""))

    def _refuse(self, problem: Problem, environ: WSGIEnvironment, start: StartResponse, asked: Asked) -> Iterable[bytes]:
        page = environ["PATH_INFO"] in ("/", "/index", "/docs", "/operate") and problem.status == 401
        if page:
            start("303 See Other", [("Location", "/sign-in"), ("Content-Length", "0")])
            return [b""]
        return problem.answer(start, asked.request_id)


def _permit(caller: Caller | None, rule: Rule, bearer: str) -> None:
    if caller is None:
        words = (
            "This token is wrong, has ended, or was revoked"
            if bearer
            else "Sign in, or send an API token: Authorization: Bearer …"
        )
        raise Problem(401, "unauthorized", words, [("WWW-Authenticate", "Bearer")])
    if caller.session is not None and caller.session.half_open and rule.need != HALF_OPEN:
        raise Problem(401, "second_factor", "Give the second factor first", [("WWW-Authenticate", "Bearer")])
    if rule.need not in caller.scopes:
        who = "This token" if caller.token_id else f"The role {caller.role}"
        raise Problem(403, "forbidden", f"{who} does not have the scope {rule.need}; ask an administrator")


def _check_body(environ: WSGIEnvironment, rule: Rule) -> None:
    if not rule.changes:
        return
    length = environ.get("CONTENT_LENGTH") or "0"
    if environ.get("HTTP_TRANSFER_ENCODING") or not (length.isascii() and length.isdigit()):
        raise Problem(411, "length_required", "Send the body whole, with its Content-Length")
    if int(length) > BODY_BYTES_MAX:
        raise Problem(413, "too_large", f"A body has {BODY_BYTES_MAX} bytes at most", [("Connection", "close")])
    kind = environ.get("CONTENT_TYPE", "").partition(";")[0].strip().lower()
    if int(length) and kind != "application/json":
        raise Problem(415, "json_only", "Send JSON, with Content-Type: application/json")
    if not int(length) and kind not in ("", "application/json"):
        raise Problem(415, "json_only", "Send JSON, with Content-Type: application/json")


def secret_of(environ: WSGIEnvironment, cookie: str) -> str | None:
    """Return the session's secret of the cookie, None when there is none that can be read."""
    try:
        found: Any = SimpleCookie(environ.get("HTTP_COOKIE", "")).get(cookie)
    except CookieError:
        return None
    return found.value if found is not None and 0 < len(found.value) <= 128 else None
