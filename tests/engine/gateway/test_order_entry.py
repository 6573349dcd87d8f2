"""`POST /Order` is answered beside the router: both ways answer alike, whatever is sent."""

from __future__ import annotations

import asyncio
import json

import pytest

from engine.access.keys import Role
from engine.gateway.order_entry import OrderEntry
from engine.gateway.problems import BODY_BYTES_MAX
from tests.engine.gateway.ground import Ground, asked, order_body
from tests.engine_process import OPERATOR

AS_JSON = {"Content-Type": "application/json"}


@pytest.mark.parametrize(
    "body",
    [
        b"{", b"null", b"\xff", b"[" * 5_000, json.dumps(order_body(1, "a")).encode(), json.dumps(order_body(1, "x", price=99.3)).encode(),
        json.dumps(order_body(77, "x")).encode(), json.dumps(order_body(1, "x", surprise=1)).encode(), b" " * (BODY_BYTES_MAX + 1),
    ],
)  # fmt: skip
async def test_both_ways_answer_alike(ground: Ground, body: bytes) -> None:
    """The router has the same path with a slash at its end; status, kind and content are the same."""
    await ground.order(1, "a", "Buy", 1, 99)
    answers = [await ground.http.post(f"{ground.url}{path}", content=body, headers=AS_JSON) for path in ("/Order", "/Order/")]
    first, second = ((one.status_code, one.headers["content-type"], one.json()) for one in answers)
    assert first == second
    assert first[0] in (400, 404, 409, 413, 422)


async def test_an_order_of_another_is_refused_and_what_the_engine_cannot_do_said(ground: Ground) -> None:
    """403 before anything else; 503 with the time to come again; a client that goes changes nothing."""
    desk = ground.key(Role.TRADER, "1")
    before = ground.digest
    assert (await asked(ground, desk, "POST", "/Order", order_body(2, "x")))[1]["code"] == "ForeignAccount"
    _, writer = await asyncio.open_connection("127.0.0.1", ground.gateway.port)
    head = f"POST /Order HTTP/1.1\r\nHost: x\r\nAuthorization: {OPERATOR['Authorization']}\r\nContent-Type: application/json\r\n"
    writer.write(f"{head}Content-Length: 500\r\n\r\n{{".encode())
    await writer.drain()
    writer.transport.abort()
    assert ground.digest == before
    ground.sequencer._queue_max = 0
    answer = await ground.http.post(f"{ground.url}/Order", json=order_body(1, "x"))
    assert (answer.status_code, answer.headers["retry-after"], answer.json()["code"]) == (503, "1", "EngineBusy")


async def test_a_fault_of_ours_tells_nothing(ground: Ground, monkeypatch: pytest.MonkeyPatch) -> None:
    """500 without the exception's text."""

    async def broken(*_: object) -> bytes:
        raise RuntimeError("the secret")

    monkeypatch.setattr(OrderEntry, "_place", broken)
    answer = await ground.http.post(f"{ground.url}/Order", json=order_body(1, "x"))
    assert (answer.status_code, answer.json()["code"]) == (500, "InternalError")
    assert "secret" not in answer.text
