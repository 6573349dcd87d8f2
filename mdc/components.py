"""Reads what every component last said of itself. They write it themselves, once a second (service/heartbeat.py)."""

from __future__ import annotations

from typing import Any

import msgspec

from mdc import keys
from mdc.connect import AWAY, unavailable
from service.heartbeat import Kept

COMPONENTS_MAX = 5_000


async def read(redis: Any) -> tuple[int, dict[str, Kept]]:
    """Return the cache's time (ms) and the newest beat by component; what cannot be read is left out.

    Raises: CacheUnavailable.
    """
    try:
        async with redis.pipeline(transaction=False) as pipe:
            pipe.time()
            pipe.hgetall(keys.COMPONENTS)
            (seconds, micros), found = await pipe.execute()
    except AWAY as error:
        raise unavailable(error) from None
    kept = {}
    for name, value in list(found.items())[:COMPONENTS_MAX]:
        try:
            kept[name.decode()] = msgspec.json.decode(value, type=Kept)
        except (msgspec.DecodeError, UnicodeDecodeError):
            continue
    return int(seconds) * 1000 + int(micros) // 1000, kept
