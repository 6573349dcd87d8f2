"""Gives the test of the drills' clients a worker of the data service, as the service's own tests have it."""

from __future__ import annotations

from tests.wds.conftest import cache_url, publisher, serve, token

__all__ = ["cache_url", "publisher", "serve", "token"]
