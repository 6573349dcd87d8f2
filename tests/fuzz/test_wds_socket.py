"""Sends arbitrary bytes to a real worker: it answers in HTTP, documented close codes or a closed socket, and survives."""

from __future__ import annotations

import asyncio
import os
import random
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.wds.talk import Talk
from wds.access.keys import mint_local
from wds.protocol import CLOSE_CODES, STANDARD_CLOSE_CODES
from wds.server import Server
from wds.settings import WdsSettings

UPGRADE = (
    b"GET /v1/stream HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)


@pytest.fixture
async def wds(tmp_path: Path) -> AsyncIterator[Server]:
    many = 10_000
    server = Server(
        WdsSettings(mdc_url="memory://fuzz", run_dir=tmp_path, port=0, unauthenticated_max=many, per_address_max=many)
    )
    await server.start()
    yield server
    await server.stop()


def frame(dice: random.Random) -> bytes:
    """A frame that may be right or wrong in any part of its header."""
    payload = dice.choice([os.urandom(dice.randint(0, 50)), b'{"op":"pong"}', b'{"op":"auth","token":"x"}', b"\x03\xe8bye", b""])
    first = dice.choice([0x81, 0x82, 0x01, 0x80, 0x00, 0x88, 0x89, 0x8A, 0x83, 0xC1, dice.randint(0, 255)])
    length = dice.choice([len(payload)] * 6 + [126, 127, dice.randint(0, 127)])
    masked = dice.choice([0x80] * 6 + [0])
    return bytes([first, masked | min(length, 127)]) + os.urandom(4 if masked else 0) + payload


async def attack(port: int, dice: random.Random) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    shaken = dice.random() < 0.8
    writer.write(
        UPGRADE
        if shaken
        else dice.choice([os.urandom(200), UPGRADE[: dice.randint(1, 150)], b"GET / HTTP/9\r\n\r\n", b"\r\n" * 99])
    )
    for _ in range(dice.randint(1, 12)):
        writer.write(frame(dice) if shaken else os.urandom(30))
    try:
        writer.write_eof()
        async with asyncio.timeout(10):
            return await reader.read()
    except OSError:
        return b""
    finally:
        writer.close()


async def test_a_worker_survives_any_bytes(wds: Server, tmp_path: Path) -> None:
    """Hundreds of broken clients later, no connection is left over and a good client is served."""
    codes: set[int] = set()
    for seed in range(300):
        answer = await attack(wds.port, random.Random(seed))
        at = answer.rfind(b"\x88")
        if answer.startswith(b"HTTP/1.1 101") and at > 0 and len(answer) >= at + 4 and len(answer) == at + 2 + answer[at + 1]:
            codes.add(int.from_bytes(answer[at + 2 : at + 4], "big"))
    assert codes <= {*CLOSE_CODES, *STANDARD_CLOSE_CODES, 1007, 1000, 1001} | set(range(3000, 5000)), codes
    talk = await Talk.to(wds.port, mint_local(tmp_path))
    assert (await talk.ask(op="sub", ch=["quote:A"]))["ok"]
    assert wds.census.connections == 1
    await talk.close()
