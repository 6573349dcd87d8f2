"""Checks what heartbeats are believed: state by age, and which admin addresses may be asked."""

from __future__ import annotations

import ipaddress
from typing import Any

import msgspec
import pytest

from scp.fleet.inventory import inventory
from service.heartbeat import Beat, Kept, seal

TOKEN, NOW = b"the admin token", 1_000_000
LOOPBACK = [ipaddress.ip_network("127.0.0.0/8"), ipaddress.ip_network("::1/128")]


def kept(name: str = "mdl-a-1", age_ms: int = 0, token: bytes = TOKEN, **said: Any) -> Kept:
    """Return a heartbeat in the cache."""
    beat = Beat(
        id=said.pop("id", name), kind="mdl", name="mdl", version="1", host="a", pid=1, instance="i", started_ms=1,
        admin=said.pop("admin", "http://127.0.0.1:9101"), log_level="info", ready=said.pop("ready", True), reasons=[], rates={},
    )  # fmt: skip
    body = msgspec.json.encode(beat)
    return Kept(NOW - age_ms, seal(token, body), msgspec.Raw(body))


@pytest.mark.parametrize(
    ("age_ms", "ready", "state"),
    [(0, True, "ready"), (-50, True, "ready"), (3_000, False, "unready"), (4_000, True, "stale"), (16_000, True, "missing")],
)
def test_the_state_is_told_by_the_age(age_ms: int, ready: bool, state: str) -> None:
    """A component that is silent is not what it said last."""
    (one,) = inventory({"mdl-a-1": kept(age_ms=age_ms, ready=ready)}, NOW, TOKEN, LOOPBACK)
    assert (one.state, one.controllable, one.why_not) == (state, True, "")


@pytest.mark.parametrize(
    ("said", "word"),
    [
        ({"token": b"another"}, "sealed"),
        ({"id": "wds-b-2"}, "sealed"),
        ({"admin": "http://10.0.0.1:80"}, "SCP_ADMIN_NETWORKS"),
        ({"admin": "http://evil.example:80"}, "no IP address"),
        ({"admin": "http://localhost:80"}, "no IP address"),
        ({"admin": "https://127.0.0.1:80"}, "http://address:port"),
        ({"admin": "http://127.0.0.1"}, "http://address:port"),
        ({"admin": "http://user@127.0.0.1:80"}, "http://address:port"),
        ({"admin": "http://127.0.0.1:80/path"}, "http://address:port"),
        ({"admin": "http://127.0.0.1:80?to=x"}, "http://address:port"),
        ({"admin": "http://127.0.0.1:99999"}, "no IP address"),
        ({"admin": ""}, "no IP address"),
        ({"admin": "http://[::ffff:10.0.0.1]:80"}, "SCP_ADMIN_NETWORKS"),
    ],
)
def test_what_is_not_believed_is_shown_and_not_asked(said: dict[str, Any], word: str) -> None:
    """With the reason in words."""
    (one,) = inventory({"mdl-a-1": kept(**said)}, NOW, TOKEN, LOOPBACK)
    assert not one.controllable
    assert word in one.why_not


def test_what_is_no_heartbeat_is_left_out() -> None:
    """One that somebody has broken hides none of the others."""
    broken = Kept(NOW, "", msgspec.Raw(b'{"id":5}'))
    assert [one.id for one in inventory({"b": broken, "mdl-a-1": kept()}, NOW, TOKEN, LOOPBACK)] == ["mdl-a-1"]


def test_networks_are_chosen_by_the_operator() -> None:
    """IPv4 and IPv6 alike."""
    network = [ipaddress.ip_network("10.0.0.0/8"), ipaddress.ip_network("fd00::/8")]
    for address, may in (("http://10.1.2.3:1", True), ("http://[fd00::1]:1", True), ("http://127.0.0.1:1", False)):
        (one,) = inventory({"mdl-a-1": kept(admin=address)}, NOW, TOKEN, network)
        assert one.controllable is may
