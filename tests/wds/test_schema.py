"""Checks that the published contract is what the code generates, and that frames and commands fit it."""

from __future__ import annotations

import json
from typing import Any

import jsonschema
import pytest
import yaml

from mdc.channels import KINDS
from wds import openapi, protocol, schema
from wds.protocol import Error, Event, GetOutcome, Hello, HelloLimits, Lost, Ping, Raw, Reply, Rows, Snap, Status, SubOutcome, Upd

DOCUMENT = json.loads(schema.SCHEMA_FILE.read_text())


def test_the_files_are_what_the_code_says() -> None:
    """asyncapi.yaml, openapi.yaml and schema.json are regenerated whenever the protocol changes: `python -m wds schema --write`."""
    assert schema.ASYNCAPI_FILE.read_text() == schema.asyncapi_text()
    assert schema.SCHEMA_FILE.read_text() == schema.schema_text()
    assert openapi.OPENAPI_FILE.read_text() == openapi.openapi_text()


def test_every_reference_resolves() -> None:
    """The documents refer to nothing that is not in them, and every close code is named."""
    for file in (schema.ASYNCAPI_FILE, openapi.OPENAPI_FILE):
        document = yaml.safe_load(file.read_text())
        for pointer in _references(document):
            found = document
            for part in pointer.removeprefix("#/").split("/"):
                found = found[part]
    document = yaml.safe_load(schema.ASYNCAPI_FILE.read_text())
    assert set(document["x-close-codes"]) == set(protocol.CLOSE_CODES)
    jsonschema.Draft202012Validator.check_schema(DOCUMENT)


def _references(node: Any) -> list[str]:
    if isinstance(node, dict):
        own = [node["$ref"]] if isinstance(node.get("$ref"), str) else []
        return own + [ref for value in node.values() for ref in _references(value)]
    return [ref for value in node for ref in _references(value)] if isinstance(node, list) else []


@pytest.mark.parametrize(
    "frame",
    [
        Hello(1, "c", 20, HelloLimits(200, 16384, 20, 100, 500, 50)),
        Snap("quote:A", "e", 1, 2, Raw(b"{}")),
        Upd("quote:A", 1, 2, 3, {"last": Raw(b"1")}),
        Rows("board:volume", 1, 2, 3, {}, ["X"], ["A"]),
        Event("trades:A", 1, 2, 3, Raw(b"{}")),
        Lost("trades:A", 2),
        Status("quote:A", "stale", "why"),
        Ping(1),
        Reply(1, True, [SubOutcome("a", 0.2, True), SubOutcome("b", error=Error("forbidden", "", False))]),
        Reply("x", True, snaps=[GetOutcome("a", "e", 1, 2, Raw(b"[]"))]),
    ],
)
def test_frames_fit_the_schema(frame: Any) -> None:
    """What the server sends validates against its published type."""
    ref = {"$ref": f"#/$defs/{type(frame).__name__}", "$defs": DOCUMENT["$defs"]}
    jsonschema.validate(json.loads(protocol.encode(frame)), ref)


@pytest.mark.parametrize(
    ("command", "good"),
    [
        ({"op": "sub", "ch": ["quote:A"], "hz": 0.2, "since": {"quote:A": {"epoch": "e", "seq": 1}}}, True),
        ({"op": "sub", "ch": ["quote:A"], "hz": 3}, False),
        ({"op": "sub", "ch": []}, False),
        ({"op": "get", "ch": ["a"], "limit": 0}, False),
        ({"op": "pong"}, True),
        ({"op": "jump"}, False),
    ],
)
def test_schema_and_code_agree_on_commands(command: dict[str, Any], good: bool) -> None:
    """What the schema accepts the code accepts, and the other way round."""
    ref = {"$ref": "#/$defs/ClientObject", "$defs": DOCUMENT["$defs"]}
    assert jsonschema.Draft202012Validator(ref).is_valid(command) is good
    try:
        decoded = protocol.decode(json.dumps(command).encode())
        accepted = not isinstance(decoded, protocol.Sub) or protocol.tier(decoded.hz if decoded.hz else 4) is not None
    except protocol.BadCommand:
        accepted = False
    assert accepted is good


def test_names_in_the_catalogue_fit_the_protocol() -> None:
    """No kind's name is longer than a channel name may be."""
    assert all(len(kind) + 66 <= protocol.CHANNEL_CHARS_MAX for kind in KINDS)
