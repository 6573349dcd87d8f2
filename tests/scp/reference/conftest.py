"""The vendor's stand-in in a thread of its own, and servers that behave badly."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from mdl.feeds.simulator import SimulatorFeed
from mdl.settings import VendorSettings
from mdl.simulation.market import Simulator
from mdl.vendor.stand_in import VendorServer
from scp.reference.desk import ReferenceDesk
from scp.settings import ScpSettings

KEY = "good"


class Stand:
    """The stand-in: its market, its address."""

    def __init__(self, market: Simulator, port: int) -> None:
        self.market = market
        self.url = f"http://127.0.0.1:{port}"


@pytest.fixture(scope="module")
def stand() -> Iterator[Stand]:
    """A market of twenty stocks that has traded for some minutes, and its REST service."""
    market, loop = Simulator(20, 7), asyncio.new_event_loop()
    server = VendorServer(VendorSettings(port=0, keys=KEY, symbols=20), SimulatorFeed(market, 0))
    threading.Thread(target=loop.run_forever, daemon=True).start()
    asyncio.run_coroutine_threadsafe(server.start(), loop).result(10)
    now_ms = time.time_ns() // 1_000_000
    for n in range(600):
        market.frame(now_ms - 600_000 + n * 1_000, 40)
    yield Stand(market, server.port)
    asyncio.run_coroutine_threadsafe(server.stop(), loop).result(10)
    loop.call_soon_threadsafe(loop.stop)


def desk_at(url: str, tmp_path: Path, **more: Any) -> ReferenceDesk:
    """Return who asks the service at `url`."""
    return ReferenceDesk(ScpSettings(run_dir=tmp_path, rest_url=url, rest_key=KEY, **({"rest_rate": 6_000} | more)))


@contextmanager
def server(answer: Callable[[str], bytes | float]) -> Iterator[tuple[str, list[str]]]:
    """A service that answers each path with what `answer` returns: bytes, or seconds of silence; gives its address and the heads."""
    heads: list[str] = []
    listening = socket.create_server(("127.0.0.1", 0), backlog=64)

    def one(connection: socket.socket) -> None:
        with connection:
            head = connection.recv(65_536).decode()
            heads.append(head)
            said = answer(head.split()[1])
            if isinstance(said, bytes):
                connection.sendall(said)
            else:
                time.sleep(said)

    def serve() -> None:
        while True:
            try:
                connection, _ = listening.accept()
            except OSError:
                return
            threading.Thread(target=one, args=(connection,), daemon=True).start()

    threading.Thread(target=serve, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{listening.getsockname()[1]}", heads
    finally:
        listening.close()


def http(body: bytes, status: int = 200) -> bytes:
    """Return an answer."""
    return b"HTTP/1.1 %d X\r\nContent-Length: %d\r\n\r\n%b" % (status, len(body), body)
