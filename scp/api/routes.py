"""All routes of the API, and the way a request takes through one: body, handler, answer, cookie, problems."""

from __future__ import annotations

from typing import Any

import msgspec
import structlog

from scp.api import (
    clients,
    company,
    compat,
    components,
    exchange,
    identity,
    layouts,
    letters,
    listeners,
    me,
    paper,
    people,
    queues,
    signing,
    stores,
    stream_keys,
    streams,
)  # fmt: skip
from scp.api.calls import Answer, Call, Route
from scp.api.openapi import document
from scp.api.repeats import once
from scp.control import Control
from scp.problems import CONTENT_TYPE, Problem, too_many
from scp.security.door import DATABASE_AWAY
from scp.security.people import Refused
from scp.security.rules import PAGES, PUBLIC, Rules
from scp.security.sign_in import Wrong
from scp.security.throttle import REQUESTS, TooMany
from scp.store.database import StoreUnavailable

log = structlog.get_logger()


def describe(call: Call) -> Answer:
    """Describe this API (OpenAPI 3.1)."""
    return Answer(document(ROUTES))


ROUTES: tuple[Route, ...] = (
    *signing.ROUTES,
    *me.ROUTES,
    *identity.ROUTES,
    *people.ROUTES,
    *layouts.ROUTES,
    *stream_keys.ROUTES,
    *components.ROUTES,
    *listeners.ROUTES,
    *queues.ROUTES,
    *clients.ROUTES,
    *stores.ROUTES,
    *exchange.ROUTES,
    *letters.ROUTES,
    *paper.ROUTES,
    *streams.ROUTES,
    *company.ROUTES,
    *compat.ROUTES,
    Route("GET", "/openapi.json", PUBLIC, describe, gives=dict),
)


def rules() -> Rules:
    """Return who may use which route, the pages included."""
    return Rules((*PAGES, *(route.rule for route in ROUTES)))


def answer(
    route: Route, control: Control, environ: dict[str, Any], path: dict[str, str]
) -> tuple[int, list[tuple[str, str]], bytes, Answer | None]:
    """Run one request; return status, headers, body, and what the handler gave (None: a problem)."""
    asked = environ["tapeline.asked"]
    try:
        raw = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0)) if route.rule.changes else b""
        key = environ.get("HTTP_IDEMPOTENCY_KEY", "") if route.destroys or route.keyed else ""
        query, if_match = environ.get("QUERY_STRING", ""), environ.get("HTTP_IF_MATCH", "")
        call = Call(
            control, environ.get("tapeline.caller"), asked, path, query, raw, if_match, key, environ.get("HTTP_IF_NONE_MATCH", "")
        )
        if route.rule.changes and call.caller is not None:
            control.guard.count((REQUESTS, (str(call.caller.user_id), call.caller.token_id)))
        given = once(route, call) if key and route.destroys else route.handler(call)
    except Exception as error:
        problem = problem_of(error)
        if problem is None:
            log.exception("request_failed", route=route.path, request_id=asked.request_id)
            problem = Problem(500, "internal", "Something broke here; the log has it under this request_id")
        return problem.status, [("Content-Type", CONTENT_TYPE), *problem.more], problem.body(asked.request_id), None
    status = given.status if given.status != 200 else route.status
    if isinstance(given.document, bytes):
        body = given.document
    else:
        body = b"" if given.document is None else msgspec.json.encode(given.document)
    headers = [*given.headers, ("X-Request-Id", asked.request_id)]
    if given.document is not None:
        headers.append(("Content-Type", given.content_type))
    return status, headers, body, given


def problem_of(error: Exception) -> Problem | None:
    """Return the problem that an exception of ours is, None for one that nobody foresaw."""
    if isinstance(error, Problem):
        return error
    if isinstance(error, TooMany):
        return too_many(error.after_s)
    if isinstance(error, Wrong):
        return Problem(401, "wrong", str(error))
    if isinstance(error, Refused):
        return Problem(422, error.code, str(error))
    if isinstance(error, StoreUnavailable):
        log.error("database_unavailable", error=str(error))
        return DATABASE_AWAY
    return None
