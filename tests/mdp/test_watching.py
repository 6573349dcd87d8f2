"""Shows when the partitions of a worker learn what is watched."""

from __future__ import annotations

from typing import Any

import pytest

from mdc import keys
from mdc.connect import open_cache
from mdc.interest import Interest
from mdp import roster
from mdp.analyzers.boards import BoardsAnalyzer
from mdp.owned import Owned
from mdp.partitions.listing import Mark
from mdp.partitions.partition import Partition
from mdp.watching import READ_S, Watching
from tests.mdp.farm import memory_urls


def owned(number: int, *traded: str) -> Owned:
    made = Owned(Partition(number, 1, "e1", roster.build(roster.ANALYZERS, {}, 500)))
    for symbol in traded:
        made.partition.listing.note(symbol, Mark("s", 1))
    return made


@pytest.fixture
async def cache() -> Any:
    redis = open_cache(memory_urls()[1])
    yield redis
    await redis.aclose()


async def test_a_partition_learns_who_is_watched(cache: Any) -> None:
    """At the next look: news, and a partition that has just become ours; what ended, at the next reading."""
    interest, mine = Interest(cache), [owned(0, "A")]
    watching = Watching(interest, lambda: mine)
    await interest.tell({0: [("quote", "A")], 1: [("quote", "B")]})
    await watching.look(0)
    assert mine[0].partition.watched == {"quote": {"A"}}
    mine.append(owned(1, "B", "C"))
    await watching.look(0.1)
    assert mine[1].partition.watched == {"quote": {"B"}}
    await interest.tell({1: [("quote", "C"), ("bars:1m", "C")]})
    await watching.look(0.2)
    assert mine[1].partition.watched == {"quote": {"B", "C"}, "bars:1m": {"C"}}
    await cache.delete("watched:0")
    await watching.look(0.3)
    assert mine[0].partition.watched == {"quote": {"A"}}
    await watching.look(0.2 + READ_S)
    assert mine[0].partition.watched == {}


async def test_every_partition_learns_which_boards_are_watched(cache: Any) -> None:
    """A board is the market's: whoever ranks a share of it is told."""
    interest, mine = Interest(cache), [owned(0), owned(1)]
    watching = Watching(interest, lambda: mine)
    await interest.tell({keys.ALL: [("board", "volume"), ("board", "low_float")]})
    await watching.look(0)
    told = [one for part in mine for one in part.partition.analyzers if isinstance(one, BoardsAnalyzer)]
    assert [one.watched for one in told] == [{"volume", "low_float"}] * 2


async def test_names_that_nobody_trades_cost_nothing(cache: Any) -> None:
    """However many are asked for; one that is traded later is known at the next reading."""
    interest, mine = Interest(cache), [owned(0, "A")]
    watching = Watching(interest, lambda: mine)
    await interest.tell({0: [("quote", "A"), *(("quote", f"NOBODY{n}") for n in range(9_000))]})
    await watching.look(0)
    assert mine[0].partition.watched == {"quote": {"A"}}
    mine[0].partition.listing.note("NOBODY7", Mark("s", 2))
    await watching.look(READ_S)
    assert mine[0].partition.watched == {"quote": {"A", "NOBODY7"}}
