"""Shows the bad events that the processors set aside (`mdp/`), the newest first, and forgets them."""

from __future__ import annotations

from typing import Any

from mdc import keys
from mdc.connect import AWAY, unavailable


async def page(redis: Any, first: int, size: int) -> tuple[list[bytes], int]:
    """Return `size` letters from position `first` on (0 = the newest), as they were written, and how many there are.

    Raises: CacheUnavailable.
    """
    try:
        async with redis.pipeline(transaction=True) as pipe:
            pipe.lrange(keys.DEAD_LETTERS, first, first + size - 1)
            pipe.llen(keys.DEAD_LETTERS)
            letters, total = await pipe.execute()
    except AWAY as error:
        raise unavailable(error) from None
    return letters, int(total)


async def clear(redis: Any) -> int:
    """Forget all; return how many there were.  Raises: CacheUnavailable."""
    try:
        async with redis.pipeline(transaction=True) as pipe:
            pipe.llen(keys.DEAD_LETTERS)
            pipe.delete(keys.DEAD_LETTERS)
            total, _ = await pipe.execute()
    except AWAY as error:
        raise unavailable(error) from None
    return int(total)
