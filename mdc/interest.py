"""Tells the processors which channels of symbols somebody watches, so that these reach the cache sooner than the others.

Invariant: an entry ends by itself. Who watches says so again every `RENEW_S`; nobody takes an entry back, so that one data
service that stops, or dies, never slows the clients of another. Times are Redis's own.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from mdc import keys
from mdc.connect import AWAY, unavailable
from service.keyspace import space_of

RENEW_S = 5.0
KEPT_MS = 15_000  # two renewals may be lost
WATCHED_MAX = 10_000  # channels of a partition; what is more is written at the slower pace
TELL = """
local time, fresh = redis.call('TIME'), 0
local ends = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000) + tonumber(ARGV[1])
for i = 2, #ARGV do fresh = fresh + redis.call('ZADD', KEYS[1], ends, ARGV[i]) end
redis.call('PEXPIRE', KEYS[1], ARGV[1])
if fresh > 0 then redis.call('INCR', KEYS[2]) end
"""
READ = """
local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now)
return redis.call('ZREVRANGE', KEYS[1], 0, ARGV[1] - 1)
"""


Watched = tuple[str, str]  # kind, symbol


class Interest:
    """Both ends of it: data services `tell`, processors `read`."""

    def __init__(self, redis: Any) -> None:
        self._redis = redis
        self._shared = space_of(redis).shared  # all of it: told and read in one call each, and little
        self._tell = redis.register_script(TELL)
        self._read = redis.register_script(READ)

    async def tell(self, watched: Mapping[int, Sequence[Watched]]) -> None:
        """Say that these, by partition, are watched from now on for `KEPT_MS`.  Raises: CacheUnavailable."""
        try:
            for partition, channels in watched.items():
                names = [f"{kind} {symbol}" for kind, symbol in channels]
                for first in range(0, len(names), 1000):
                    await self._tell(
                        keys=[self._shared + keys.watched(partition), self._shared + keys.WATCHED_NEWS],
                        args=[KEPT_MS, *names[first : first + 1000]],
                    )
        except AWAY as error:
            raise unavailable(error) from None

    async def news(self) -> int:
        """Return a number that changes when somebody begins to watch something.  Raises: CacheUnavailable."""
        try:
            return int(await self._redis.get(self._shared + keys.WATCHED_NEWS) or 0)
        except AWAY as error:
            raise unavailable(error) from None

    async def read(self, partitions: Iterable[int]) -> dict[int, frozenset[Watched]]:
        """Return what is watched of each of these partitions.  Raises: CacheUnavailable."""
        found: dict[int, frozenset[Watched]] = {}
        try:
            for number in partitions:  # one by one: thousands of names must not hold anybody up for long
                names = await self._read(keys=[self._shared + keys.watched(number)], args=[WATCHED_MAX])
                found[number] = frozenset(_watched(name) for name in names)
        except AWAY as error:
            raise unavailable(error) from None
        return found


def _watched(name: bytes) -> Watched:
    kind, _, symbol = name.decode().partition(" ")
    return kind, symbol
