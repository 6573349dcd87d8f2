"""Runs hundreds of workers' heartbeats, with the real scripts, on a virtual clock: they join, leave, die and freeze in storms."""

from __future__ import annotations

import heapq
import random
from collections import Counter
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from mdc.connect import open_cache
from mdp.ownership import BEAT_S, LEASE_MS, Ownership
from service.clock import ManualClock
from service.partition import partition_of
from tests.scale import everything, many
from tests.sim.cache import CacheServer, _Socket, clocked_by

PARTITIONS_MAX, SYMBOLS = 1_024, 12_000
PARTITIONS = PARTITIONS_MAX if everything() else 256
BEAT_NS = int(BEAT_S * 1e9)
SIZES = (500, 300, 77, 3, 1) if everything() else (100,)
SETTLE_S = 5.0  # after the last change of a storm: the lease of the dead, an audit of the index, some beats
CHANGES = {"join": 2.0, "die": LEASE_MS / 1000 + 1.5, "leave": 1.5}  # and after how many seconds all is even again
COMMANDS_MAX = 20_000  # a second at 500 workers


class Cache:
    """A Redis of one process on a virtual clock, called without a network."""

    def __init__(self, clock: ManualClock) -> None:
        server = CacheServer(SimpleNamespace(clock=clock), None, lambda *_: None)  # type: ignore[arg-type]
        self._answers: list[Any] = []
        self._socket = _Socket(server._server, b"1", self._answers.append, lambda *_: None)

    def register_script(self, source: str) -> Callable[..., Any]:
        async def call(keys: list[str], args: list[Any]) -> Any:
            return self.call("EVAL", source, len(keys), *keys, *args)

        return call

    def call(self, *fields: Any) -> Any:
        self._socket._process_command([str(field).encode() for field in fields])
        answer = self._answers.pop()
        if isinstance(answer, Exception):
            raise answer
        return answer


class Crew:
    """Workers that beat at their own moments. `owners` = partition → (fence, worker), as the workers were told."""

    def __init__(self, seed: int) -> None:
        self.clock, self.dice = ManualClock(), random.Random(seed)
        self.cache = Cache(self.clock)
        self.members: dict[str, Ownership] = {}
        self.holds: dict[str, dict[int, int]] = {}
        self.fences: dict[tuple[int, int], str] = {}  # (partition, fence) → the only worker that ever had it
        self.moves = 0  # partitions that a living worker gave to another
        self._frozen_ns: dict[str, int] = {}
        self._due: list[tuple[int, int, str]] = []
        self._made = 0

    def join(self, count: int = 1) -> None:
        for _ in range(count):
            name = f"w{self._made:04}-{self.dice.randrange(10**6)}"
            self._made += 1
            self.members[name], self.holds[name] = Ownership(self.cache, name, PARTITIONS), {}
            self._beat_in(name, self.dice.randrange(BEAT_NS))

    def die(self, count: int = 1) -> None:
        """Without a word."""
        for name in self.dice.sample(sorted(self.members), count):
            del self.members[name], self.holds[name]

    def freeze(self, count: int, seconds: float) -> None:
        for name in self.dice.sample(sorted(self.members), count):
            self._frozen_ns[name] = self.clock.wall_ns() + int(seconds * 1e9)

    async def leave(self, count: int = 1) -> None:
        """As SIGTERM does it."""
        for name in self.dice.sample(sorted(self.members), count):
            for partition in list(self.holds[name]):
                await self.members[name].release(partition)
            await self.members[name].beat(claim=False)
            del self.members[name], self.holds[name]

    async def run(self, seconds: float) -> None:
        end_ns = self.clock.wall_ns() + int(seconds * 1e9)
        while self._due and self._due[0][0] <= end_ns:
            at_ns, _, name = heapq.heappop(self._due)
            self.clock.advance(max(0, at_ns - self.clock.wall_ns()))
            if name in self.members:
                await self._beat(name)
                self._beat_in(name, BEAT_NS + self.dice.randrange(BEAT_NS // 10))
        self.clock.advance(max(0, end_ns - self.clock.wall_ns()))

    def _beat_in(self, name: str, after_ns: int) -> None:
        heapq.heappush(self._due, (self.clock.wall_ns() + after_ns, self.dice.randrange(1 << 30), name))

    async def _beat(self, name: str) -> None:
        if self.clock.wall_ns() < self._frozen_ns.get(name, 0):
            return
        share = await self.members[name].beat()
        for partition, fence in share.owned.items():
            assert self.fences.setdefault((partition, fence), name) == name, f"partition {partition}: two with fence {fence}"
        self.holds[name] = dict(share.owned)
        for partition in sorted(share.owned)[len(share.owned) - share.surplus :]:
            await self.members[name].release(partition)
            del self.holds[name][partition]
            self.moves += 1

    def check_even(self) -> None:
        """Every partition, and with it every symbol, has one owner, and shares differ by at most one."""
        owners = Counter(partition for held in self.holds.values() for partition in held)
        assert owners == Counter(range(PARTITIONS)), (len(owners), owners.most_common(2))
        shares = [len(held) for held in self.holds.values()]
        assert max(shares) - min(shares) <= 1, Counter(shares)
        assert all(partition_of(f"S{n}", PARTITIONS) in owners for n in range(SYMBOLS))

    def needed(self, joining: int) -> int:
        """Return how many partitions must leave the living when so many more join: what is above the new shares."""
        shares = [len(held) for held in self.holds.values()]
        least, extra = divmod(PARTITIONS, len(shares) + joining)
        return sum(max(0, share - least - 1) for share in shares) + max(0, sum(share > least for share in shares) - extra)


@pytest.fixture
def crew(request: pytest.FixtureRequest) -> Any:
    made = Crew(getattr(request, "param", 1))
    with clocked_by(SimpleNamespace(clock=made.clock)):  # type: ignore[arg-type]
        yield made


@pytest.mark.parametrize("size", SIZES)
async def test_one_more_moves_no_more_than_its_share(crew: Crew, size: int) -> None:
    """From 1 to 500 workers on 1,024 partitions; one that joins moves what it must, one that dies or leaves nothing of others."""
    crew.cache.call("SET", "mdp:since", 1)
    crew.join(size)
    await crew.run(2)
    crew.check_even()
    for change, seconds in CHANGES.items():
        if change != "join" and size == 1:
            continue
        needed, crew.moves = crew.needed(change == "join"), 0
        gone = getattr(crew, change)(1)
        if gone is not None:
            await gone
        await crew.run(seconds)
        crew.check_even()
        assert crew.moves == (needed if change == "join" else 0)


@pytest.mark.parametrize("crew", range(many(4, 1)), indirect=True)
async def test_storms_end_in_even_shares(crew: Crew) -> None:
    """Joins, deaths, leaves and freezes follow each other within fractions of a second; soon after the last all is even."""
    crew.join(40)
    for _ in range(many(12, 6)):
        await crew.run(crew.dice.random())
        crew.join(crew.dice.randint(0, 40))
        crew.die(min(crew.dice.randint(0, 40), len(crew.members) - 1))
        await crew.leave(min(crew.dice.randint(0, 20), len(crew.members) - 1))
        crew.freeze(min(10, len(crew.members)), crew.dice.uniform(0.5, 4))
    await crew.run(4 + SETTLE_S)
    crew.check_even()


async def test_a_lost_index_is_made_anew(crew: Crew) -> None:
    """The leases say who owns what; the index that spares looking at all of them may vanish or be wrong."""
    crew.join(20)
    await crew.run(SETTLE_S)
    for lost in ("mdp:free", "mdp:loads", f"mdp:of:{min(crew.members)}"):
        crew.cache.call("DEL", lost)
    crew.cache.call("ZADD", "mdp:free", 5, 5, 2_000, 2_000)
    crew.die(5)
    await crew.run(2 * SETTLE_S)
    crew.check_even()


async def test_commands_for_ownership_do_not_grow_with_workers_times_partitions(mdc_url: str) -> None:
    """At 500 workers on 1,024 partitions all heartbeats of a second are at most 20,000 commands on Redis, scripts' included."""
    cache = open_cache(mdc_url)
    await cache.set("mdp:since", 1)
    members = [Ownership(cache, f"w{n}", PARTITIONS_MAX, 60_000) for n in range(500)]
    for _ in range(3):
        for member in members:
            share = await member.beat()
            for partition in sorted(share.owned)[len(share.owned) - share.surplus :]:
                await member.release(partition)
    before = await commands(cache)
    shares = [await member.beat() for member in members]
    a_beat = (await commands(cache) - before) / len(members)
    assert sorted({len(share.owned) for share in shares}) == [2, 3]
    assert a_beat * len(members) / BEAT_S < COMMANDS_MAX, a_beat
    await cache.aclose()


async def commands(cache: Any) -> int:
    return sum(facts["calls"] for facts in (await cache.info("commandstats")).values())
