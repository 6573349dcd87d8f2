"""Tests who is heard: programs and our own pages, and no page of anybody else's, by whatever name it reached us."""

from __future__ import annotations

import json
from typing import Any

import pytest

from service.origin import Message, SameOrigin

HOST = {"host": "127.0.0.1:8181"}
JSON = {"content-type": "application/json", "content-length": "2"}
HEARD = [
    ("GET", HOST), ("POST", HOST), ("POST", HOST | JSON), ("GET", {"host": "localhost"}), ("GET", {"host": "[::1]:8181"}),
    ("GET", {"host": "10.1.2.3:9104"}), ("GET", {"host": "engine:8181"}), ("GET", {"host": "engine.tapeline.svc:8181"}),
    ("GET", {"host": "engine.tapeline.svc.cluster.local"}), ("GET", {"host": "Exchange.Example:443"}),
    ("POST", HOST | JSON | {"origin": "http://127.0.0.1:8181"}), ("GET", HOST | {"sec-fetch-site": "none"}),
    ("GET", HOST | {"sec-fetch-site": "same-origin"}), ("GET", HOST | {"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate"}),
    ("PUT", HOST | {"content-type": "application/merge-patch+json; charset=utf-8", "content-length": "9"}),
    ("DELETE", HOST | {"content-length": "0"}),
]  # fmt: skip
REFUSED = [
    ("GET", {}, 421), ("GET", {"host": ""}, 421), ("GET", {"host": "evil.example:8181"}, 421), ("GET", {"host": "127.0.0.1.evil.example"}, 421),
    ("GET", {"host": "svc.evil.example"}, 421), ("GET", {"host": "["}, 421), ("GET", {"host": "[::1"}, 421), ("GET", {"host": "a" * 300 + ".b"}, 421),
    ("POST", HOST | {"origin": "http://127.0.0.1:8000"}, 403), ("GET", HOST | {"origin": "null"}, 403), ("GET", HOST | {"origin": ""}, 403),
    ("GET", HOST | {"origin": "https://evil.example"}, 403), ("GET", HOST | {"origin": "http://127.0.0.1:8181@evil.example"}, 403),
    ("POST", HOST | {"sec-fetch-site": "same-site"}, 403), ("GET", HOST | {"sec-fetch-site": "cross-site", "sec-fetch-mode": "no-cors"}, 403),
    ("POST", HOST | {"content-length": "2"}, 415), ("POST", HOST | {"content-length": "2", "content-type": "text/plain"}, 415),
    ("POST", HOST | {"content-length": "2", "content-type": "application/x-www-form-urlencoded"}, 415),
    ("PUT", HOST | {"transfer-encoding": "chunked", "content-type": "multipart/form-data"}, 415),
    ("POST", HOST | {"content-length": "2", "content-type": "text/plain; a=application/json"}, 415),
]  # fmt: skip


async def ask(method: str, headers: dict[str, str], kind: str = "http", json_only: bool = True) -> list[Message]:
    """Return what is sent for a request; the application behind says `heard`."""
    sent: list[Message] = []

    async def heard(scope: Message, receive: Any, send: Any) -> None:
        await send({"type": "heard"})

    async def send(message: Message) -> None:
        sent.append(message)

    scope: Message = {"type": kind, "method": method, "headers": [(k.encode(), v.encode()) for k, v in headers.items()]}
    await SameOrigin(heard, ["exchange.example"], json_only)(scope, None, send)  # type: ignore[arg-type]
    return sent


@pytest.mark.parametrize(("method", "headers"), HEARD)
async def test_programs_and_our_own_pages_are_heard(method: str, headers: dict[str, str]) -> None:
    """By IP address, localhost, names that nobody can register, and those that are listed."""
    assert await ask(method, headers) == [{"type": "heard"}]


@pytest.mark.parametrize(("method", "headers", "status"), REFUSED)
async def test_what_a_foreign_page_can_send_is_refused(method: str, headers: dict[str, str], status: int) -> None:
    """With a problem that says what to do; nothing behind it hears of the request."""
    start, body = await ask(method, headers)
    assert (start["type"], start["status"]) == ("http.response.start", status)
    problem = json.loads(body["body"])
    assert problem["status"] == status
    assert problem["detail"]


@pytest.mark.parametrize("headers", [HOST | {"origin": "http://127.0.0.1:8000"}, {"host": "evil.example"}])
async def test_a_websocket_of_a_foreign_page_is_never_accepted(headers: dict[str, str]) -> None:
    """The handshake is answered with 403."""
    (closed,) = await ask("GET", headers, "websocket")
    assert closed["type"] == "websocket.close"


async def test_a_port_with_a_token_takes_any_type() -> None:
    """No page knows the token: only origin and name are looked at there."""
    assert await ask("POST", HOST | {"content-length": "2"}, json_only=False) == [{"type": "heard"}]
    assert (await ask("POST", {"host": "evil.example"}, json_only=False))[0]["status"] == 421
