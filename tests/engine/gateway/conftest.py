"""A gateway with a market and two accounts for each test."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.engine.gateway.ground import Ground, exchange


@pytest.fixture
async def ground(tmp_path: Path) -> AsyncIterator[Ground]:
    async with exchange(tmp_path) as running:
        await running.market(1, 2)
        yield running
