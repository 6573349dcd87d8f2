"""The real processes on a Redis Cluster: the same numbers as on one server, over a failed primary as well."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
import zlib
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from mdc.away import SHARED, Away
from mdc.channels import split
from mdc.documents import Doc
from mdc.reader import Reader
from service.keyspace import CLUSTERED
from tests.clusters.redis import FAST_MS, Cluster, ClusterNode
from tests.clusters.stack import ClusterStack
from tests.live.test_tapes import check, events_on, finished, partition_of_es, start
from tests.market import RATE, Market, answers
from tests.oracle import differences, expected
from tests.servers import RabbitMQ, free_port
from tests.stack import ROOT
from tests.tapes import tape
from tests.waiting import until
from tests.wds.talk import Talk
from wds.access.keys import mint_local

pytestmark = pytest.mark.live
OTHERS_S = 2.5  # without a print of a partition that lost nothing; a quiet machine shows no pause at all


@pytest.fixture
def running(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[ClusterStack]:
    """An empty stack on a RabbitMQ and three primaries of its own; with replicas where nodes are killed."""
    faults = request.node.get_closest_marker("faults") is not None
    cluster = Cluster(3, replicas=1, node_timeout_ms=FAST_MS) if faults else Cluster(3)
    try:
        cluster.start()
        with RabbitMQ() as rabbitmq:
            made = ClusterStack(tmp_path, rabbitmq, cluster)
            yield made
            made.close()
    finally:
        cluster.remove()


def test_a_tape_gives_the_same_numbers_on_three_primaries(running: ClusterStack) -> None:
    """Replayed over two processors, one of them killed: what the data service shows is what plain arithmetic over the file gives."""
    recorded = tape("es-2023-12-25.ndjson.gz")
    total = events_on(recorded)
    start(running, 2, recorded, "1000")
    running.start("wds", "wds serve", WDS_PORT=(port := free_port()))
    running.wait("a part of the tape", lambda: total * 0.2 < running.counts()["events"] < total * 0.7, 60)
    victim = running.owners()[partition_of_es()]
    running.stop(f"mdp{victim[1:]}", signal.SIGKILL)
    running.wait("the whole tape", lambda: finished(running, total), 60)
    check(running, recorded)
    assert running.counts()["events"] == total
    running.wait("the data service", lambda: answers(f"http://127.0.0.1:{port}/healthz"))
    channels = ["quote:ESH4", "bars:1m:ESH4", "trades:ESH4", "board:volume", "status:pipeline"]
    env = {**os.environ, "WDS_URL": f"ws://127.0.0.1:{port}/v1/stream", "RUN_DIR": str(running.folder)}
    command = [sys.executable, "-m", "wds", "get", *channels]
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=90)
    assert done.returncode == 0, done.stderr
    lines = {line["ch"]: line for line in map(json.loads, done.stdout.splitlines())}
    got = [lines[f"{kind}:ESH4"]["data"] for kind in ("quote", "trades", "bars:1m")]
    assert not differences("ESH4", expected(recorded)["ESH4"], *got)
    assert lines["board:volume"]["data"]["order"] == ["ESH4"]
    assert lines["status:pipeline"]["data"]["processors"]["workers"] >= 1
    alerts = [json.loads(body) for body in running.redis.lrange(f"{CLUSTERED.shared}ch:alerts:range", 0, -1)]
    assert [one["seq"] for one in alerts] == list(range(1, len(alerts) + 1))
    kept = {node.port: key for node in running.cluster.primaries for key in node.client().keys("*")}
    assert len(kept) == 3, "a primary holds nothing"


class Watcher:
    """A reader of the cache that notes when each partition's documents came, which were missed, and that none comes twice."""

    def __init__(self, url: str, symbols: list[str]) -> None:
        self.heard: dict[int, list[float]] = {number: [] for number in range(8)}
        self.states: list[tuple[bool, float]] = []
        self.away: list[tuple[list[int], float]] = []
        self.doubled: list[str] = []
        self.missed: set[int] = set()  # partitions of which a print is missing between two that came
        self._newest: dict[tuple[str, str], int] = {}
        self.symbols = symbols
        self.reader = Reader(
            url,
            self._on_docs,
            lambda up, _: self.states.append((up, time.monotonic())),
            on_away=lambda away: self.away.append((sorted(away.parts), time.monotonic())),
        )

    def _on_docs(self, docs: list[Doc]) -> None:
        now_s = time.monotonic()
        for doc in docs:
            kind, _, symbol = doc.ch.partition(":")
            before = self._newest.get((doc.ch, doc.epoch), 0)
            if doc.seq <= before:
                self.doubled.append(f"{doc.ch} {doc.epoch} {doc.seq} after {before}")
            self._newest[doc.ch, doc.epoch] = doc.seq
            if kind == "trades" and before and doc.seq > before + 1:
                self.missed.add(zlib.crc32(symbol.encode()) % 8)
            if kind == "trades":
                self.heard[zlib.crc32(symbol.encode()) % 8].append(now_s)

    async def watch(self, until_s: float) -> None:
        await self.reader.start()
        for symbol in self.symbols:
            await self.reader.watch(f"trades:{symbol}")
            await self.reader.watch(f"quote:{symbol}")
        await self.reader.watch("alerts:range")
        await asyncio.sleep(until_s - time.monotonic())
        await self.reader.close()

    def pause_s(self, partition: int, killed_s: float, before: bool = False) -> float:
        """Return the longest time without a print of the partition: since a little before the kill, or until it."""
        times = [at for at in self.heard[partition] if (at < killed_s if before else at > killed_s - 1)]
        return max((later - earlier for earlier, later in pairwise(times)), default=0.0 if before else 99.0)


def states_of(client: Talk) -> dict[str, str]:
    """Return what a client was told last of each channel that was ever not live."""
    return {one["ch"]: one["state"] for one in client.all(t="status")}


def part_of(channel: str) -> int:
    """Return the part of the cache that holds a channel."""
    kind, name = split(channel)
    return Away(8).part_of(kind, name)


async def kill_in_mid_stream(
    victim: ClusterNode, watcher: Watcher, url: str, run_dir: Path, channels: list[str]
) -> tuple[float, list[dict[str, Any]]]:
    """Kill a node while a reader and a client of the data service listen; return when, and what the client was told of freshness."""
    client = await Talk.to(int(url.rpartition(":")[2]), mint_local(run_dir, ("*",)))
    await client.ask(op="sub", ch=channels)
    watching = asyncio.create_task(watcher.watch(time.monotonic() + 18))
    await asyncio.sleep(4)
    killed_s = time.monotonic()
    await asyncio.to_thread(victim.kill)
    await watching
    await until(lambda: set(states_of(client).values()) == {"live"}, 10, "all live again")
    await client.close()
    return killed_s, client.all(t="status")


@pytest.mark.faults
@pytest.mark.parametrize(("which", "most_s"), [("of partitions alone", 5), ("of what all share", 15)])
def test_a_killed_primary_is_made_good_in_time(
    running: ClusterStack, which: str, most_s: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Under load, by SIGKILL: all partitions are fresh again, each event is there once or counted as lost, readers are told.

    Within 5 s; without the node that keeps the leases no longer than 15, of which a busy machine takes the greater part.
    """
    monkeypatch.setenv("MDL_LEASE_TTL_MS", "5000")
    market = Market(running, RATE // 2)
    market.start(workers=2)
    running.wait("a few seconds of market", lambda: running.counts()["events"] > 3 * market.rate)
    nodes = {number: running.cluster.node_of(CLUSTERED.of(number)) for number in range(8)}
    shared = running.cluster.node_of(CLUSTERED.shared)
    victim = shared if which == "of what all share" else next(node for node in nodes.values() if node is not shared)
    homes = (running.redis.smembers(f"{home}idx:quote") for home in CLUSTERED.homes(8))
    watcher = Watcher(running.cluster.url, [sorted(names)[0].decode() for names in homes])
    channels = [f"quote:{symbol}" for symbol in watcher.symbols] + ["board:volume", "alerts:range"]
    killed_s, statuses = asyncio.run(kill_in_mid_stream(victim, watcher, market.start_wds(), running.folder, channels))
    pauses = {number: round(watcher.pause_s(number, killed_s), 2) for number in range(8)}
    usual = {number: round(watcher.pause_s(number, killed_s, before=True), 2) for number in range(8)}
    affected = sorted(number for number, node in nodes.items() if node is victim)
    told = [(parts, round(at - killed_s, 2)) for parts, at in watcher.away]
    epochs: dict[str, Any] = {}
    running.redis = running.connect()
    for number in range(8):
        epochs[str(number)] = running.redis.get(f"{CLUSTERED.of(number)}mdc:epoch").decode()
    counts = market.settle()
    shown = {"killed": which, "affected": affected, "pauses_s": pauses, "usual_s": usual, "told": told, "counts": counts}
    print(json.dumps(shown | {"epochs": epochs}))
    assert not watcher.doubled, watcher.doubled[:5]
    assert max(pauses.values()) <= most_s, pauses
    gone = {*affected, SHARED} if victim is shared else set(affected)
    assert [up for up, _ in watcher.states] == [True], "the whole cache was called away"
    assert set().union(*(parts for parts, _ in told)) == gone, told
    assert told[-1][0] == [], told
    assert watcher.missed <= set(affected), "partitions of other nodes missed something"
    if victim is not shared:
        others_s = max(pause for number, pause in pauses.items() if number not in affected)
        assert others_s <= OTHERS_S + max(usual.values()), (pauses, usual)
    told_clients = [one for one in statuses if one.get("reason", "").startswith("cache unavailable")]
    assert {one["ch"] for one in told_clients} == {ch for ch in channels if part_of(ch) in gone}, told_clients
    assert len({epochs[str(number)] for number in range(8) if number not in affected} & {epochs[str(n)] for n in affected}) == 0
    alerts = [json.loads(body) for body in running.redis.lrange(f"{CLUSTERED.shared}ch:alerts:range", 0, -1)]
    kept = [(one["epoch"], one["seq"]) for one in alerts]
    assert len(kept) == len(set(kept))
