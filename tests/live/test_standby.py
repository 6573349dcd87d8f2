"""Leader and standby as real processes: killed under load again and again, frozen, cut off, with a disk that refuses."""

from __future__ import annotations

import asyncio
import os
import random
import resource
import shutil
import signal
from pathlib import Path

import httpx
import pytest

from engine.recovery.replay import recover
from tests.cable import Cable
from tests.engine_pair import Client, Pair, acknowledged_by, opened, ordered, promote, shown, told
from tests.waiting import until

pytestmark = pytest.mark.live

FAULTS = 10 if os.environ.get("TEST_FAULTS") else 3  # one of each kind; `make faults` has 50 of them, in five lives
LIVES = 5 if os.environ.get("TEST_FAULTS") else 1
CLIENTS = 6


@pytest.mark.parametrize("seed", range(LIVES))
async def test_kills_under_load_lose_nothing_that_was_acknowledged(tmp_path: Path, seed: int) -> None:
    """`sync`, 50 faults (3 in the usual run): the leader is killed and the standby promoted, or started again, or the standby
    is killed. Whatever was acknowledged by whom is in the last leader's journal, once, with the id that was told."""
    pair, dice, stop = Pair(tmp_path, ENGINE_REPLICATION="sync"), random.Random(seed), asyncio.Event()
    clients = [Client(pair, account) for account in range(1, CLIENTS + 1)]

    def done() -> int:
        return sum(len(client.acknowledged) for client in clients)

    try:
        await pair.start()
        assert (await clients[0].insist("PUT", "/MessageStore?storeId=audit")).status_code == 200
        await opened(*clients)
        running = [asyncio.create_task(client.run(stop)) for client in clients]
        terms = 0
        for fault in range(FAULTS):
            wanted = done() + dice.randint(5, 120)
            await until(lambda wanted=wanted: done() > wanted, 60, f"orders before fault {fault}: {pair.lead.readiness()}")  # type: ignore[misc]
            kind = ("promote", "restart", "standby")[fault % 3 if fault < 3 else dice.choice((0, 0, 1, 2))]
            if kind == "standby":
                pair.stand.end(signal.SIGKILL)
                pair.stand.start()
            else:
                pair.lead.end(signal.SIGKILL)
            if kind == "restart":
                pair.lead.start()
            if kind == "promote":
                terms += 1
                assert (await pair.promote())["term"] == terms
                shutil.rmtree(tmp_path / pair.stand.folder.name / "engine")  # it may have a group that nobody was told of
                pair.follow()
        await pair.ready()
        wanted = done() + 50
        await until(lambda: done() > wanted, 60, "orders after the last fault")
        stop.set()
        await asyncio.gather(*running)
        assert pair.lead.end(signal.SIGTERM) == 0
        assert pair.stand.end(signal.SIGTERM) == 0
    finally:
        pair.stop()
    folders = [tmp_path / engine.folder.name / "engine" for engine in (pair.lead, pair.stand)]
    plain, by_name = told(folders[0])
    acknowledged = acknowledged_by(clients)
    assert acknowledged.items() <= by_name.items(), "an acknowledged order is lost or has another id"
    assert plain.term == terms > 0
    assert recover(folders[0] / "journal", folders[0] / "snapshots").state.digest() == plain.digest()
    assert told(folders[1])[0].digest() == plain.digest(), "the standby has the same state"


@pytest.mark.parametrize("replication", ["sync", "async"])
async def test_a_frozen_leader_wakes_up_to_a_later_term(tmp_path: Path, replication: str) -> None:
    """It acknowledges nothing with `sync`, learns of the new leader, stops with one line, and does not lead again."""
    pair = Pair(tmp_path, ENGINE_REPLICATION=replication)
    try:
        await pair.start()
        client = Client(pair, 1)
        await opened(client)
        old = pair.lead
        assert old.process is not None
        await until(lambda: shown(pair.stand)["missingCommands"] == 0)
        old.process.send_signal(signal.SIGSTOP)
        waiting = asyncio.create_task(ordered(old, "frozen"))
        done = await pair.promote("--replication", "async")
        assert (done["term"], done["missing"]) == (1, 0)
        assert await ordered(pair.lead, "after") == (201, "")
        old.process.send_signal(signal.SIGCONT)
        status, code = await waiting
        assert replication == "async" or status in (0, 503), code
        assert await asyncio.to_thread(old.process.wait, 40) == 3
        assert "leads in term 1" in old.log.strip().splitlines()[-1]
        old.start()
        assert await asyncio.to_thread(old.process.wait, 40) == 3
        assert "Another engine leads since term 1" in old.log.strip().splitlines()[-1]
        for engine in (old, pair.lead):
            refused = await asyncio.to_thread(promote, engine)
            assert refused.returncode in (2, 3)
            assert len(refused.stderr.strip().splitlines()) == 1
        assert pair.lead.end(signal.SIGKILL) == -signal.SIGKILL
        pair.lead.start()  # still with ENGINE_FOLLOW: who was promoted leads
        await until(lambda: shown(pair.lead).get("role") == "leader", 40)
    finally:
        pair.stop()


async def test_a_standby_reads_refuses_waits_for_its_disk_and_is_promoted_when_it_does_not_run(tmp_path: Path) -> None:
    """Books from the standby, orders refused with the leader's address; a full disk is said on both sides; a standby that was
    stopped is promoted from its folder, and keeps what it had."""
    pair = Pair(tmp_path, ENGINE_REPLICATION="sync", ENGINE_REPLICATION_TIMEOUT_MS="500")
    try:
        await pair.start()
        client = Client(pair, 1)
        await opened(client)
        assert await ordered(pair.lead, "before") == (201, "")
        async with httpx.AsyncClient(trust_env=False) as http:
            book = await http.get(f"{pair.stand.url}/OrderBook?symbol=BTC-PERP")
        assert book.json()["bids"] == [{"price": 50_000.0, "qty": 1, "orders": 1}]
        assert await ordered(pair.stand, "wrong") == (503, "NotTheLeader")
        assert pair.stand.process is not None
        pid = pair.stand.process.pid
        hard = resource.prlimit(pid, resource.RLIMIT_FSIZE)[1]
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (1_000, hard))
        assert await ordered(pair.lead, "uncertain") == (503, "NotReplicated")
        await until(lambda: any("File too large" in one for one in pair.stand.readiness().get("reasons", [])), 20)
        assert not pair.lead.readiness()["ready"]
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (hard, hard))
        await until(lambda: pair.lead.readiness().get("ready"), 30)
        assert await ordered(pair.lead, "uncertain") == (409, "DuplicateClOrdID")
        assert pair.stand.end(signal.SIGTERM) == 0
        pair.stand.settings["ENGINE_FOLLOW"] = ""
        pair.stand.start()
        assert await asyncio.to_thread(pair.stand.process.wait, 40) == 3
        assert "python -m engine promote" in pair.stand.log.strip().splitlines()[-1]
        assert (await pair.promote())["term"] == 1
        pair.lead.settings["ENGINE_REPLICATION"] = "async"
        pair.lead.start()
        await until(lambda: pair.lead.readiness().get("ready"), 40)
        assert await ordered(pair.lead, "uncertain") == (409, "DuplicateClOrdID")
    finally:
        pair.stop()


async def test_a_cut_cable_stops_a_sync_leader_until_it_is_mended(tmp_path: Path) -> None:
    """Not ready on both sides, with the reason; nothing to do but to mend it."""
    pair = Pair(tmp_path, ENGINE_REPLICATION="sync")
    with Cable(pair.lead.url) as cable:
        try:
            pair.lead.start()
            pair.follow(cable.url)
            await pair.ready()
            cable.cut()
            await until(lambda: any("standby" in one for one in pair.lead.readiness().get("reasons", [])), 20)
            await until(lambda: pair.stand.readiness().get("reasons"), 20)
            cable.mend()
            await pair.ready()
        finally:
            pair.stop()
