"""A kind of cache in, an empty one and its URL out: in-process fakeredis, the embedded server, a real Redis, Redis 8 when given.

`cache_url` makes a test run once for each kind; give TEST_REDIS8_URL to add a Redis 8. Import the fixtures in a conftest.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
import redis

from mdc.connect import forget_in_process, open_cache
from mdc.embedded import EmbeddedCache

KINDS = ["memory", "embedded", "redis", *(["redis8"] if os.environ.get("TEST_REDIS8_URL") else [])]


@pytest.fixture(scope="session")
def embedded_url() -> Iterator[str]:
    """One embedded cache for the session, on a free port."""
    cache = EmbeddedCache(0)
    cache.start()
    yield cache.url
    cache.stop()


@pytest.fixture(params=KINDS)
def cache_url(request: pytest.FixtureRequest) -> Iterator[str]:
    """The URL of an empty cache of each kind."""
    url = _url_of(str(request.param), request)
    yield url
    forget_in_process(url)


@pytest.fixture
async def cache(cache_url: str) -> AsyncIterator[Any]:
    """A client of the empty cache."""
    client = open_cache(cache_url)
    yield client
    await client.aclose()


def _url_of(kind: str, request: pytest.FixtureRequest) -> str:
    if kind == "memory":
        return f"memory://{secrets.token_hex(4)}"
    if kind == "redis":
        return str(request.getfixturevalue("mdc_url"))
    url = os.environ["TEST_REDIS8_URL"] if kind == "redis8" else str(request.getfixturevalue("embedded_url"))
    with redis.Redis.from_url(url) as client:
        client.flushdb()
    return url
