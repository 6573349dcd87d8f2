"""One delivery: decoded once, its end, its key."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import pytest
from pamqp.commands import Basic

from engine.orders.delivery import Delivery
from engine.orders.message import MessageRefused
from mdq.rabbit_link import UNREADABLE

CANCEL = {"type": "cancel", "account": 1, "clOrdID": "a"}


def held(body: dict[str, object], properties: Basic.Properties | None = None) -> Delivery:
    return Delivery(1, json.dumps(body).encode(), properties or Basic.Properties(), False)


def test_a_message_is_read_once_with_its_end() -> None:
    """The earlier of its own end and that of its time to live."""
    sent = datetime.fromtimestamp(1_000, UTC)
    own, ttl = held(CANCEL | {"expiresAt": 7}), held(CANCEL, Basic.Properties(timestamp=sent, expiration="1000"))
    assert own.read() is own.read()
    assert own.ends_ns == 7_000_000
    ttl.read()
    assert ttl.ends_ns == 1_002 * 10**9
    plain = held(CANCEL)
    plain.read()
    assert plain.ends_ns == 0


def test_unreadable_properties_are_malformed() -> None:
    """Whatever the body says: what was lost with the properties may have mattered."""
    with pytest.raises(MessageRefused, match="properties cannot be read"):
        held(CANCEL, Basic.Properties(headers={UNREADABLE: "a time"})).read()


def test_the_key_is_message_id_and_body() -> None:
    """Two messages under one id are the same only when they say the same."""
    named = Basic.Properties(message_id="m")
    assert held(CANCEL, named).key == held(CANCEL, Basic.Properties(message_id="m", priority=3)).key
    assert held(CANCEL, named).key != held(CANCEL | {"clOrdID": "b"}, named).key
    assert held(CANCEL).key[0] == ""
    assert held(CANCEL, Basic.Properties(headers={"x-attempts": 2})).failed == 2
