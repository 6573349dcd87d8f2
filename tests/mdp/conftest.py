"""The caches of tests/caches.py, for this folder."""

from __future__ import annotations

import pytest

from tests.caches import cache, cache_url, cluster, embedded_url, served_url
from tests.clusters.redis import PlainNames


@pytest.fixture(autouse=True)
def leases(request: pytest.FixtureRequest) -> None:
    """What is called a fence here stands beside the leases."""
    if "cache" in request.fixturenames and isinstance(client := request.getfixturevalue("cache"), PlainNames):
        client.leases = True


__all__ = ["cache", "cache_url", "cluster", "embedded_url", "served_url"]
