"""Checks event streams over real sockets: what comes, what is refused and how, where it goes on, and that a slow reader is alone."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from tests.waiting import until
from tests.wds.publisher import Publisher
from tests.wds.raw import Raw
from tests.wds.talk import Talk
from wds.transport.event_stream import sse_event

Token = Callable[..., str]


class Listener:
    """Reads one response, as `curl -N` does."""

    def __init__(self, reader: asyncio.StreamReader, status: int, headers: dict[str, str]) -> None:
        self.status = status
        self.headers = headers
        self.events: list[tuple[str, Any]] = []
        self.last_id = ""
        self.body = b""
        self.ended = False
        self._reader = reader
        self._task = asyncio.create_task(self._read())

    async def _read(self) -> None:
        while chunk := await self._reader.read(65_536):
            self.body += chunk
            while b"\n\n" in self.body and "event-stream" in self.headers["content-type"]:
                block, _, self.body = self.body.partition(b"\n\n")
                self._take(block.decode())
        self.ended = True

    def _take(self, block: str) -> None:
        fields: dict[str, str] = {}
        for line in block.split("\n"):
            name, _, value = line.partition(": ")
            fields[name] = fields[name] + "\n" + value if name in fields else value
        self.last_id = fields.get("id", self.last_id)
        if "data" in fields:
            payload = json.loads(fields["data"])
            for item in payload if isinstance(payload, list) else [payload]:
                self.events.append((fields.get("event", item.get("t", "")), item))

    async def find(self, wanted: str, n: int = 1) -> Any:
        """Wait for the n-th event of a kind."""
        found = await until(
            lambda: len(self.all(wanted)) >= n and self.all(wanted), 8, f"{n} × {wanted}: {self.events[-4:]} {self.body[-200:]!r}"
        )
        return found[n - 1]

    def all(self, wanted: str) -> list[Any]:
        return [item for kind, item in self.events if kind == wanted]

    async def problem(self) -> dict[str, Any]:
        """Wait for the end; return the body."""
        await until(lambda: self.ended)
        assert self.headers["content-type"] == "application/problem+json"
        found: dict[str, Any] = json.loads(self.body)
        assert found["status"] == self.status
        return found


@asynccontextmanager
async def request(port: int, target: str, method: str = "GET", **headers: str) -> AsyncIterator[Listener]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    lines = [f"{method} {target} HTTP/1.1", "Host: x", *(f"{name.replace('_', '-')}: {value}" for name, value in headers.items())]
    writer.write("\r\n".join([*lines, "", ""]).encode())
    async with asyncio.timeout(8):
        status, *rest = (await reader.readuntil(b"\r\n\r\n")).decode().strip().split("\r\n")
    listener = Listener(reader, int(status.split()[1]), {k.lower(): v for k, _, v in (line.partition(": ") for line in rest)})
    try:
        yield listener
    finally:
        listener._task.cancel()
        writer.close()


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


async def test_a_stream_brings_what_a_socket_brings(wds: Any, publisher: Publisher, token: Token) -> None:
    """The outcomes, then snap, update and status as events with the same objects; fields and rate count."""
    await publisher.publish("quote:A", {"last": 1, "bid": 1})
    async with request(wds.port, "/v1/sse?ch=quote:A,trades:*&hz=raw&fields=last", **bearer(token())) as stream:
        assert (stream.status, stream.headers["content-type"]) == (200, "text/event-stream")
        assert [one["ch"] for one in (await stream.find("subs"))["subs"]] == ["quote:A", "trades:*"]
        assert (await stream.find("snap"))["data"] == {"last": 1}
        await publisher.publish("quote:A", {"last": 2, "bid": 9})
        assert (await stream.find("upd"))["data"] == {"last": 2}
        publisher.start_beat({"sources": {"s": {"state": "down"}}, "processors": {"partitions_expected": 8}, "ts": 0})
        assert (await stream.find("status"))["state"] == "stale"
        assert wds.census.connections == 1
    await until(lambda: wds.census.connections == 0 and not wds.hub.members)


@pytest.mark.parametrize(
    ("target", "given", "status", "code"),
    [
        ("/v1/sse?ch=nope:A", "*", 404, "unknown_channel"), ("/v1/sse?ch=quote:A", "board:*", 403, "forbidden"),
        ("/v1/sse?ch=quote:A&hz=3", "*", 400, "bad_request"), ("/v1/sse?ch=quote:A", None, 401, "unauthorized"),
        ("/v1/sse?ch=quote:A&token=x", "*", 400, "bad_request"), ("/v1/sse?ch=quote:A&ticket=x", None, 401, "unauthorized"),
        (f"/v1/sse?ch=quote:{'A' * 200}", "*", 400, "bad_request"),
    ],
)  # fmt: skip
async def test_what_cannot_begin_is_an_http_problem(
    wds: Any, token: Token, target: str, given: str | None, status: int, code: str
) -> None:
    """A status and problem+json with the protocol's code, and no place is taken."""
    async with request(wds.port, target, **(bearer(token(given)) if given else {})) as answer:
        problem = await answer.problem()
        assert (answer.status, problem["code"]) == (status, code)
        assert ("www-authenticate" in answer.headers) is (status == 401)
    await until(lambda: wds.census.connections == 0 and not wds.hub.members)


async def test_a_bad_token_and_a_full_house_are_problems_too(serve: Any, token: Token) -> None:
    """401 with what is wrong; 429 with when to come back, for streams and WebSockets count together."""
    wds = await serve(per_user_max=1)
    async with request(wds.port, "/v1/sse?ch=quote:A", **bearer("no.such.token")) as answer:
        assert ((await answer.problem())["code"], answer.status) == ("unauthorized", 401)
    async with request(wds.port, "/v1/sse?ch=quote:A", **bearer(token(ttl_s=-30))) as answer:
        assert (await answer.problem())["code"] == "token_expired"
    talk = await Talk.to(wds.port, token())
    async with request(wds.port, "/v1/sse?ch=quote:A", **bearer(token())) as answer:
        problem = await answer.problem()
        assert (answer.status, problem["after_ms"] >= 2000, int(answer.headers["retry-after"]) >= 2) == (429, True, True)
    await talk.close()


async def test_a_ticket_opens_one_stream(wds: Any, publisher: Publisher, token: Token) -> None:
    """A page gets it with its token in a header, of an allowed origin; the stream is the token's, and a second one is refused."""
    await publisher.publish("quote:A", {"last": 1})
    async with request(wds.port, "/v1/ticket", "OPTIONS", Origin="http://localhost:8000") as allowed:
        assert (allowed.status, allowed.headers["access-control-allow-methods"]) == (204, "POST")
    async with request(wds.port, "/v1/ticket", "POST", Origin="http://localhost:8000", **bearer(token("quote:A"))) as answer:
        await until(lambda: answer.ended)
        assert (answer.status, answer.headers["access-control-allow-origin"]) == (200, "http://localhost:8000")
        ticket = json.loads(answer.body)["ticket"]
    target = f"/v1/sse?ch=quote:A,quote:B&ticket={ticket}"
    async with request(wds.port, target, Origin="http://localhost:8000") as stream:
        assert (await stream.find("snap"))["data"] == {"last": 1}
        assert stream.headers["access-control-allow-origin"] == "http://localhost:8000"
        assert stream.all("subs")[0]["subs"][1]["error"]["code"] == "forbidden"
        async with request(wds.port, target) as second:
            assert ((await second.problem())["code"], second.status) == ("unauthorized", 401)
    for method, more in (("POST", {"Origin": "https://evil.example"}), ("GET", {}), ("POST", bearer("x"))):
        async with request(wds.port, "/v1/ticket", method, **more) as refused:
            assert refused.status in (401, 403, 405)
            await refused.problem()


async def test_a_stream_goes_on_where_it_was(wds: Any, publisher: Publisher, token: Token) -> None:
    """The last id that was seen brings the events after it and no snap; one of another life brings snaps."""
    await publisher.publish("trades:A", {"id": 1})
    await publisher.publish("quote:A", {"last": 1})
    target = "/v1/sse?ch=trades:A,quote:A&hz=raw"
    async with request(wds.port, target, **bearer(token())) as stream:
        await stream.find("snap", 2)
        await publisher.publish("trades:A", {"id": 2})
        await stream.find("event")
        await until(lambda: "trades:A=2" in stream.last_id, 5, "an id within about a second")
        seen = stream.last_id
    await publisher.publish("trades:A", {"id": 3}, {"id": 4})
    async with request(wds.port, target, Last_Event_ID=seen, **bearer(token())) as stream:
        assert [one["recovered"] for one in (await stream.find("subs"))["subs"]] == [True, True]
        await stream.find("event", 2)
        assert [one["data"]["id"] for one in stream.all("event")] == [3, 4]
        assert not stream.all("snap")
    async with request(wds.port, target, Last_Event_ID=seen.replace("k1", "k0"), **bearer(token())) as stream:
        await stream.find("snap", 2)


async def test_a_stream_ends_with_a_word(wds: Any, publisher: Publisher, token: Token) -> None:
    """A token that expires, or a worker that drains: `bye` with the code, and after_ms as the time to retry."""
    async with request(wds.port, "/v1/sse?ch=quote:A", **bearer(token(ttl_s=1))) as stream:
        bye = await stream.find("bye")
        assert (bye["code"], "after_ms" in bye) == (4201, True)
        await until(lambda: stream.ended)
    async with request(wds.port, "/v1/sse?ch=quote:A", **bearer(token())) as stream:
        await stream.find("subs")
        await wds.drain()
        assert (await stream.find("bye"))["code"] == 4200
        await until(lambda: stream.ended)


async def test_a_listener_that_cannot_answer_is_not_asked(serve: Any, publisher: Publisher, token: Token) -> None:
    """It hears that the server is there; no pong is missed, and one that is looked for keeps its place."""
    wds = await serve(ping_s=0.3, per_user_max=1)
    await publisher.publish("quote:A", {"last": 1})
    async with request(wds.port, "/v1/sse?ch=quote:A&hz=raw", **bearer(token())) as stream:
        await stream.find("snap")
        refused = await Talk.to(wds.port)
        await refused.send(id=1, op="auth", token=token())
        assert await refused.closed() == 4010
        await asyncio.sleep(2.6)  # longer than a pong may take, and than somebody in another's way has
        await publisher.publish("quote:A", {"last": 2})
        assert (await stream.find("upd"))["data"] == {"last": 2}


async def test_a_slow_listener_delays_nobody(serve: Any, publisher: Publisher, token: Token) -> None:
    """One that does not read climbs the ladder and is sent away; a WebSocket and another stream hear everything meanwhile."""
    wds = await serve(slow_pause_s=0.3, slow_close_s=1.0)
    state = {f"f{n}": "x" * 1000 for n in range(40)}
    await publisher.publish("quote:A", state)
    stuck = await Raw.to(wds.port, 4096, silent=True)
    await stuck.write(f"GET /v1/sse?ch=quote:A&hz=raw HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token()}\r\n\r\n".encode())
    talk = await Talk.to(wds.port, token())
    await talk.ask(op="sub", ch=["quote:A"], hz="raw")
    async with request(wds.port, "/v1/sse?ch=quote:A&hz=raw", **bearer(token())) as stream:
        await until(lambda: len(wds.hub.members) == 3)
        for n in range(1, 60):
            await publisher.publish("quote:A", {name: f"{n}{value}" for name, value in state.items()})
            await talk.count(n, t="upd")
            await stream.find("upd", n)
        await until(lambda: len(wds.hub.members) == 2, 8, "the one that does not read to be sent away")
        assert len(wds.roster) == 3 or len(wds.roster) == 2
    stuck.close()
    await talk.close()


def test_a_payload_with_line_breaks_is_one_event() -> None:
    """JSON may be laid out on lines; an event's data may not."""
    assert sse_event(b'{"a":\r\n1}') == b'data: {"a":  1}\n\n'
