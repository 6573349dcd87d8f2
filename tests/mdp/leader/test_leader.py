"""What is merged over partitions: boards and status."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
import structlog

from mdc import keys
from mdc.channels import BOARDS
from mdc.connect import CacheUnavailable
from mdc.documents import decode_doc
from mdc.writer import Writer
from mdp.leader.leader import LOOK_AGAIN_MS, STATS, Leader
from mdp.leader.status import PluginStats, WorkerStats
from mdp.partitions.partition import Partition
from tests.mdc.ground import open_source

NOW = 1_700_000_000_000


async def ground(cache: Any) -> tuple[Leader, Partition]:
    source = await open_source(cache)
    return Leader(cache, source.writer, 4, 2, BOARDS), Partition(0, 1, source.epoch, [])


def share(*rows: tuple[float, str]) -> bytes:
    return json.dumps([[rank, sym, {"sym": sym}] for rank, sym in rows]).encode()


async def test_boards_are_merged_when_a_share_changed(cache: Any) -> None:
    """The best rows of all partitions, once a change; shares of partitions that are no more do not count."""
    leader, zero = await ground(cache)
    await leader.publish(zero, NOW, NOW, False)
    assert await cache.exists("ch:board:volume") == 0
    await cache.hset("part:board:volume", mapping={"0": share((5, "A"), (1, "B")), "3": share((3, "C")), "9": share((99, "Z"))})
    await leader.publish(zero, NOW, NOW, False)
    await leader.publish(zero, NOW + 250, NOW + 250, False)
    doc = decode_doc(await cache.get("ch:board:volume"))
    assert (doc.seq, doc.ts) == (1, NOW)
    assert json.loads(bytes(doc.data)) == {"order": ["A", "C"], "rows": {"A": {"sym": "A"}, "C": {"sym": "C"}}}
    await cache.hset("part:board:volume", "3", share((7, "C")))
    await leader.publish(zero, NOW + 500, NOW + 500, False)
    assert json.loads(bytes(decode_doc(await cache.get("ch:board:volume")).data))["order"] == ["C", "A"]


async def test_a_share_is_read_again_when_its_version_says_so(cache: Any) -> None:
    """A partition that tells versions has no other boards; the share of a worker older than versions is read each time."""
    leader, zero = await ground(cache)

    async def order(version: str) -> list[str]:
        await cache.hset("part:board_versions", "0 volume", version)
        await leader.publish(zero, NOW, NOW, False)
        return list(json.loads(bytes(decode_doc(await cache.get("ch:board:volume")).data))["order"])

    await cache.hset("part:board:volume", mapping={"0": share((5, "A")), "3": share((3, "C"))})
    await cache.hset("part:board:gainers", "0", share((5, "A")))
    assert await order("1") == ["A", "C"]
    await cache.hset("part:board:volume", mapping={"0": share((4, "B"))})
    assert await order("1") == ["A", "C"]
    assert await order("2") == ["B", "C"]
    await cache.hset("part:board:volume", mapping={"3": share((6, "D"))})
    assert await order("2") == ["D", "B"]
    assert await cache.exists("ch:board:gainers") == 0


async def test_a_share_written_without_a_version_is_seen_before_long(cache: Any) -> None:
    """In an upgrade a partition may go back to a worker that is older than versions: its board must not stand still unseen."""
    leader, zero = await ground(cache)
    await cache.hset("part:board_versions", "0 volume", "1")
    for after_ms, rank in ((0, 1), (1_000, 2), (LOOK_AGAIN_MS, 2), (LOOK_AGAIN_MS + 250, 2)):
        await cache.hset("part:board:volume", "0", share((rank, f"S{rank}")))
        await leader.publish(zero, NOW + after_ms, NOW + after_ms, False)
        doc = decode_doc(await cache.get("ch:board:volume"))
        seen = 2 if after_ms >= LOOK_AGAIN_MS else 1
        assert (list(json.loads(bytes(doc.data))["rows"]), doc.seq) == ([f"S{seen}"], seen)


async def test_the_status_is_published_whether_or_not_there_is_data(cache: Any) -> None:
    """Silence means that the processors are gone, so they never are silent; workers long gone are forgotten."""
    leader, zero = await ground(cache)
    stats = {name: msgspec.json.encode(WorkerStats(name, ts, [0, 1, 2, 3])) for name, ts in (("a", NOW), ("old", NOW - 100_000))}
    await cache.hset(STATS, mapping=stats)
    zero.listeners["s"] = {"state": "live"}
    for n in range(3):
        await leader.publish(zero, NOW + n * 1_000, NOW + n * 1_000, True)
    doc = decode_doc(await cache.get("ch:status:pipeline"))
    facts = json.loads(bytes(doc.data))
    assert (doc.seq, facts["sources"]["s"]["listener"], facts["processors"]["workers"]) == (3, {"state": "live"}, 1)
    assert await cache.hkeys(STATS) == [b"a"]


async def test_who_lost_partition_zero_publishes_nothing_and_begins_anew_later(cache: Any) -> None:
    """Two leaders never both write; what was refused or failed is published when it can be."""
    leader, zero = await ground(cache)
    await cache.hset("part:board:volume", "0", share((5, "A")))
    await cache.set("fence:partition:0", 2)
    await leader.publish(zero, NOW, NOW, True)
    assert await cache.exists("ch:board:volume", "ch:status:pipeline") == 0
    zero.fence = 2
    good = leader._writer
    leader._writer = Away(cache)
    with pytest.raises(CacheUnavailable):
        await leader.publish(zero, NOW, NOW, False)
    leader._writer = good
    await leader.publish(zero, NOW, NOW, False)
    assert await cache.exists("ch:board:volume") == 1


class Away(Writer):
    async def write(self, flushes: Any) -> Any:
        raise CacheUnavailable("away")


async def test_a_new_cache_gets_every_board(cache: Any) -> None:
    """Another epoch: what is unchanged since is published again."""
    leader, zero = await ground(cache)
    await cache.hset("part:board:volume", "0", share((5, "A")))
    await leader.publish(zero, NOW, NOW, False)
    await cache.delete("ch:board:volume")
    await cache.set(f"{leader._writer.space.shared}{keys.EPOCH}", "e2")
    zero.epoch = "e2"
    await leader.publish(zero, NOW, NOW, False)
    assert decode_doc(await cache.get("ch:board:volume")).epoch == "e2"


async def test_a_board_that_nobody_ranks_any_more_is_emptied_and_not_listed(cache: Any) -> None:
    """Taken out of MDP_BOARDS: whoever looks at it sees its rows go, instead of a frozen board that looks live."""
    leader, zero = await ground(cache)
    before = Leader(cache, leader._writer, 4, 2, (*BOARDS, "runners"))
    await cache.hset("part:board:runners", "0", share((5, "A")))
    await before.publish(zero, NOW, NOW, False)
    assert await cache.sismember("idx:board", "runners")
    for n in range(3):
        await leader.publish(zero, NOW + n, NOW + n, False)
    doc = decode_doc(await cache.get("ch:board:runners"))
    assert (doc.seq, json.loads(bytes(doc.data))) == (2, {"order": [], "rows": {}})
    assert not await cache.sismember("idx:board", "runners")
    assert await cache.exists("part:board:runners") == 0
    await cache.hset("part:board:runners", "0", share((5, "A")))
    again = Leader(cache, leader._writer, 4, 2, (*BOARDS, "runners"))
    await again.publish(zero, NOW, NOW, False)
    assert decode_doc(await cache.get("ch:board:runners")).seq == 3
    assert await cache.sismember("idx:board", "runners")


async def test_the_share_of_a_partition_whose_worker_does_not_know_the_board_does_not_count(cache: Any) -> None:
    """Two workers with different MDP_BOARDS: rows of before are taken out, and the log names who differs, once."""
    leader, zero = await ground(cache)
    leader = Leader(cache, leader._writer, 4, 9, (*BOARDS, "runners"))
    await cache.hset("part:board:runners", mapping={"0": share((5, "A")), "1": share((4, "B"))})
    stats = {"a": WorkerStats("a", NOW, [0], boards=["runners"]), "b": WorkerStats("b", NOW, [1], boards=["runners"])}
    with structlog.testing.capture_logs() as logs:
        for n, known in enumerate((["runners"], [], [], ["runners"])):
            stats["b"].boards = known
            stats["b"].ts = stats["a"].ts = NOW + n
            await cache.hset(STATS, mapping={name: msgspec.json.encode(one) for name, one in stats.items()})
            await leader.publish(zero, NOW + n, NOW + n, True)
            order = json.loads(bytes(decode_doc(await cache.get("ch:board:runners")).data))["order"]
            assert order == (["A", "B"] if known else ["A"])
        stats["a"].boards = stats["b"].boards = []
        stats["b"].ts = stats["a"].ts = NOW + 9
        await cache.hset(STATS, mapping={name: msgspec.json.encode(one) for name, one in stats.items()})
        await leader.publish(zero, NOW + 9, NOW + 9, True)
    assert json.loads(bytes(decode_doc(await cache.get("ch:board:runners")).data))["order"] == []
    assert [line["workers"] for line in logs if line["event"] == "boards_differ"] == [["b"], ["a", "b"]]


async def test_workers_with_other_plugins_are_named_and_their_shares_do_not_count(cache: Any) -> None:
    """Another version, or none at all; the board has the rows of those who have the plug-in, and is emptied when nobody has."""
    source = await open_source(cache)
    mine = WorkerStats("a", NOW, [0, 1], plugins=[PluginStats("spread", "1", "running", boards=["spreads"])])
    leader, zero = Leader(cache, source.writer, 4, 9, (*BOARDS, "spreads"), mine), Partition(0, 1, source.epoch, [])
    other = WorkerStats("b", NOW, [2, 3], plugins=[PluginStats("spread", "2", "running", boards=["spreads"])])
    await cache.hset("part:board:spreads", mapping={"0": share((5, "A")), "3": share((3, "C"))})
    with structlog.testing.capture_logs() as logs:
        for n, plugins in enumerate((other.plugins, other.plugins, [], mine.plugins)):
            mine.ts = other.ts = NOW + n
            other.plugins = plugins
            await cache.hset(STATS, mapping={one.worker: msgspec.json.encode(one) for one in (mine, other)})
            await leader.publish(zero, NOW + n, NOW + n, True)
            order = json.loads(bytes(decode_doc(await cache.get("ch:board:spreads")).data))["order"]
            assert order == (["A", "C"] if plugins else ["A"])
    differ = [(line["workers"], line["own_plugins"]) for line in logs if line["event"] == "plugins_differ"]
    assert differ == [(["b"], ["spread 1"])]
    assert not [line for line in logs if line["event"] == "boards_differ"]
    await Leader(cache, source.writer, 4, 9, BOARDS, WorkerStats("a", NOW)).publish(zero, NOW + 9, NOW + 9, False)
    assert json.loads(bytes(decode_doc(await cache.get("ch:board:spreads")).data))["order"] == []


async def test_what_nobody_can_read_is_told_once_and_left_out(cache: Any) -> None:
    """Damaged shares, versions, counts, words of a worker and an old status end no leader: the others' rows and numbers stand."""
    leader, zero = await ground(cache)
    damaged = b"\xff{no json"
    await cache.hset("part:board:volume", mapping={"0": share((5, "A")), "1": damaged, "2": b'[["x"]]'})
    await cache.hset("part:board_versions", mapping={"x volume": "1", damaged: "1"})
    await cache.hset("part:counts", mapping={"0": b'{"events":{"a/trades":7}}', "1": damaged})
    await cache.hset(STATS, mapping={"w1": msgspec.json.encode(WorkerStats("w1", NOW, [0], {"a": [0]})), "w2": damaged})
    await cache.set("ch:status:pipeline", damaged)
    with structlog.testing.capture_logs() as logs:
        for turn in range(3):
            await leader.publish(zero, NOW + turn, NOW + turn, True)
    assert json.loads(bytes(decode_doc(await cache.get("ch:board:volume")).data))["order"] == ["A"]
    status = json.loads(bytes(decode_doc(await cache.get("ch:status:pipeline")).data))
    assert (status["sources"]["a"]["events"], status["processors"]["workers"]) == (7, 1)
    told = [one["entry"] for one in logs if one["event"] == "entry_unreadable"]
    assert len(told) == len(set(told)) == 7, told
    await cache.hset("part:board:volume", "1", share((9, "B")))
    await leader.publish(zero, NOW + LOOK_AGAIN_MS + 9, NOW + LOOK_AGAIN_MS + 9, False)
    assert json.loads(bytes(decode_doc(await cache.get("ch:board:volume")).data))["order"] == ["B", "A"]
