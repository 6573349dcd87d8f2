"""Keeps sheets of facts in the cache: the worker that asks writes them, all workers read those of their partitions.

Invariant: a sheet is seen whole or not at all: its parts are written under a name of its own, and named in `mdp:facts` at last,
by nobody but the owner of partition 0.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
from msgspec import Struct

from mdc import keys
from mdc.connect import AWAY, unavailable
from mdc.writer import CHECKPOINT_MS
from service.keyspace import space_of

MAKING_MS = 600_000  # the parts of a sheet that is never named are gone after so long
REPLACED_MS = 60_000  # who is reading a sheet may read it to its end
SHEETS_MAX = 8
NAME_SHEET = """
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
redis.call('HSET', KEYS[2], ARGV[2], ARGV[3])
return 1
"""


class Head(Struct, frozen=True):
    """A sheet: its name, how many partitions it is dealt to, when it was made (ms); `last` = nothing more is to come of it."""

    name: str
    partitions: int
    symbols: int
    last: bool
    at_ms: int


_head = msgspec.json.Decoder(Head)


def entry(day_ms: int, sheet: str) -> str:
    """Return what a sheet of a trading day is called in `mdp:facts`."""
    return f"{day_ms}:{sheet}"


class FactStore:
    """Both ends of it. Every method may raise CacheUnavailable."""

    def __init__(self, redis: Any) -> None:
        self._redis = redis
        self._space = space_of(redis)
        self._facts = self._space.shared + keys.FACTS
        self._name_sheet = redis.register_script(NAME_SHEET)

    async def heads(self) -> dict[str, Head]:
        """Return which sheets there are (see `entry`)."""
        try:
            found = await self._redis.hgetall(self._facts)
        except AWAY as error:
            raise unavailable(error) from None
        return {name.decode(): head for name, body in found.items() if (head := _read(body)) is not None}

    async def put(self, name: str, partition: int, number: int, facts: bytes) -> None:
        """Write a part of a sheet in the making."""
        key = self._key(name, partition)
        try:
            async with self._redis.pipeline(transaction=False) as pipe:
                pipe.hset(key, number, facts)
                pipe.pexpire(key, MAKING_MS)
                await pipe.execute()
        except AWAY as error:
            raise unavailable(error) from None

    async def publish(self, fence: int, of: str, head: Head) -> bool:
        """Name a sheet whose parts are written; return False when partition 0 has another owner than `fence` says."""
        try:
            before = await self.heads()
            await self._expire(head, CHECKPOINT_MS)
            names = [self._space.shared + keys.fence(0), self._facts]
            named = await self._name_sheet(keys=names, args=[fence, of, msgspec.json.encode(head)])
            if not named:
                return False
            if (old := before.pop(of, None)) is not None:
                await self._expire(old, REPLACED_MS)
            await self._prune(before)
        except AWAY as error:
            raise unavailable(error) from None
        return True

    async def parts(self, name: str, partition: int) -> list[int]:
        """Return the numbers of a partition's parts of a sheet."""
        try:
            return sorted(int(number) for number in await self._redis.hkeys(self._key(name, partition)))
        except AWAY as error:
            raise unavailable(error) from None

    async def part(self, name: str, partition: int, number: int) -> bytes | None:
        """Return one part, None when the sheet is gone."""
        try:
            found = await self._redis.hget(self._key(name, partition), number)
        except AWAY as error:
            raise unavailable(error) from None
        return None if found is None else bytes(found)

    def _key(self, name: str, partition: int) -> str:
        return self._space.of(partition) + keys.facts(name, partition)

    async def _expire(self, head: Head, after_ms: int) -> None:
        async with self._redis.pipeline(transaction=False) as pipe:
            for partition in range(head.partitions):
                pipe.pexpire(self._key(head.name, partition), after_ms)
            await pipe.execute()

    async def _prune(self, others: Mapping[str, Head]) -> None:
        """Let the oldest sheets go: days that are over, tapes that are played no more."""
        oldest = sorted(others.items(), key=lambda item: item[1].at_ms)[: max(0, len(others) + 1 - SHEETS_MAX)]
        for of, head in oldest:
            await self._redis.hdel(self._facts, of)
            await self._expire(head, REPLACED_MS)


def _read(body: bytes) -> Head | None:
    try:
        return _head.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None  # of another version: as if it were not there
