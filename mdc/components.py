"""Reads what every component last said of itself. They write it themselves, once a second (service/heartbeat.py)."""

from __future__ import annotations

from typing import Any

import msgspec

from mdc import keys
from mdc.connect import AWAY, unavailable
from service.errors import UNREADABLE
from service.heartbeat import Kept
from service.keyspace import space_of

COMPONENTS_MAX = 5_000
_KEPT = msgspec.json.Decoder(Kept)


async def read(redis: Any, prefix: str = "") -> tuple[int, dict[str, Kept]]:
    """Return the cache's time (ms) and the newest beat by component, of those whose ids begin with `prefix`.

    What cannot be read is left out.

    Raises: CacheUnavailable.
    """
    try:
        async with redis.pipeline(transaction=False) as pipe:
            pipe.time()
            pipe.hgetall(space_of(redis).shared + keys.COMPONENTS)
            (seconds, micros), found = await pipe.execute()
    except AWAY as error:
        raise unavailable(error) from None
    kept, wanted = {}, prefix.encode()
    for name, value in [one for one in found.items() if one[0].startswith(wanted)][:COMPONENTS_MAX]:
        try:
            kept[name.decode()] = _KEPT.decode(value)
        except UNREADABLE:
            continue
    return int(seconds) * 1000 + int(micros) // 1000, kept
