"""Checks that what the partitions of a cluster add to common channels gets there once, whoever leads and whatever answer is lost."""

from __future__ import annotations

import json
from typing import Any

import pytest

from mdc import keys
from mdc.connect import CacheUnavailable, open_cache
from mdc.documents import decode_doc
from mdc.writer import Flush, Outcome, Writer
from mdp.leader.merging import ENTRIES_MAX, Merger
from service.keyspace import CLUSTERED
from tests.clusters.redis import Cluster

ALERTS = f"{CLUSTERED.shared}ch:alerts:range"


@pytest.fixture
def url(cluster: Cluster) -> str:
    """The session's cluster, emptied."""
    cluster.empty()
    return cluster.url


class Deaf(Writer):
    """Its flushes are applied, and the answers are lost while `lost` says so."""

    lost = False

    async def write(self, flushes: Any) -> Any:
        answer = await super().write(flushes)
        if self.lost:
            raise CacheUnavailable("the answer was lost")
        return answer


async def alert(writer: Writer, partition: int, number: int, *marks: int) -> None:
    """Have a partition report alerts."""
    flush = Flush(partition, "e1")
    for mark in marks:
        flush.add_shared("alerts", "alerts:range", mark, b'{"mark":%d}' % mark)
    assert await writer.write([writer.call(flush, 1, number)]) == [Outcome.APPLIED]


async def lead(client: Any, writer: Writer, fence: int) -> Merger:
    """Become the leader, as the owner of partition 0 does."""
    epoch = await writer.open("e1", 8)
    await client.set(f"{CLUSTERED.shared}{keys.fence(0)}", fence)
    await writer.claim({0: 1, 1: 1, 2: 1}, epoch, "e1")
    return Merger(client, writer, 8)


async def marks(client: Any) -> list[int]:
    """Return what is in the common channel, and check its numbers."""
    docs = [decode_doc(body) for body in await client.lrange(ALERTS, 0, -1)]
    assert [doc.seq for doc in docs] == list(range(1, len(docs) + 1))
    return [json.loads(bytes(doc.data))["mark"] for doc in docs]


async def test_each_entry_is_merged_once_over_lost_answers_and_new_leaders(url: str) -> None:
    """A flush whose answer was lost is sent again unchanged; the next leader goes on where the last one was, and fences it off."""
    client = open_cache(url)
    writer = Deaf(client)
    first = await lead(client, writer, 1)
    await alert(writer, 0, 1, 1)
    await alert(writer, 1, 1, 2)
    await first.merge(1, "e1")
    assert sorted(await marks(client)) == [1, 2]
    await alert(writer, 2, 1, 3)
    writer.lost = True
    with pytest.raises(CacheUnavailable):
        await first.merge(1, "e1")
    writer.lost = False
    await alert(writer, 0, 2, 4)
    await first.merge(1, "e1")  # again what was lost
    await first.merge(1, "e1")
    assert (await marks(client))[2:] == [3, 4]
    second = await lead(client, Writer(client), 2)
    await alert(writer, 1, 2, 5)
    await first.merge(1, "e1")
    assert not (await marks(client))[4:], "who was replaced merges nothing"
    await second.merge(2, "e1")
    await second.merge(2, "e1")
    assert (await marks(client))[4:] == [5]
    await client.aclose()


async def test_more_than_a_round_takes_follows_with_the_next(url: str) -> None:
    """Nothing is passed over, and a partition's entries stay in their order."""
    client = open_cache(url)
    writer = Writer(client)
    merger = await lead(client, writer, 1)
    await alert(writer, 0, 1, *range(ENTRIES_MAX + 20))
    await merger.merge(1, "e1")
    assert merger.merged == ENTRIES_MAX
    await merger.merge(1, "e1")
    assert await marks(client) == list(range(ENTRIES_MAX + 20))
    await client.aclose()
