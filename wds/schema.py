"""Generates the published contract from the protocol's types: JSON Schemas, and an AsyncAPI 3 document around them."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any, get_args

import msgspec
import yaml  # type: ignore[import-untyped]

from wds import openapi, protocol

HERE = Path(__file__).parent
ASYNCAPI_FILE = HERE / "asyncapi.yaml"
SCHEMA_FILE = HERE / "schema.json"
CLIENT = get_args(protocol.Command)
JWT = {"$ref": "#/components/securitySchemes/jwt"}
SERVER = (*get_args(protocol.Push), protocol.Reply)


_HEAD: list[dict[str, Any]] = [
    {"type": "integer", "minimum": 0, "title": "n", "description": "the channel's number: see Snap and Num"},
    {"type": "integer", "minimum": 0, "title": "seq"},
    {"type": "integer", "minimum": 1, "title": "step", "description": "prev = seq - step"},
    {"type": "integer", "title": "ts", "description": "milliseconds since base_ms of the reply to auth"},
]
_MASK = {
    "type": "integer",
    "minimum": 0,
    "title": "mask",
    "description": "bit 0: the field ts has the frame's own time; bit i + 1: a value of the kind's i-th field follows",
}
_ROW = {"type": "array", "prefixItems": [_MASK], "minItems": 1}
COMPACT: dict[str, dict[str, Any]] = {
    "CompactChange": {
        "title": "CompactChange",
        "description": "An upd or event in the compact form (the reply's kinds say which): the head, the mask, the values of its "
        "fields in the order of the bits. What has no bit comes as an object instead.",
        "type": "array",
        "prefixItems": [*_HEAD, _MASK],
        "minItems": 5,
    },
    "CompactRows": {
        "title": "CompactRows",
        "description": "Rows in the compact form: the head, changed rows, deleted ones (0 = none), the order when it changed.",
        "type": "array",
        "prefixItems": [
            *_HEAD,
            {"type": "object", "additionalProperties": _ROW, "title": "set"},
            {"anyOf": [{"const": 0}, {"type": "array", "items": {"type": "string"}}], "title": "del"},
            {"type": "array", "items": {"type": "string"}, "title": "order"},
        ],
        "minItems": 5,
        "maxItems": 7,
    },
}


def schemas() -> dict[str, Any]:
    """Return the JSON Schema of every frame by name; references point into #/$defs."""
    _, components = msgspec.json.schema_components([*CLIENT, *SERVER], ref_template="#/$defs/{name}")
    return {name: _named_data(name, schema) for name, schema in sorted(components.items())}


def _named_data(name: str, schema: dict[str, Any]) -> dict[str, Any]:
    if name in ("Snap", "Event", "GetOutcome"):
        schema["properties"]["data"]["description"] = "fields of the channel's kind: see mdc/README.md"
    return schema


def json_schema() -> dict[str, Any]:
    """Return one JSON Schema document: any single frame, with every type under $defs."""
    client = [{"$ref": f"#/$defs/{kind.__name__}"} for kind in CLIENT]
    server = [{"$ref": f"#/$defs/{kind.__name__}"} for kind in SERVER]
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Tapeline WDS protocol v1",
        "description": "A frame is one item or an array of items; an item is an object, or an array that begins with a number.",
        "$defs": {**schemas(), **COMPACT, "ClientObject": {"anyOf": client}, "ServerObject": {"anyOf": server}},
        "anyOf": [
            {"$ref": "#/$defs/ClientObject"},
            {"$ref": "#/$defs/ServerObject"},
            *({"$ref": f"#/$defs/{name}"} for name in COMPACT),
        ],
    }


def asyncapi() -> dict[str, Any]:
    """Return the AsyncAPI document."""
    names = {kind.__name__: kind for kind in (*CLIENT, *SERVER)}
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "Tapeline widget data service",
            "version": "1.0.0",
            "description": "Live market-data channels over WebSocket. A frame is one JSON object or an array of objects; "
            "`id` present = reply, absent = push. Unknown fields are ignored. A client that asks for the compact form in `auth` "
            "gets changes as arrays that begin with a number: CompactChange, CompactRows. With WDS_COMPAT=true "
            "the path /ws speaks the original service's protocol instead: wds/compat/README.md has its frames and feeds.",
        },
        "servers": {"local": {"host": "127.0.0.1:8400", "protocol": "ws", "security": [JWT]}},
        "channels": {
            "stream": {
                "address": protocol.PATH,
                "bindings": {"ws": {"method": "GET"}},
                "messages": {name: {"$ref": f"#/components/messages/{name}"} for name in (*names, *COMPACT)},
            }
        },
        "operations": {
            "command": _operation("receive", [*map(_name, CLIENT)], "What a client sends."),
            "push": _operation("send", [*map(_name, SERVER), *COMPACT], "What the server sends: replies and pushes."),
        },
        "components": {
            "messages": {
                **{name: _message(name, (kind.__doc__ or "").strip().partition("\n")[0]) for name, kind in names.items()},
                **{name: _message(name, made["description"]) for name, made in COMPACT.items()},
            },
            "schemas": json.loads(json.dumps({**schemas(), **COMPACT}).replace("#/$defs/", "#/components/schemas/")),
            "securitySchemes": {
                "jwt": {"type": "http", "scheme": "bearer", "bearerFormat": "EdDSA JWT: iss, aud=wds, sub, exp, jti, ch (globs)"}
            },
        },
        "x-close-codes": {code: _close_code(said) for code, said in protocol.CLOSE_CODES.items()},
        "x-standard-close-codes": dict(protocol.STANDARD_CLOSE_CODES),
    }  # fmt: skip


def _close_code(said: protocol.CloseCode) -> dict[str, Any]:
    spread = {} if said.spread_ms is None else {"after_ms": list(said.spread_ms)}
    return {"means": said.means, "client": said.client, "retry": said.spread_ms is not None, **spread}


def _name(kind: Any) -> str:
    return str(kind.__name__)


def _operation(action: str, names: list[str], summary: str) -> dict[str, Any]:
    messages = [{"$ref": f"#/channels/stream/messages/{name}"} for name in names]
    return {"action": action, "summary": summary, "channel": {"$ref": "#/channels/stream"}, "messages": messages}


def _message(name: str, summary: str) -> dict[str, Any]:
    return {
        "name": name,
        "summary": summary,
        "contentType": "application/json",
        "payload": {"$ref": f"#/components/schemas/{name}"},
    }


def asyncapi_text() -> str:
    """Return asyncapi.yaml as it must be in the repository."""
    made: str = yaml.safe_dump(asyncapi(), sort_keys=False, width=120, allow_unicode=True)
    return "# Generated from wds/protocol.py by `python -m wds schema --write`; a test compares.\n" + made


def schema_text() -> str:
    """Return schema.json as it must be in the repository."""
    return json.dumps(json_schema(), indent=1, ensure_ascii=False) + "\n"


def main(write: bool) -> int:
    """Print the contract of the stream, or write all three files."""
    if write:
        openapi.OPENAPI_FILE.write_text(openapi.openapi_text())
        ASYNCAPI_FILE.write_text(asyncapi_text())
        SCHEMA_FILE.write_text(schema_text())
    else:
        sys.stdout.write(asyncapi_text())
    return 0
