"""Checks that bad, slow, greedy and silent clients get the documented errors and close codes, and disturb nobody else."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from tests.waiting import until
from tests.wds.publisher import Publisher
from tests.wds.replica import Replica
from tests.wds.talk import Talk
from wds.access.keys import local_key
from wds.access.tokens import mint
from wds.server import Server

Token = Callable[..., str]


async def test_a_bad_first_token_ends_with_4001(wds: Server, tmp_path: Path) -> None:
    """Refused with their error, then 4001: an unknown key and an expired token pass and say when to come back, others do not."""
    foreign = mint(Ed25519PrivateKey.generate(), "x", ["*"], 60, time.time(), "j")
    expired = mint(local_key(tmp_path), "x", ["*"], 10, time.time() - 60, "j")
    forged = mint(local_key(tmp_path), "x", ["*"], 60, time.time(), "j")[:-8] + "AAAAAAAA"
    for token, code, passes in (
        ("garbage", "unauthorized", False), (forged, "unauthorized", False),
        (foreign, "unknown_key", True), (expired, "token_expired", True),
    ):  # fmt: skip
        talk = await Talk.to(wds.port)
        reply = await talk.ask(op="auth", token=token)
        assert (reply["error"]["code"], reply["error"]["retry"]) == (code, passes)
        assert await talk.closed() == 4001
        bye = talk.all(t="bye")[0]
        assert (bye["code"], bye["reason"], "after_ms" in bye) == (4001, code, passes)


async def test_commands_before_auth_are_unauthorized(wds: Server) -> None:
    """Without a token nothing is subscribed, and the connection is told why."""
    talk = await Talk.to(wds.port)
    assert (await talk.ask(op="sub", ch=["quote:A"]))["error"]["code"] == "unauthorized"
    await talk.close()


async def test_no_auth_in_time_ends_with_4008(serve: Any) -> None:
    """A connection that never authenticates is closed."""
    wds = await serve(auth_s=0.3)
    talk = await Talk.to(wds.port)
    assert await talk.closed() == 4008


async def test_the_authorization_header_is_a_token_too(wds: Server, token: Token) -> None:
    """A token in the handshake's header needs no auth command; a bad one ends with 4001."""
    talk = await Talk.to(wds.port, additional_headers={"Authorization": f"Bearer {token()}"})
    assert (await talk.ask(op="sub", ch=["quote:A"]))["ok"]
    await talk.close()
    talk = await Talk.to(wds.port, additional_headers={"Authorization": "Bearer nonsense"})
    assert await talk.closed() == 4001


async def test_an_expiring_token_is_announced_and_refreshed_in_place(wds: Server, token: Token) -> None:
    """auth_expiring comes ahead; a fresh token of the same subject keeps the connection; without one it ends with 4201."""
    talk = await Talk.to(wds.port, token(ttl_s=3))
    await talk.find(t="auth_expiring")
    other = await talk.ask(op="auth", token=token(sub="somebody else"))
    assert other["error"]["code"] == "unauthorized"
    assert (await talk.ask(op="auth", token=token("board:*", ttl_s=2)))["expires_s"] <= 2
    assert await talk.closed(8) == 4201
    assert "after_ms" in talk.all(t="bye")[0]


async def test_narrower_tokens_take_channels_away(wds: Server, token: Token) -> None:
    """A refresh that covers less closes what it no longer covers."""
    talk = await Talk.to(wds.port, token())
    await talk.ask(op="sub", ch=["quote:A", "board:volume"])
    await talk.ask(op="auth", token=token("board:*"))
    assert (await talk.find(t="status", ch="quote:A"))["state"] == "closed"
    (member,) = wds.hub.members
    assert list(member.groups) == ["board:volume"]
    await talk.close()


async def test_no_pong_ends_with_4112(serve: Any, token: Token) -> None:
    """A client that never answers a ping is closed; one that does stays."""
    wds = await serve(ping_s=0.3)
    silent = await Talk.to(wds.port, token())
    answering = await Talk.to(wds.port, token())

    async def answer() -> None:
        seen = 0
        while True:
            seen = len(await answering.count(seen + 1, t="ping"))
            await answering.send(op="pong")

    task = asyncio.create_task(answer())
    assert await silent.closed() == 4112
    assert answering.code is None
    task.cancel()
    await answering.close()


async def test_too_many_connections_refuse_the_new_one(serve: Any, token: Token) -> None:
    """Over the limit of a user, an address, or strangers of an address, the newcomer gets 4010; others stay."""
    wds = await serve(per_user_max=2, unauthenticated_max=3, per_address_max=5)
    users = [await Talk.to(wds.port, token(sub="u")) for _ in range(2)]
    third = await Talk.to(wds.port)
    await third.send(id=1, op="auth", token=token(sub="u"))
    assert await third.closed() == 4010
    strangers = [await Talk.to(wds.port) for _ in range(4)]
    assert await strangers[-1].closed() == 4010
    assert all(talk.code is None for talk in (*users, *strangers[:3]))
    for talk in (*users, *strangers):
        await talk.close()
    await until(lambda: wds.census.connections == 0)


async def test_a_full_worker_says_back_off(serve: Any, token: Token) -> None:
    """Beyond the worker's room newcomers get 4100."""
    wds = await serve(connections_max=1)
    first = await Talk.to(wds.port, token())
    second = await Talk.to(wds.port)
    assert await second.closed() == 4100
    await first.close()


async def test_large_frames_are_refused(wds: Server, token: Token) -> None:
    """Over 16 KiB is too_large and the connection stays; far beyond, the socket is closed with 1009."""
    talk = await Talk.to(wds.port, token())
    await talk.socket.send(json.dumps({"id": 1, "op": "get", "ch": ["x" * 90] * 300}))
    assert (await talk.find(ok=False))["error"]["code"] == "too_large"
    await talk.socket.send("x" * 70_000)
    assert await talk.closed() == 1009


async def test_fragments_and_binary_frames(wds: Server, token: Token) -> None:
    """A fragmented command is put together; a binary one is refused; endless fragments end the connection."""
    talk = await Talk.to(wds.port, token())
    await talk.socket.send(iter(['{"id":7,', '"op":"get",', '"ch":["nope:x"]}']))
    assert (await talk.find(id=7))["snaps"][0]["error"]["code"] == "unknown_channel"
    await talk.socket.send(b'{"id":8,"op":"pong"}')
    assert (await talk.find(ok=False))["error"]["message"] == "send text frames"
    await talk.socket.send(iter(["x"] * 100))
    assert await talk.closed() == 1002


async def test_too_many_commands_are_rate_limited_then_abuse(serve: Any, token: Token) -> None:
    """Over the rate: rate_limited with after_ms; who goes on and on is closed with 4029."""
    wds = await serve(commands_s=1, commands_burst=5, violations_max=10)
    talk = await Talk.to(wds.port, token())
    for n in range(40):
        await talk.send(id=n, op="set", paused=False)
    assert await talk.closed() == 4029
    refused = [item["error"] for item in talk.all(ok=False)]
    assert {error["code"] for error in refused} == {"rate_limited"}
    assert all(error["after_ms"] > 0 and error["retry"] for error in refused)


async def test_a_client_that_does_not_read_is_conflated_paused_closed(serve: Any, publisher: Publisher, token: Token) -> None:
    """A stalled client never delays the others; it holds bounded memory and ends with 4108."""
    wds = await serve(slow_pause_s=0.5, slow_close_s=2.0, buffer_high_bytes=16_384, buffer_low_bytes=4096)
    stalled = await _stalled(wds.port, token())
    reading = await Talk.to(wds.port, token())
    await reading.ask(op="sub", ch=["quote:A", "trades:A"], hz="raw")
    await until(lambda: sum(len(member.groups) for member in wds.hub.members) == 4)
    steps, most = set(), 0
    slow = next(connection for connection in wds.roster if connection.member and connection.session.conn in stalled[1])  # type: ignore[union-attr]
    deadline = time.monotonic() + 10
    n = 0
    while not slow.session.closed and time.monotonic() < deadline:  # type: ignore[union-attr]
        n += 1
        await publisher.publish("quote:A", {"last": n, "pad": "x" * 2000})
        await publisher.publish("trades:A", {"price": n, "pad": "x" * 2000})
        await asyncio.sleep(0.002)
        steps.add(slow.member.outbox.step.name)  # type: ignore[union-attr]
        most = max(most, slow.buffered_bytes)
    assert steps >= {"OPEN", "CONFLATE", "PAUSE"}
    assert slow.member.outbox.step.name == "CLOSE"  # type: ignore[union-attr]
    assert most < 64_000
    await reading.count(n - 5, t="event")
    assert reading.code is None
    stalled[0].close()
    await reading.close()


async def test_a_client_that_reads_again_catches_up(serve: Any, publisher: Publisher, token: Token) -> None:
    """After a stall the latest state comes in one frame, events go on or are declared lost, and the chain is whole."""
    wds = await serve(slow_pause_s=30, slow_close_s=60, buffer_high_bytes=16_384, buffer_low_bytes=4096)
    sock, _ = await _stalled(wds.port, token())
    await until(lambda: any(len(member.groups) == 2 for member in wds.hub.members))
    (member,) = wds.hub.members
    for n in range(3000):
        await publisher.publish("quote:A", {"last": n, "pad": "x" * 500})
        await publisher.publish("trades:A", {"n": n, "pad": "x" * 50})
    await until(lambda: wds.hub._topics["trades:A"].channel.seq == 3000)
    assert not member.ready
    buffer = bytearray()

    def received() -> Replica:
        found = Replica()
        for payload in _frames(bytes(buffer)):
            found.take(payload)
        return found

    def all_there() -> bool:
        with contextlib.suppress(BlockingIOError):
            buffer.extend(sock.recv(1 << 20))
        if b'"prev":2999,' not in buffer or b'"last":2999' not in buffer:
            return False  # taking the frames apart at every look would be slow
        found = received()
        return found.state["quote:A"]["last"] == 2999 and found.seq["trades:A"] == 3000

    await until(all_there, seconds=20)
    replica = received()
    assert replica.lost["trades:A"] + len(replica.state["trades:A"]) == 3000
    assert replica.frames < 4000, "the quote was conflated"
    sock.close()


async def _stalled(port: int, token: str) -> tuple[socket.socket, str]:
    """Return a raw socket that subscribed and then never reads, and its greeting."""
    loop = asyncio.get_running_loop()
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    sock.setblocking(False)
    await loop.sock_connect(sock, ("127.0.0.1", port))
    ask = "GET /v1/stream HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
    await loop.sock_sendall(sock, f"{ask}Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n".encode())
    for command in ({"op": "auth", "token": token}, {"op": "sub", "ch": ["quote:A", "trades:A"], "hz": "raw"}):
        payload = json.dumps(command).encode()
        head = bytes([0x81, 0x80 | len(payload)]) if len(payload) < 126 else bytes([0x81, 0xFE]) + len(payload).to_bytes(2, "big")
        await loop.sock_sendall(sock, head + bytes(4) + payload)
    greeting = b""
    while b'"subs"' not in greeting:
        greeting += await loop.sock_recv(sock, 4096)
    return sock, greeting.decode(errors="replace")


def _frames(data: bytes) -> list[bytes]:
    """Split server frames; the first bytes may be the rest of nothing: reading began at a frame's start."""
    found, at = [], 0
    while at + 2 <= len(data):
        size, at = data[at + 1], at + 2
        if size == 126:
            size, at = int.from_bytes(data[at : at + 2], "big"), at + 2
        elif size == 127:
            size, at = int.from_bytes(data[at : at + 8], "big"), at + 8
        if at + size > len(data):
            break
        found.append(data[at : at + size])
        at += size
    return found
