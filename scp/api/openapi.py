"""Writes the API's description (OpenAPI 3.1) from the table of routes, so that it says what is there."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import msgspec

from scp.api.calls import Route
from scp.problems import CONTENT_TYPE, PHRASES
from scp.security.roles import SCOPES
from scp.security.rules import HALF_OPEN, PUBLIC
from service import VERSION

PROBLEM = {
    "type": "object",
    "required": ["type", "title", "status", "code", "detail", "request_id"],
    "properties": {
        "type": {"type": "string"}, "title": {"type": "string"}, "status": {"type": "integer"},
        "code": {"type": "string", "description": "for programs"},
        "detail": {"type": "string", "description": "what to do, for people"}, "request_id": {"type": "string"},
    },
}  # fmt: skip


WHOLE = {"type": "integer", "minimum": 0}
IDEMPOTENCY_KEY = {
    "name": "Idempotency-Key", "in": "header", "schema": {"type": "string", "maxLength": 128, "pattern": "^[!-~]+$"},
    "description": "with the same one, a request that is sent again is answered as the first time, for a day",
}  # fmt: skip
ORDER_KEY = {
    **IDEMPOTENCY_KEY, "required": True,
    "description": "a new one for each order: what is sent again with it is done once and answered alike, for three days",
}  # fmt: skip
IF_MATCH = {
    "name": "If-Match", "in": "header", "schema": {"type": "string"},
    "description": "the ETag of what you have read: 412 when somebody has changed it since, 428 without one",
}  # fmt: skip


def document(routes: Sequence[Route]) -> dict[str, Any]:
    """Return the whole description."""
    kinds = [kind for route in routes for kind in (route.takes, route.gives) if kind not in (None, dict)]
    schemas, components = msgspec.json.schema_components(kinds, ref_template="#/components/schemas/{name}")
    by_kind = {id(kind): schema for kind, schema in zip(kinds, schemas, strict=True)}
    paths: dict[str, Any] = {}
    for route in routes:
        paths.setdefault(route.path, {})[route.method.lower()] = operation(route, by_kind)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Tapeline control plane", "version": VERSION,
            "description": "Scripts send `Authorization: Bearer tapeline_…` (POST /api/v1/me/tokens makes one). Pages send their "
            "session's cookie and, with changes, the header X-CSRF-Token. Times are ms since the epoch. Scopes: "
            + "; ".join(f"`{name}` {about}" for name, about in SCOPES.items()) + ".",
        },
        "paths": paths,
        "components": {
            "schemas": {**components, "Problem": PROBLEM},
            "securitySchemes": {
                "token": {"type": "http", "scheme": "bearer"},
                "session": {"type": "apiKey", "in": "cookie", "name": "tapeline"},
            },
        },
    }  # fmt: skip


def operation(route: Route, by_kind: dict[int, Any]) -> dict[str, Any]:
    """Return the description of one route."""
    about = (route.handler.__doc__ or "").strip()
    made: dict[str, Any] = {
        "operationId": route.handler.__name__,
        "summary": about.partition("\n")[0],
        "tags": [route.path.split("/")[3] if route.path.count("/") > 2 else "api"],
        "parameters": [
            {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}
            for name in re.findall(r"\{(\w+)\}", route.path)
        ]
        + [
            {"name": name, "in": "query", "description": text, "schema": {"type": "string"} if kind else WHOLE}
            for name, text, *kind in route.query
        ]
        + [
            header
            for header, wanted in ((IDEMPOTENCY_KEY, route.destroys), (ORDER_KEY, route.keyed), (IF_MATCH, route.matches))
            if wanted
        ],
        "responses": {str(route.status): _response(route, by_kind)},
        "security": []
        if route.need == PUBLIC
        else [{"session": []}]
        if route.need == HALF_OPEN
        else [{"token": []}, {"session": []}],
    }
    if route.need not in (PUBLIC, HALF_OPEN):
        made["description"] = f"{about} Needs the scope `{route.need}`."
    if route.takes is not None:
        made["requestBody"] = {"required": True, "content": {"application/json": {"schema": by_kind[id(route.takes)]}}}
    statuses = {*route.may_answer, 503} | ({401, 403} if route.need != PUBLIC else set())
    statuses |= {400, 403, 411, 413, 415, 429} if route.rule.changes else set()
    statuses |= {400} if route.query else set()
    statuses |= {409, 422} if route.destroys or route.keyed else set()
    statuses |= {412, 428} if route.matches else set()
    for status in sorted(statuses):
        schema = {"schema": {"$ref": "#/components/schemas/Problem"}}
        content = {CONTENT_TYPE: schema} if status != 403 else {CONTENT_TYPE: schema, "text/plain": {}}
        made["responses"][str(status)] = {"description": PHRASES[status]} | ({} if status == 304 else {"content": content})
    return made


def _response(route: Route, by_kind: dict[int, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {"description": PHRASES[route.status]}
    if route.gives is dict:
        found["content"] = {"application/json": {"schema": {"type": "object"}}}
    elif route.gives is not None:
        found["content"] = {"application/json": {"schema": by_kind[id(route.gives)]}}
    elif route.status == 200:
        found["content"] = {kind if kind != "application/json" else "application/x-ndjson": {} for kind in route.content_types}
    return found
