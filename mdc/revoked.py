"""Tells the data service whose sessions have ended, so that their sockets close though their tokens are still good.

Invariant: an entry stays as long as a token of that session can be good; who reads late, or starts later, still learns of it.
The control plane says everything again each half second, so that an emptied cache loses nothing.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from mdc import keys
from mdc.connect import AWAY, unavailable
from service.keyspace import space_of

KEPT_MS = 3_600_000  # longer than any token lives but keys for the original service's app
TELL = """
local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now)
for i = 2, #ARGV do redis.call('ZADD', KEYS[1], 'NX', now + ARGV[1], ARGV[i]) end
redis.call('PEXPIRE', KEYS[1], ARGV[1])
"""


class Revoked:
    """Both ends of it: the control plane `tell`s, data services `read`."""

    def __init__(self, redis: Any) -> None:
        self._redis = redis
        self._key = space_of(redis).shared + keys.REVOKED
        self._tell = redis.register_script(TELL)

    async def tell(self, sessions: Iterable[str], kept_ms: int = KEPT_MS) -> None:
        """Say that these sessions have ended, for `kept_ms` if nobody says it again.  Raises: CacheUnavailable."""
        names = list(sessions)
        try:
            for first in range(0, len(names), 1000):
                await self._tell(keys=[self._key], args=[kept_ms, *names[first : first + 1000]])
        except AWAY as error:
            raise unavailable(error) from None

    async def read(self) -> frozenset[str]:
        """Return the sessions that have ended and of which a token may still be good.  Raises: CacheUnavailable."""
        try:
            return frozenset(name.decode() for name in await self._redis.zrange(self._key, 0, -1))
        except AWAY as error:
            raise unavailable(error) from None
