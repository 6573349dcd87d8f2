"""Runs the vendor's stand-in with its REST answers, a worker that asks it, and prices that flow meanwhile."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from mdc.connect import open_cache
from mdc.documents import decode_doc
from mdl.feeds.simulator import SimulatorFeed
from mdl.settings import VendorSettings
from mdl.simulation.market import Simulator
from mdl.vendor.stand_in import VendorServer
from mdp.settings import MdpSettings
from mdp.worker import Worker
from mdq.connect import open_broker
from mdq.publisher import Publisher
from mdq.topology import progress_queue
from service.clock import SystemClock
from service.partition import partition_of
from service.run import Shutdown
from tests.mdp.farm import memory_urls

PARTITIONS = 4
KEY = "good"


@asynccontextmanager
async def vendor(symbols: int, keys: str = KEY) -> AsyncIterator[VendorServer]:
    """A stand-in whose market is the one of seed 7."""
    made = VendorServer(VendorSettings(port=0, keys=keys, symbols=symbols), SimulatorFeed(Simulator(symbols, 7), 0))
    await made.start()
    try:
        yield made
    finally:
        await made.stop()


class Server:
    """Answers each request with what `answer(target)` returns: bytes to send before it hangs up, None = nothing, ever."""

    def __init__(self, answer: Callable[[str], bytes | None]) -> None:
        self.targets: list[str] = []
        self.heads: list[str] = []
        self._answer = answer

    async def __aenter__(self) -> Server:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            self.heads.append(head)
            self.targets.append(head.split()[1])
            body = self._answer(head.split()[1])
            if body is not None:
                writer.write(body)
                await writer.drain()
                writer.close()


def http(status: int, body: Any, length: int | None = None) -> bytes:
    """Return an answer; `length` is what its head says when that is not so."""
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    return b"HTTP/1.1 %d X\r\nContent-Length: %d\r\n\r\n%b" % (status, len(data) if length is None else length, data)


class Desk:
    """One worker that asks `url`, on a queue and cache in memory, and the trades it is given."""

    def __init__(self, url: str, **settings: Any) -> None:
        self.mdq_url, self.mdc_url = memory_urls()
        self._settings = {"rest_url": url, "rest_key": KEY, "rest_rate": 6_000.0} | settings

    async def __aenter__(self) -> Desk:
        self.cache, self._broker = open_cache(self.mdc_url), open_broker(self.mdq_url, "feed")
        await self.cache.set("mdp:since", 1)
        await self._broker.connect()
        self._publisher = Publisher(self._broker, PARTITIONS, "stocks")
        await self._publisher.start()
        await self._broker.declare([progress_queue()])
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()
        await self._publisher.close(0.1)
        await self._broker.close()
        await self.cache.aclose()

    async def start(self) -> None:
        """Start the worker."""
        settings = MdpSettings(
            mdq_url=self.mdq_url, mdc_url=self.mdc_url, mdq_partitions=PARTITIONS, worker="w", **self._settings
        )
        self._own_broker, self._own_cache, self._shutdown = open_broker(self.mdq_url, "w"), open_cache(self.mdc_url), Shutdown()
        await self._own_broker.connect()
        self.worker = Worker(settings, self._own_broker, self._own_cache, SystemClock(), self._shutdown)
        self._task = asyncio.create_task(self.worker.run())

    async def stop(self) -> None:
        """SIGTERM."""
        self._shutdown.ask()
        async with asyncio.timeout(15):
            await self._task
        await self._own_broker.close()
        await self._own_cache.aclose()

    def trade(self, symbol: str, price: float, size: int = 100, ts: int | None = None) -> None:
        """Publish a trade of now."""
        now_ms = time.time_ns() // 1_000_000 if ts is None else ts
        body = json.dumps({"ev": "T", "sym": symbol, "p": price, "s": size, "t": now_ms, "x": 4, "i": "1", "c": []}).encode()
        self._publisher.add("trades", partition_of(symbol, PARTITIONS), [body], time.time_ns(), now_ms * 1_000_000)

    async def quote(self, symbol: str) -> dict[str, Any]:
        """Return a symbol's quote as it is in the cache, empty when there is none."""
        body = await self.cache.get(f"ch:quote:{symbol}")
        return json.loads(bytes(decode_doc(body).data)) if body else {}
