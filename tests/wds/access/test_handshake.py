"""Checks which HTTP requests are upgraded, answered with a page, or refused."""

from __future__ import annotations

import pytest

from wds.access.handshake import Page, Upgrade, client_address, decide, origin_allowed

WS = {"upgrade": "websocket", "host": "wds.example:8400"}


@pytest.mark.parametrize(
    ("method", "target", "headers", "status"),
    [
        ("POST", "/v1/stream", WS, 405), ("GET", "/", {}, 404), ("GET", "/healthz?x", {}, 200), ("GET", "/v1/stream", {}, 426),
        ("GET", "/v1/stream?access_TOKEN=x", WS, 400), ("GET", "/v1/stream", {**WS, "origin": "https://evil.example"}, 403),
        ("GET", "/static/../keys.py", {}, 404), ("GET", "/static/tapeline.js", {}, 200),
    ],
)  # fmt: skip
def test_pages_and_refusals(method: str, target: str, headers: dict[str, str], status: int) -> None:
    """Each wrong turn has its status."""
    decision = decide(method, target, headers, (), b"js")
    assert isinstance(decision, Page)
    assert decision.status == status


def test_the_stream_upgrades_and_takes_a_bearer_token() -> None:
    """With a fitting origin or none, the stream opens; a bearer token comes along."""
    assert decide("GET", "/v1/stream", WS, (), b"") == Upgrade(None)
    assert decide("GET", "/v1/stream", {**WS, "authorization": "Bearer abc"}, (), b"") == Upgrade("abc")
    assert decide("GET", "/v1/stream", {**WS, "authorization": "Basic abc"}, (), b"") == Upgrade(None)


@pytest.mark.parametrize(("origin", "host", "origins", "allowed"), [
    ("https://wds.example", "wds.example:8400", (), True), ("http://localhost:1", "x", (), True), ("http://[::1]:1", "x", (), True),
    ("http://localhost.evil", "x", (), False), ("null", "x", (), False), ("http://[bad", "x", (), False),
    ("https://a.example", "x", ("https://a.example",), True), ("http://localhost", "x", ("https://a.example",), False),
    ("https://any", "x", ("*",), True),
])  # fmt: skip
def test_origins(origin: str, host: str, origins: tuple[str, ...], allowed: bool) -> None:
    """Own host and localhost by default; exactly the list when there is one."""
    assert origin_allowed(origin, host, origins) is allowed


def test_only_trusted_proxies_speak_for_others() -> None:
    """X-Forwarded-For counts from a trusted peer, and its right-most hop only."""
    assert client_address("9.9.9.9", "1.1.1.1", ()) == "9.9.9.9"
    assert client_address("9.9.9.9", "6.6.6.6, 1.1.1.1", ("9.9.9.9",)) == "1.1.1.1"
    assert client_address("9.9.9.9", None, ("9.9.9.9",)) == "9.9.9.9"
    assert client_address("10.9.9.9", "1.1.1.1", ("192.0.2.1", "10.0.0.0/8")) == "1.1.1.1", "a network of containers"
    assert client_address("11.9.9.9", "1.1.1.1", ("192.0.2.1", "10.0.0.0/8")) == "11.9.9.9"
    assert client_address("nowhere", "1.1.1.1", ("10.0.0.0/8",)) == "nowhere"
