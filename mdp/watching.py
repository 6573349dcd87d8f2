"""Keeps the partitions of a worker told which of their channels somebody watches."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterable

from mdc import keys
from mdc.connect import CacheUnavailable
from mdc.interest import Interest
from mdp.owned import Owned

LOOK_S = 0.1  # who opens a symbol gets what is in the cache at once, and after so long what is new, too
READ_S = 5.0  # entries end without a word, and a symbol may have been watched before it was traded


class Watching:
    """Looks for news in the cache and tells `partitions()`."""

    def __init__(self, interest: Interest, partitions: Callable[[], Iterable[Owned]]) -> None:
        self._interest = interest
        self._partitions = partitions
        self._known: tuple[int, list[int]] = (-1, [])  # the news, and which partitions have been told of it
        self._due_s = 0.0

    async def run(self) -> None:
        """Look until cancelled."""
        while True:
            with contextlib.suppress(CacheUnavailable):  # what was known goes on; the beats tell of the cache
                await self.look(asyncio.get_running_loop().time())
            await asyncio.sleep(LOOK_S)

    async def look(self, now_s: float) -> None:
        """Read who is watched, if that may have changed since the last time.  Raises: CacheUnavailable."""
        mine = {owned.partition.number: owned for owned in self._partitions()}
        known = (await self._interest.news(), sorted(mine))
        if not mine or (known == self._known and now_s < self._due_s):
            return
        found = await self._interest.read([*mine, keys.ALL])
        boards = frozenset(name for _, name in found.pop(keys.ALL))
        for number, watched in found.items():
            mine[number].partition.watch(watched, boards)
        self._known, self._due_s = known, now_s + READ_S
