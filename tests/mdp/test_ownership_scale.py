"""500 workers and 1,024 partitions on a real Redis: storms of joins and deaths, and what ownership costs the server."""

from __future__ import annotations

import time

import pytest
import redis.asyncio

from mdp.ownership import BEAT_S, Ownership
from tests.waiting import until

pytestmark = pytest.mark.live

PARTITIONS, WORKERS = 1_024, 500
LEASE_MS = 8_000  # four times the real one: 500 workers and their server share the cores here
COMMANDS_S_MAX = 20_000


class Crowd:
    """Workers that beat one after the other over a few connections, and give back what is too much, as the real one does."""

    def __init__(self, url: str) -> None:
        self.redis = redis.asyncio.Redis.from_url(url, max_connections=8)
        self.members: dict[str, Ownership] = {}
        self.owned: dict[str, set[int]] = {}
        self.moves = 0
        self._joined = 0
        self._owner: dict[int, str] = {}

    def join(self, n: int) -> None:
        for _ in range(n):
            name = f"w{self._joined:04}"
            self._joined += 1
            self.members[name] = Ownership(self.redis, name, PARTITIONS, LEASE_MS)

    def die(self, n: int) -> None:
        """Some of the middle: they beat no more, and say nothing."""
        for name in list(self.members)[100 : 100 + n]:
            del self.members[name]
            self.owned.pop(name, None)

    async def beat(self) -> None:
        """One beat of everybody."""
        for name, member in list(self.members.items()):
            share = await member.beat()
            mine = set(share.owned)
            for partition in sorted(mine)[len(mine) - share.surplus :]:
                await member.release(partition)
                mine.discard(partition)
            self.owned[name] = mine
            for partition in mine:
                self.moves += self._owner.get(partition, name) != name
                self._owner[partition] = name

    async def even(self) -> bool:
        """Beat once; return whether everybody owns a fair share and all is owned once."""
        await self.beat()
        sizes = [len(mine) for mine in self.owned.values()]
        all_owned = len(set().union(*self.owned.values())) == sum(sizes) == PARTITIONS
        return all_owned and max(sizes) - min(sizes) <= 1

    async def commands(self) -> int:
        return int((await self.redis.info("stats"))["total_commands_processed"])


async def test_storms_of_joins_and_deaths_move_no_more_than_needed(mdc_url: str) -> None:
    """Shares differ by one at most, a newcomer takes its share and nothing else moves; the dead one's are taken over."""
    crowd = Crowd(mdc_url)
    await crowd.redis.set("mdp:since", 1)
    crowd.join(100)
    await until(crowd.even, 30)
    crowd.moves = 0  # the first of them had everything
    crowd.join(400)
    await until(crowd.even, 30)
    needed = PARTITIONS - 100 * (PARTITIONS // WORKERS)  # what the first hundred have too much
    assert needed - 100 <= crowd.moves <= needed + 100, crowd.moves
    crowd.moves = 0
    crowd.die(150)
    lost = PARTITIONS - sum(len(mine) for mine in crowd.owned.values())
    await until(crowd.even, 30)
    assert lost <= crowd.moves <= lost + 2 * 150, crowd.moves
    crowd.join(150)
    await until(crowd.even, 30)
    await crowd.redis.aclose()


async def test_five_hundred_workers_cost_few_commands(mdc_url: str) -> None:
    """In the steady state, at the pace of the real worker's beats, scripts' inner calls included: 20,000 commands a second at most."""
    crowd = Crowd(mdc_url)
    await crowd.redis.set("mdp:since", 1)
    crowd.join(WORKERS)
    await until(crowd.even, 60)
    before, began = await crowd.commands(), time.monotonic()
    for _ in range(3):
        await crowd.beat()
    beats = 3 * WORKERS
    per_beat = (await crowd.commands() - before) / beats
    took_us = (time.monotonic() - began) / beats * 1e6
    print(
        f"{per_beat:.1f} commands a beat, {per_beat * WORKERS / BEAT_S:,.0f} a second at {WORKERS} workers, {took_us:.0f} us a beat"
    )
    assert per_beat * WORKERS / BEAT_S <= COMMANDS_S_MAX
    await crowd.redis.aclose()
