"""Shows the bad events that the processors set aside (`mdp/`), the newest first, and forgets them."""

from __future__ import annotations

import re
from typing import Any

from mdc import keys
from mdc.connect import AWAY, unavailable
from service.keyspace import space_of

TIME = re.compile(rb'"ts":\s*(\d+)')


async def page(redis: Any, first: int, size: int) -> tuple[list[bytes], int]:
    """Return `size` letters from position `first` on (0 = the newest), as they were written, and how many there are.

    In a cluster each partition has its own list; they are shown as one, by the letters' times.  Raises: CacheUnavailable.
    """
    try:
        homes = await _homes(redis)
        if len(homes) > 1:
            return await _merged(redis, homes, first, size)
        async with redis.pipeline(transaction=True) as pipe:
            pipe.lrange(homes[0] + keys.DEAD_LETTERS, first, first + size - 1)
            pipe.llen(homes[0] + keys.DEAD_LETTERS)
            letters, total = await pipe.execute()
    except AWAY as error:
        raise unavailable(error) from None
    return letters, int(total)


async def clear(redis: Any) -> int:
    """Forget all; return how many there were.  Raises: CacheUnavailable."""
    total = 0
    try:
        for home in await _homes(redis):
            async with redis.pipeline(transaction=True) as pipe:
                pipe.llen(home + keys.DEAD_LETTERS)
                pipe.delete(home + keys.DEAD_LETTERS)
                total += int((await pipe.execute())[0])
    except AWAY as error:
        raise unavailable(error) from None
    return total


async def _homes(redis: Any) -> list[str]:
    space = space_of(redis)
    if not space.clustered:
        return [""]
    return space.homes(int(await redis.get(space.shared + keys.PARTITIONS) or 1))


async def _merged(redis: Any, homes: list[str], first: int, size: int) -> tuple[list[bytes], int]:
    async with redis.pipeline(transaction=False) as pipe:
        for home in homes:
            pipe.lrange(home + keys.DEAD_LETTERS, 0, first + size - 1)
            pipe.llen(home + keys.DEAD_LETTERS)
        answers = await pipe.execute()
    letters = sorted((letter for some in answers[::2] for letter in some), key=_time, reverse=True)
    return letters[first : first + size], sum(map(int, answers[1::2]))


def _time(letter: bytes) -> int:
    found = TIME.search(letter)
    return int(found[1]) if found else 0
