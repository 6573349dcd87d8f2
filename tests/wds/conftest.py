"""Starts a worker of the widget data service on a cache, both of them new for each test."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from mdc.connect import forget_in_process
from tests.waiting import until
from tests.wds.publisher import Publisher
from wds.access.keys import mint_local
from wds.server import Server
from wds.settings import WdsSettings

_numbers = itertools.count()


@pytest.fixture
def cache_url() -> Any:
    """An in-process cache of this test only."""
    url = f"memory://wds-{next(_numbers)}"
    yield url
    forget_in_process(url)


@pytest.fixture
async def publisher(cache_url: str) -> AsyncIterator[Publisher]:
    """A writer of that cache, telling that the pipeline is live."""
    publisher = Publisher(cache_url)
    publisher.start_beat()
    yield publisher
    await publisher.close()


@pytest.fixture
def token(tmp_path: Path) -> Callable[..., str]:
    """Mint tokens that the worker of this test accepts."""
    return lambda *globs, **more: mint_local(tmp_path, globs or ("*",), **more)


@pytest.fixture
async def serve(cache_url: str, tmp_path: Path) -> AsyncIterator[Callable[..., Any]]:
    """Start workers; they are stopped at the test's end."""
    started: list[Server] = []

    async def start(**settings: Any) -> Server:
        given = {"mdc_url": cache_url, "run_dir": tmp_path, "port": 0, "linger_s": 0.2, **settings}
        server = Server(WdsSettings(**given))
        await server.start()
        started.append(server)
        await until(lambda: server.upstream.up)
        return server

    yield start
    for server in started:
        await server.stop()


@pytest.fixture
async def wds(serve: Callable[..., Any], publisher: Publisher) -> Any:
    """One worker that tells its clients `live`."""
    server = await serve()
    await until(lambda: server.hub.verdict.state == "live")
    return server
