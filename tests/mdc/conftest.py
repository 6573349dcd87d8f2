"""The caches of tests/caches.py, for this folder."""

from __future__ import annotations

from tests.caches import cache, cache_url, cluster, embedded_url, served_url

__all__ = ["cache", "cache_url", "cluster", "embedded_url", "served_url"]
