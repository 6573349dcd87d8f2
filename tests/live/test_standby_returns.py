"""A leader that was killed under load and replaced comes back by itself as a standby, and leads again; nothing is lost silently."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest

from engine.recovery.replay import recover
from tests.engine_pair import Client, Pair, acknowledged_by, opened, ordered, promote, shown, told
from tests.engine_process import OPERATOR, TOKEN, EngineProcess
from tests.stack import ROOT
from tests.waiting import until

pytestmark = pytest.mark.live

ROUNDS = 2  # each of the two engines is replaced once, and comes back


def pair_of(folder: Path) -> Pair:
    """Return two engines that know each other from the start, with `async` replication."""
    pair = Pair(folder, ENGINE_REWIND="true", ENGINE_FOLLOW_KEY=TOKEN)
    pair.lead.settings["ENGINE_STANDBY"] = pair.stand.url
    return pair


def set_aside(engine: EngineProcess, *more: str) -> list[dict[str, Any]]:
    """Return what the command lists."""
    argv = [sys.executable, "-m", "engine", "set-aside", *more]
    said = subprocess.run(argv, cwd=ROOT, env=engine.settings, capture_output=True, text=True, timeout=60, check=True).stdout
    return [json.loads(line) for line in said.splitlines()]


def orders_in(lines: list[dict[str, Any]]) -> dict[str, str]:
    """Return client id → order id of what was accepted in commands that were set aside."""
    events = (event for line in lines for event in line["events"] if event["type"] == "order.accepted")
    return {event["order"]["cl_ord_id"]: str(event["order_id"]) for event in events}


async def views(engine: EngineProcess, accounts: range) -> list[Any]:
    """Return the book and every account, as a reader gets them."""
    paths = ["/OrderBook?symbol=BTC-PERP&depth=100", *(f"/Account/{account}" for account in accounts)]
    async with httpx.AsyncClient(headers=OPERATOR, timeout=20, trust_env=False) as http:
        return [(await http.get(engine.url + path)).json() for path in paths]


async def test_the_old_leader_returns_follows_and_leads_again(tmp_path: Path) -> None:
    """Killed with commands that its frozen standby never got; promoted; restarted as it was: it sets them aside and follows. Then
    the same the other way round. Every acknowledged order is in the last journal or in a list, under the id that was told."""
    pair, stop = pair_of(tmp_path), asyncio.Event()
    clients = [Client(pair, account) for account in range(1, 5)]

    def done() -> int:
        return sum(len(client.acknowledged) for client in clients)

    async def more(orders: int, what: str) -> None:
        wanted = done() + orders
        await until(lambda: done() > wanted, 60, what)

    lost: dict[str, str] = {}
    try:
        await pair.start()
        await clients[0].insist("PUT", "/MessageStore?storeId=audit")
        await opened(*clients)
        assert await ordered(pair.lead, "rests") == (201, "")
        running = [asyncio.create_task(client.run(stop)) for client in clients]
        for turn in range(1, ROUNDS + 1):
            await more(60, f"orders before round {turn}")
            await until(lambda: shown(pair.stand).get("missingCommands", -1) >= 0, 20, "the standby follows")
            assert pair.stand.process is not None
            pair.engines.sort(key=lambda engine: engine is not pair.lead)  # whom clients try first
            pair.stand.process.send_signal(signal.SIGSTOP)
            await more(40, "orders that the standby does not get")
            pair.lead.end(signal.SIGKILL)
            pair.stand.process.send_signal(signal.SIGCONT)
            assert (await pair.promote())["term"] == turn
            await more(20, "orders of the new leader")
            returned = pair.stand
            returned.start()
            await until(lambda: returned.readiness().get("ready") and shown(returned).get("role") == "standby", 60, "it follows")  # noqa: B023
            (file,) = set_aside(returned, "--files")
            aside = set_aside(returned)
            assert len(aside) == file["commands"] >= 20
            assert file["leaderTerm"] == turn
            lost |= orders_in(aside)
        await more(20, "orders in the end")
        stop.set()
        await asyncio.gather(*running)
        last = shown(pair.lead)["index"]
        await until(lambda: shown(pair.stand).get("index") == last, 30, "the standby has everything")
        accounts = range(1, 5)
        assert await views(pair.stand, accounts) == await views(pair.lead, accounts)
        assert pair.lead.end(signal.SIGTERM) == 0
        assert pair.stand.end(signal.SIGTERM) == 0
    finally:
        pair.stop()
    folders = [tmp_path / engine.folder.name / "engine" for engine in (pair.lead, pair.stand)]
    plain, by_name = told(folders[0])
    acknowledged = acknowledged_by(clients)
    missing = acknowledged.items() - by_name.items()
    assert missing <= lost.items(), "an acknowledged order is neither in the journal nor in a list"
    assert missing, "the kills had something to lose"
    assert told(folders[1])[0].digest() == plain.digest()
    for folder in folders:
        assert recover(folder / "journal", folder / "snapshots").state.digest() == plain.digest()


async def test_a_start_before_the_new_leader_answers_ends_when_it_calls(tmp_path: Path) -> None:
    """Both were down and the replaced one starts first: it leads until the later leader calls it, then stops, and follows at its
    next start; what it took meanwhile is in the list. Without ENGINE_REWIND it stops with one line that says what to do."""
    pair = pair_of(tmp_path)
    try:
        await pair.start()
        client = Client(pair, 1)
        await opened(client)
        await until(lambda: shown(pair.stand).get("missingCommands") == 0, 20)
        old = pair.lead
        old.end(signal.SIGKILL)
        pair.stand.end(signal.SIGTERM)
        done = await asyncio.to_thread(promote, pair.stand)
        assert done.returncode == 0, done.stderr
        new = pair.stand
        old.start()
        await until(lambda: old.readiness().get("ready"), 40)
        assert await ordered(old, "too-late") == (201, "")
        new.start()
        await until(lambda: new.readiness().get("ready"), 40)
        assert old.process is not None
        assert await asyncio.to_thread(old.process.wait, 40) == 3
        assert "leads in term 1" in old.log.strip().splitlines()[-1]
        old.settings["ENGINE_REWIND"] = "false"
        old.start()
        assert await asyncio.to_thread(old.process.wait, 40) == 3
        assert "ENGINE_REWIND=true" in old.log.strip().splitlines()[-1]
        old.settings["ENGINE_REWIND"] = "true"
        old.start()
        await until(lambda: old.readiness().get("ready") and shown(old).get("role") == "standby", 40)
        assert list(orders_in(set_aside(old))) == ["too-late"]
        assert await ordered(new, "too-late") == (201, ""), "its name is free in the history that counts"
    finally:
        pair.stop()
