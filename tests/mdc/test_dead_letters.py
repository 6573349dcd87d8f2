"""Checks the pages of bad events, the newest first, and that clearing them says how many there were."""

from __future__ import annotations

from typing import Any

from mdc import dead_letters, keys


async def test_pages_and_clearing(cache: Any) -> None:
    """Every page goes on where the one before ended."""
    assert await dead_letters.page(cache, 0, 10) == ([], 0)
    for number in range(5):
        await cache.lpush(keys.DEAD_LETTERS, b"%d" % number)
    assert await dead_letters.page(cache, 0, 2) == ([b"4", b"3"], 5)
    assert await dead_letters.page(cache, 4, 2) == ([b"0"], 5)
    assert await dead_letters.clear(cache) == 5
    assert await dead_letters.clear(cache) == 0
