"""Generates the OpenAPI document of what is asked over plain HTTP: event streams and the tickets that open them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped]

from wds.access.events import PROBLEM_TYPE, STATUS
from wds.access.tickets import TTL_S
from wds.protocol import CHANNELS_PER_COMMAND_MAX, EVENTS_PATH, TICKET_PATH, TIERS

OPENAPI_FILE = Path(__file__).parent / "openapi.yaml"
PROBLEM = {"$ref": "#/components/schemas/Problem"}


def openapi() -> dict[str, Any]:
    """Return the OpenAPI document."""
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Tapeline widget data service over HTTP",
            "version": "1.0.0",
            "description": "Server-sent events for `curl` and for networks that break WebSockets: the same channels, limits and "
            "frames as the stream of asyncapi.yaml, one way.",
        },
        "servers": [{"url": "http://127.0.0.1:8400"}],
        "paths": {EVENTS_PATH: {"get": _stream()}, TICKET_PATH: {"post": _ticket()}},
        "components": {
            "schemas": {"Problem": _problem()},
            "securitySchemes": {
                "jwt": {"type": "http", "scheme": "bearer", "bearerFormat": "EdDSA JWT: iss, aud=wds, sub, exp, jti, ch (globs)"},
                "ticket": {"type": "apiKey", "in": "query", "name": "ticket"},
            },
        },
    }  # fmt: skip


def _stream() -> dict[str, Any]:
    words = {"type": "array", "items": {"type": "string"}, "minItems": 1}
    return {
        "operationId": "events",
        "summary": "Subscribe, and hear of it until one of both hangs up.",
        "security": [{"jwt": []}, {"ticket": []}],
        "parameters": [
            _query("ch", "channels and patterns, comma separated", {**words, "maxItems": CHANNELS_PER_COMMAND_MAX}, True),
            _query("hz", "at most so many updates a second", {"enum": [str(hz) for hz in TIERS], "default": "4"}),
            _query("fields", "only these fields, comma separated; default: all", words),
            {
                "name": "Last-Event-ID",
                "in": "header",
                "description": "the last id of the stream before: it goes on from there. Ids come once a second, so what came "
                "after the last one comes again; each frame has its seq",
                "schema": {"type": "string"},
            },
        ],
        "responses": {
            "200": {
                "description": "First `event: subs`, the reply of a `sub`; then events without a name, each with a frame or "
                "an array of frames of asyncapi.yaml (snap, upd, rows, event, lost, status); at the end `event: bye`: "
                "come back after its `after_ms`, and not at all without.",
                "content": {"text/event-stream": {"schema": {"type": "string"}}},
            },
            **_problems(),
        },
    }


def _ticket() -> dict[str, Any]:
    body = {
        "type": "object",
        "properties": {"ticket": {"type": "string"}, "expires_s": {"const": TTL_S}},
        "required": ["ticket", "expires_s"],
    }
    return {
        "operationId": "ticket",
        "summary": f"Exchange a token for a ticket that opens one stream within {TTL_S} s: EventSource cannot send a header.",
        "security": [{"jwt": []}],
        "responses": {"200": {"description": "The ticket.", "content": {"application/json": {"schema": body}}}, **_problems()},
    }


def _query(name: str, description: str, schema: dict[str, Any], required: bool = False) -> dict[str, Any]:
    style = {"style": "form", "explode": False} if schema.get("type") == "array" else {}
    return {"name": name, "in": "query", "description": description, "required": required, **style, "schema": schema}


def _problems() -> dict[str, Any]:
    by_status: dict[int, list[str]] = {}
    for code, status in STATUS.items():
        by_status.setdefault(status, []).append(code)
    by_status[503].append("closed")
    return {
        str(status): {"description": ", ".join(codes), "content": {PROBLEM_TYPE: {"schema": PROBLEM}}}
        for status, codes in sorted(by_status.items())
    }


def _problem() -> dict[str, Any]:
    return {
        "type": "object",
        "description": "RFC 9457. `code` is an error code of the protocol, or `closed` where a stream would have ended with a "
        "close code; with `after_ms` (and the header Retry-After) the same request may pass later.",
        "properties": {
            "type": {"type": "string"},
            "title": {"type": "string"},
            "status": {"type": "integer"},
            "code": {"enum": [*STATUS, "closed"]},
            "detail": {"type": "string"},
            "after_ms": {"type": "integer"},
        },
        "required": ["type", "title", "status", "code", "detail"],
    }


def openapi_text() -> str:
    """Return openapi.yaml as it must be in the repository."""
    made: str = yaml.safe_dump(openapi(), sort_keys=False, width=120, allow_unicode=True)
    return "# Generated by `python -m wds schema --write`; a test compares.\n" + made
