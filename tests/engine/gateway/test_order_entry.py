"""`POST /Order` is answered beside the router: both ways answer alike, whatever is sent."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from engine.access.keys import Caller, Role
from engine.gateway.order_entry import Answer, OrderEntry
from engine.gateway.orders import OrderDesk
from engine.gateway.problems import BODY_BYTES_MAX
from tests.engine.gateway.ground import Ground, asked, exchange, order_body
from tests.engine_process import OPERATOR
from tests.waiting import until

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


async def test_only_plain_orders_go_beside_the_router(ground: Ground, monkeypatch: pytest.MonkeyPatch) -> None:
    """With an idempotency key, in chunks or to the path with a slash at its end it is the router's, and done as well."""
    beside: list[bytes] = []
    place = OrderEntry.place

    def noted(entry: OrderEntry, caller: Caller, body: bytes, tell: Callable[[Answer], None]) -> Answer | None:
        beside.append(body)
        return place(entry, caller, body, tell)

    async def in_chunks(body: bytes) -> AsyncIterator[bytes]:
        for byte in body:
            yield bytes((byte,))

    monkeypatch.setattr(OrderEntry, "place", noted)
    bodies = [json.dumps(order_body(1, f"way-{number}")).encode() for number in range(4)]
    url = f"{ground.url}/Order"
    answers = [
        await ground.http.post(url, content=bodies[0], headers=AS_JSON),
        await ground.http.post(f"{url}/", content=bodies[1], headers=AS_JSON),
        await ground.http.post(url, content=bodies[2], headers={**AS_JSON, "Idempotency-Key": "k"}),
        await ground.http.post(url, content=in_chunks(bodies[3]), headers=AS_JSON),
    ]
    assert [one.status_code for one in answers] == [201] * 4
    assert {tuple(sorted(one.json())) for one in answers} == {tuple(sorted(answers[0].json()))}
    assert beside == bodies[:1]


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

    def broken(*_: object) -> None:
        raise RuntimeError("the secret")

    for method in ("placing", "placed"):  # before it is submitted, and when it is answered
        with monkeypatch.context() as patch:
            patch.setattr(OrderDesk, method, broken)
            answer = await ground.http.post(f"{ground.url}/Order", json=order_body(1, f"x-{method}"))
        assert (answer.status_code, answer.json()["code"]) == (500, "InternalError")
        assert "secret" not in answer.text
    await ground.order(1, "x", "Buy", 1, 99)


class Client:
    """A connection whose bytes a test writes itself, and whose answers it reads one by one."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self.writer = writer

    @classmethod
    async def of(cls, ground: Ground) -> Client:
        return cls(*await asyncio.open_connection("127.0.0.1", ground.gateway.port))

    async def answer(self) -> tuple[int, dict[str, str], dict[str, Any]]:
        """Return status, headers and content of the next answer."""
        async with asyncio.timeout(20):
            first, *lines = (await self._reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")[:-2]
            headers = dict(line.split(": ", 1) for line in lines)
            body = await self._reader.readexactly(int(headers["content-length"]))
        assert first.startswith("HTTP/1.1 ")
        return int(first.split()[1]), headers, json.loads(body)

    async def ended(self) -> bool:
        async with asyncio.timeout(20):
            return not await self._reader.read(1)


def request(name: str, version: str = "1.1", more: str = "", **terms: Any) -> bytes:
    """Return the bytes of an order."""
    body = json.dumps(order_body(1, name, **terms)).encode()
    head = f"POST /Order HTTP/{version}\r\nHost: x\r\nAuthorization: {OPERATOR['Authorization']}\r\n"
    return f"{head}Content-Type: application/json\r\nContent-Length: {len(body)}\r\n{more}\r\n".encode() + body


async def test_orders_that_come_at_once_are_answered_in_their_sequence(ground: Ground) -> None:
    """One write with good and bad ones, a page of the router and a foreign account in between: nothing overtakes."""
    desk, sent, statuses = ground.key(Role.TRADER, "2"), b"", []
    for number in range(120):
        kind = number % 6
        one = (
            request(f"p{number}", price=99.3)
            if kind == 1
            else request(f"p{number}", surprise=1)
            if kind == 2
            else request(f"p{number}")
        )
        if kind == 3:
            one = f"GET /Account/1 HTTP/1.1\r\nHost: x\r\nAuthorization: {OPERATOR['Authorization']}\r\n\r\n".encode()
        if kind == 4:
            one = request(f"p{number}").replace(OPERATOR["Authorization"].encode(), desk["Authorization"].encode())
        if kind == 5:
            one = request(f"p{number}").replace(OPERATOR["Authorization"].encode(), b"Bearer nonsense")
        sent += one
        statuses.append((201, 422, 400, 200, 403, 401)[kind])
    client = await Client.of(ground)
    client.writer.write(sent)
    answers = [await client.answer() for _ in statuses]
    assert [status for status, *_ in answers] == statuses
    assert [body["clOrdID"] for status, _, body in answers if status == 201] == [f"p{number}" for number in range(0, 120, 6)]
    client.writer.close()


async def test_a_thousand_wrong_orders_in_one_write_are_a_thousand_answers(ground: Ground) -> None:
    """The answer to one begins the next one: not deeper and deeper in one call."""
    client = await Client.of(ground)
    client.writer.write(request("x", surprise=1) * 1_500 + request("good"))
    found = [(await client.answer())[0] for _ in range(1_501)]
    assert found == [400] * 1_500 + [201]
    client.writer.close()


async def test_an_order_in_pieces_is_placed_when_it_is_whole(ground: Ground) -> None:
    """A byte at a time, over the head and the body; then another one on the same connection."""
    client = await Client.of(ground)
    for name in ("drip", "drop"):
        for byte in request(name):
            client.writer.write(bytes((byte,)))
            await client.writer.drain()
        assert (await client.answer())[2]["clOrdID"] == name
    client.writer.close()


@pytest.mark.parametrize(("version", "more", "ends"), [
    ("1.0", "", True), ("1.1", "Connection: close\r\n", True), ("1.1", "", False), ("1.1", "Expect: 100-continue\r\n", False),
])  # fmt: skip
async def test_the_connection_is_kept_or_closed_as_the_client_asks(ground: Ground, version: str, more: str, ends: bool) -> None:
    """The answer says so, is whole, and has the date that every answer has."""
    client = await Client.of(ground)
    client.writer.write(request("a", version, more))
    if "Expect" in more:
        async with asyncio.timeout(20):
            assert await client._reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
    status, headers, _ = await client.answer()
    assert (status, headers.get("connection")) == (201, "close" if ends else None)
    assert "date" in headers
    if ends:
        assert await client.ended()
    else:
        client.writer.write(request("b"))
        assert (await client.answer())[0] == 201
    client.writer.close()


async def test_an_order_whose_client_goes_is_in_the_book_all_the_same(ground: Ground) -> None:
    """It was whole; its answer goes nowhere, and nobody else notices."""
    client = await Client.of(ground)
    client.writer.write(request("gone"))
    await client.writer.drain()
    client.writer.transport.abort()

    async def placed() -> bool:
        return ground.sequencer.state.find(1, "gone") is not None

    await until(placed)
    await ground.order(1, "other", "Buy", 1, 99)


async def test_who_reads_no_answers_is_not_answered_without_end(ground: Ground) -> None:
    """Thousands of orders on one connection that reads nothing: what waits for it stays small, and then all answers come."""
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)  # else the kernel would keep all answers
    sock.connect(("127.0.0.1", ground.gateway.port))
    client = Client(*await asyncio.open_connection(sock=sock, limit=1_000))
    client.writer.transport.pause_reading()  # type: ignore[attr-defined]
    count, wrong = 3_000, {"surprise" * 500: 1}  # which is in the answer: more of them than the kernel takes
    client.writer.write(request("x", **wrong) * count)
    waiting, size = [-1], 0  # orders that are not begun, after each round trip of somebody else
    while len(set(waiting[-8:])) > 1 or len(waiting) < 9:
        await ground.order(1, f"other-{len(waiting)}", "Buy", 1, 99)
        connections = ground.gateway._server.server_state.connections
        waiting.append(max(len(one.pipeline) for one in connections))
        size = sum(one.transport.get_write_buffer_size() for one in connections)
        assert len(waiting) < 2_000, "it goes on and on"
    assert waiting[-1] > 0, "all were answered, though nobody reads"
    assert size < 128 << 10
    client.writer.transport.resume_reading()  # type: ignore[attr-defined]
    for _ in range(count):
        assert (await client.answer())[0] == 400
    client.writer.close()


async def test_what_is_under_way_at_the_end_is_answered(tmp_path: Path) -> None:
    """A gateway that stops answers the order that it has, and then closes."""
    async with exchange(tmp_path) as ground:
        await ground.market(1)
        client = await Client.of(ground)
        client.writer.write(request("last"))

        async def under_way() -> bool:
            return ground.sequencer.state.find(1, "last") is not None

        await until(under_way)
        await ground.gateway.stop()
        status, _, body = await client.answer()
        assert (status, body["clOrdID"]) == (201, "last")
        assert await client.ended()
