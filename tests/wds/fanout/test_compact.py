"""Checks what the compact form writes, that its client reads it back, and how much it saves on recorded quotes."""

from __future__ import annotations

import json
from typing import Any

import jsonschema
import msgspec
import pytest
from msgspec import Raw

from mdc.channels import KINDS, kind_of
from tests.bench.stream.wire import play
from tests.tapes import tape
from wds import schema
from wds.client.compact import Expander
from wds.fanout.compact import FIELDS_MAX, Packer, packer, told_kinds
from wds.fanout.delta import parse_fields

BASE_MS = 1_700_000_000_000
PACKER = Packer(("last", "bid", "ts"), BASE_MS)


def raw(data: Any) -> dict[str, Raw]:
    return parse_fields(json.dumps(data).encode())


def read(kind: str, channel: str, item: bytes) -> dict[str, Any]:
    """Return the frame that a client makes of an item, whose fields are those of PACKER."""
    expander = Expander()
    expander.learn({"base_ms": BASE_MS, "kinds": {channel.split(":")[0]: {"t": kind, "fields": ["last", "bid", "ts"]}}})
    expander.frames({"t": "num", "ch": channel, "n": 7})
    (frame,) = expander.frames(json.loads(item))
    return frame


@pytest.mark.parametrize(
    ("data", "ts", "wire"),
    [
        ({"bid": 2}, 5, b"[7,12,2,5,4,2]"),
        ({"last": None, "bid": "x"}, -3, b'[7,12,2,-3,6,null,"x"]'),
        ({"ts": BASE_MS + 9, "last": 1.50}, 9, b"[7,12,2,9,3,1.5]"),  # ts is the frame's own: a bit instead of 13 digits
        ({"ts": BASE_MS + 8}, 9, b"[7,12,2,9,8,1700000000008]"),
        ({}, 0, b"[7,12,2,0,0]"),
    ],
)
def test_a_change_is_numbers_a_mask_and_values(data: dict[str, Any], ts: int, wire: bytes) -> None:
    """The wire form is fixed, and a client makes the very frame of it."""
    assert PACKER.change(7, 10, 12, BASE_MS + ts, raw(data)) == wire
    expected = {"t": "upd", "ch": "quote:A", "prev": 10, "seq": 12, "ts": BASE_MS + ts, "data": data}
    assert read("upd", "quote:A", wire) == expected


@pytest.mark.parametrize(
    ("gone", "order", "wire"),
    [
        ([], None, b'[7,12,2,5,{"X":[6,1,2]}]'),
        (["Y"], None, b'[7,12,2,5,{"X":[6,1,2]},["Y"]]'),
        ([], ["X"], b'[7,12,2,5,{"X":[6,1,2]},0,["X"]]'),
        ([], [], b'[7,12,2,5,{"X":[6,1,2]},0,[]]'),
    ],
)
def test_rows_are_packed_row_by_row(gone: list[str], order: list[str] | None, wire: bytes) -> None:
    """Each row has its own mask; what did not change at the end is left out."""
    rows = {"X": Raw(b'{"bid":2,"last":1}')}
    assert PACKER.rows(7, 10, 12, BASE_MS + 5, rows, gone, order) == wire
    expected = {"t": "rows", "ch": "board:g", "prev": 10, "seq": 12, "ts": BASE_MS + 5, "set": {"X": {"last": 1, "bid": 2}}}
    expected |= ({"del": gone} if gone else {}) | ({"order": order} if order is not None else {})
    assert read("rows", "board:g", wire) == expected


def test_what_has_no_place_is_not_packed() -> None:
    """A field beside the catalogue, a row or an event that is no object: the frame goes out as an object."""
    assert PACKER.change(7, 1, 2, BASE_MS, raw({"last": 1, "odd": 2})) is None
    assert PACKER.rows(7, 1, 2, BASE_MS, {"X": Raw(b"3")}, [], None) is None
    assert PACKER.rows(7, 1, 2, BASE_MS, {"X": Raw(b'{"odd":3}')}, [], None) is None
    assert PACKER.event(7, 2, BASE_MS, Raw(b"[1]")) is None
    assert PACKER.event(7, 2, BASE_MS, Raw(b'{"bid":1}')) == b"[7,2,1,0,4,1]"


def test_a_plugin_s_frames_are_objects() -> None:
    """Its kind is not among those that clients were told, so they could not even read a change of nothing."""
    plugin = packer(kind_of("own:spread:A"), BASE_MS)
    assert plugin.change(7, 1, 2, BASE_MS, {}) is None
    assert plugin.change(7, 1, 2, BASE_MS, raw({"ts": BASE_MS})) is None
    assert plugin.event(7, 2, BASE_MS, Raw(b"{}")) is None


def test_every_field_of_the_catalogue_has_a_place() -> None:
    """A kind with more fields than a mask has bits would always come as objects."""
    assert all(len(kind.fields) <= FIELDS_MAX for kind in KINDS.values())
    assert all(list(KINDS[name].fields) == told.fields for name, told in told_kinds().items())


def test_items_fit_the_published_schema() -> None:
    """What is written is what AsyncAPI and JSON Schema describe."""
    document = json.loads(schema.SCHEMA_FILE.read_text())
    rows = PACKER.rows(7, 1, 2, BASE_MS, {"X": Raw(b'{"bid":3}')}, ["Y"], ["X"])
    for name, item in (("CompactChange", PACKER.change(7, 1, 2, BASE_MS, raw({"last": 1}))), ("CompactRows", rows)):
        assert item is not None
        jsonschema.validate(json.loads(item), {"$ref": f"#/$defs/{name}", "$defs": document["$defs"]})
        assert not jsonschema.Draft202012Validator(document["$defs"][name]).is_valid([1, 2, 3, 4, "no"])
    told = msgspec.to_builtins(told_kinds()["quote"])
    jsonschema.validate(told, {"$ref": "#/$defs/CompactKind", "$defs": document["$defs"]})


def test_recorded_quotes_take_less_than_two_fifths_of_the_bytes() -> None:
    """The recorded futures' quotes, through the processors and the hub at 4 Hz: single updates, and whole writes."""
    written = play(tape("es-2023-12-25.ndjson.gz"))
    single = {form: tally["single"] / tally["updates"] for form, tally in written.items()}
    assert written["json"]["updates"] == written["compact"]["updates"] > 1000
    assert single["compact"] <= 0.4 * single["json"], single
    assert written["compact"]["bytes"] <= 0.4 * written["json"]["bytes"]
