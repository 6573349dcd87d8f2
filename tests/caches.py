"""Gives tests an empty cache of each kind: fakeredis in-process and behind a port, what `make run` serves, Redis, Redis 8 when given.

`cache_url` makes a test run once for each kind; give TEST_REDIS8_URL to add a Redis 8. Import the fixtures in a conftest.
"""

from __future__ import annotations

import os
import secrets
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis

from mdc.connect import forget_in_process, open_cache
from mdc.embedded import EmbeddedCache
from mdc.served import usable_port
from service.cluster_url import is_cluster
from tests.clusters.redis import Cluster, PlainNames
from tests.stack import ROOT, _die_with_parent
from tests.waiting import until_sync

KINDS = ["memory", "embedded", "served", "redis", "cluster", *(["redis8"] if os.environ.get("TEST_REDIS8_URL") else [])]


@pytest.fixture(scope="session")
def embedded_url() -> Iterator[str]:
    """One embedded cache for the session, on a free port."""
    cache = EmbeddedCache(0)
    cache.start()
    yield cache.url
    cache.stop()


@pytest.fixture(scope="session")
def served_url() -> Iterator[str]:
    """One server as `make run` has it, for the session: that of the wheel when it is installed, else of this machine."""
    bundled = Path(sys.executable).with_name("redis-server")
    port = usable_port(0)
    chosen = os.environ.get("MDC_EMBEDDED_SERVER") or (str(bundled) if bundled.exists() else "")
    env = os.environ | {"MDC_EMBEDDED_PORT": str(port), "MDC_EMBEDDED_SERVER": chosen}
    with subprocess.Popen([sys.executable, "-m", "mdc", "embedded"], env=env, cwd=ROOT, preexec_fn=_die_with_parent) as process:
        with redis.Redis(port=port) as client:
            until_sync(lambda: answers(client), seconds=30)
        yield f"redis://127.0.0.1:{port}/0"
        process.terminate()


def answers(client: Any) -> bool:
    """Return whether the server answers by now."""
    try:
        return bool(client.ping())
    except redis.ConnectionError:
        return False


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """One Redis Cluster of three primaries for the session."""
    made = Cluster(3)
    try:
        made.start()
        yield made
    finally:
        made.remove()


@pytest.fixture(params=KINDS)
def cache_url(request: pytest.FixtureRequest) -> Iterator[str]:
    """The URL of an empty cache of each kind."""
    url = _url_of(str(request.param), request)
    yield url
    forget_in_process(url)


@pytest.fixture
async def cache(cache_url: str) -> AsyncIterator[Any]:
    """A client of the empty cache; it takes the names of keys that a single server has."""
    client = open_plain(cache_url)
    yield client
    await client.aclose()


def open_plain(url: str) -> Any:
    """Return a client that takes the names of keys that a single server has, whatever is behind the URL."""
    return PlainNames.open(url) if is_cluster(url) else open_cache(url)


def _url_of(kind: str, request: pytest.FixtureRequest) -> str:
    if kind == "memory":
        return f"memory://{secrets.token_hex(4)}"
    if kind == "redis":
        return str(request.getfixturevalue("mdc_url"))
    if kind == "cluster":
        made: Cluster = request.getfixturevalue("cluster")
        made.empty()
        return made.url
    url = os.environ["TEST_REDIS8_URL"] if kind == "redis8" else str(request.getfixturevalue(f"{kind}_url"))
    with redis.Redis.from_url(url) as client:
        client.flushdb()
    return url
