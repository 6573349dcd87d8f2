"""The real engine, real bots and a real database; the consumer is killed, starved and cut off: every execution is there once."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import resource
import signal
import sqlite3
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from engine.journal.reader import read
from tests.engine.oms.ground import expected, last_index, query, sqlite_url, stored
from tests.engine_process import OPERATOR, TOKEN, EngineProcess
from tests.scale import many
from tests.servers import free_port
from tests.stack import ROOT, _die_with_parent
from tests.waiting import until

pytestmark = pytest.mark.live

KILLS = many(25, 6)
START_S_MAX = 30


class Floor:
    """An engine and the processes around it, all in one folder; whatever is started here is ended here, by pid."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.engine = EngineProcess(folder)
        self.processes: dict[str, subprocess.Popen[bytes]] = {}

    def start(self, name: str, silent: bool = False, **settings: object) -> subprocess.Popen[bytes]:
        """Start `python -m engine name`; its log is in `name.log`."""
        env = {
            "PATH": "/usr/bin:/bin", "RUN_DIR": str(self.folder), "ENGINE_URL": self.engine.url, "OMS_ENGINE_URL": self.engine.url,
            "OMS_ADMIN_PORT": "0", "BOTS_API_TOKEN": TOKEN, "OMS_API_TOKEN": TOKEN, "BOTS_ADMIN_PORT": "0", "OMS_PURGE_MS": "50", "HOME": os.environ.get("HOME", "/"),
        }  # fmt: skip
        with (self.folder / f"{name}.log").open("ab") as log:
            out = subprocess.DEVNULL if silent else log
            self.processes[name] = subprocess.Popen(
                [sys.executable, "-m", "engine", name], cwd=ROOT, env=env | {k: str(v) for k, v in settings.items()},
                stdin=subprocess.DEVNULL, stdout=out, stderr=out, preexec_fn=_die_with_parent,
            )  # fmt: skip
        return self.processes[name]

    async def end(self, name: str, sig: int = signal.SIGTERM) -> int:
        """Send a signal and return the exit code."""
        process = self.processes.pop(name)
        process.send_signal(sig)
        return await asyncio.to_thread(process.wait, 20)

    def log(self, name: str) -> str:
        return (self.folder / f"{name}.log").read_text(errors="replace")

    def messages(self) -> list[bytes]:
        """Return every message of the engine's journal."""
        return [record.message for record in read(self.folder / "engine" / "journal") if record.message]

    async def call(self, method: str, path: str) -> Any:
        """Ask the gateway, which may be starting."""
        async with httpx.AsyncClient(base_url=self.engine.url, headers=OPERATOR, trust_env=False) as client:

            async def answered() -> httpx.Response | None:
                with contextlib.suppress(httpx.TransportError):
                    return await client.request(method, path)
                return None

            answer = await until(answered, START_S_MAX, f"{method} {path}")
        assert answer.is_success, answer.text
        return answer.json()

    async def quiet(self, url: str) -> int:
        """Stop the bots, wait until the database has everything, end engine and consumer; return the last index."""
        await self.end("bots")
        await self.call("GET", "/Instrument")
        (record,) = await self.call("GET", "/MessageStore")
        last = int(record["lastItemIndex"])
        await until(lambda: last_index(url) >= last, START_S_MAX, f"the database at {last}: {self.log('oms')[-2000:]}")
        assert await self.end("oms") == 0
        assert self.engine.end(signal.SIGTERM) == 0
        return last


@asynccontextmanager
async def floor_in(folder: Path) -> AsyncIterator[Floor]:
    floor = Floor(folder)
    floor.engine.start()
    try:
        await floor.call("GET", "/Instrument")
        yield floor
    finally:
        for process in [*floor.processes.values(), floor.engine.process]:
            if process is not None and process.poll() is None:
                process.kill()
                process.wait()


@pytest.fixture(params=["sqlite", "postgres"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A new database of each kind."""
    return sqlite_url(tmp_path) if request.param == "sqlite" else str(request.getfixturevalue("postgres_url"))


def begins(url: str) -> int:
    rows, _ = query(url, "SELECT firstIndex FROM MessageIndex")
    return int(rows[0][0])


def check(floor: Floor, url: str, executions_min: int) -> None:
    """Rows are those of the journal's messages since the store was made: each execution once, each order as it ended."""
    first = begins(url)
    messages = [message for message in floor.messages() if json.loads(message)["messageIndex"] >= first]
    orders, trades = expected(messages)
    assert stored(url) == (orders, trades)
    assert len(orders) + len(trades) > executions_min, "too little happened for the test to mean anything"


async def test_a_consumer_that_is_killed_again_and_again_has_everything_once(tmp_path: Path, url: str) -> None:
    """25 SIGKILLs (10 in the usual run) while 300 commands a second go on: while it starts, writes, purges; rows equal the engine's executions."""
    dice = random.Random(17)
    async with floor_in(tmp_path) as floor:
        floor.start("oms", OMS_DATABASE_URL=url, OMS_BATCH_MAX=20)
        await until(lambda: url_begun(url), START_S_MAX)
        floor.start("bots", BOTS_RATE=300)
        await until(lambda: last_index(url) > 200, START_S_MAX, "the first rows")
        for kill in range(many(25, 4) if url.startswith("sqlite") else KILLS):
            if kill % 4:  # else it dies while it starts
                before = last_index(url)
                await until(lambda before=before: last_index(url) > before, START_S_MAX, f"life {kill}")  # type: ignore[misc]
            await asyncio.sleep(dice.random() * 0.3)  # a random point of its life, not a wait for something
            assert await floor.end("oms", signal.SIGKILL) == -signal.SIGKILL
            floor.start("oms", OMS_DATABASE_URL=url, OMS_BATCH_MAX=20)
        last = await floor.quiet(url)
        assert last > 1_000
        check(floor, url, 1_000)


def url_begun(url: str) -> bool:
    with contextlib.suppress(Exception):
        return bool(query(url, "SELECT firstIndex FROM MessageIndex")[0])
    return False


async def test_the_consumer_outlives_the_engine(tmp_path: Path) -> None:
    """Five SIGKILLs of the engine (two in the usual run) under load: the same consumer process goes on, nothing is missing and nothing twice."""
    url, dice = sqlite_url(tmp_path), random.Random(23)
    async with floor_in(tmp_path) as floor:
        oms = floor.start("oms", OMS_DATABASE_URL=url)
        await until(lambda: url_begun(url), START_S_MAX)
        floor.start("bots", BOTS_RATE=300)
        for life in range(many(5)):
            before = last_index(url)
            await until(lambda b=before: last_index(url) > b + dice.randint(100, 400), START_S_MAX, f"life {life}")  # type: ignore[misc]
            floor.engine.end(signal.SIGKILL)
            floor.engine.start()
        assert oms.poll() is None
        await floor.quiet(url)
        check(floor, url, 100 * many(5))


async def test_a_full_disk_and_a_lock_are_waited_out(tmp_path: Path) -> None:
    """The file may not grow, then another process locks it: nothing that is not committed is purged, afterwards all is there."""
    url, path = sqlite_url(tmp_path), tmp_path / "oms.sqlite"
    async with floor_in(tmp_path) as floor:
        port = free_port()
        oms = floor.start("oms", silent=True, OMS_DATABASE_URL=url, OMS_ADMIN_PORT=port)
        await until(lambda: url_begun(url), START_S_MAX)
        floor.start("bots", BOTS_RATE=200)
        await until(lambda: last_index(url) > 200, START_S_MAX)

        resource.prlimit(oms.pid, resource.RLIMIT_FSIZE, (4_096, resource.RLIM_INFINITY))  # every write of it fails from now on
        fault = await until(lambda: unready(port), START_S_MAX)
        assert "database" in fault
        committed = last_index(url)
        (store,) = await floor.call("GET", "/MessageStore")
        assert store["firstItemIndex"] <= committed
        assert oms.poll() is None
        resource.prlimit(oms.pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        await until(lambda: last_index(url) > committed + 100, START_S_MAX, "rows after the disk is back")

        with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            fault = await until(lambda: unready(port), START_S_MAX)
            assert "locked" in fault
            locked_at = last_index(url)
            (store,) = await floor.call("GET", "/MessageStore")
            assert store["firstItemIndex"] <= locked_at
            other.execute("ROLLBACK")
        await until(lambda: last_index(url) > locked_at + 100, START_S_MAX, "rows after the lock")
        (tmp_path / "oms.log").touch()
        await floor.quiet(url)
        check(floor, url, 300)


async def unready(port: int) -> str:
    """Return what a component's admin port says is missing."""
    async with httpx.AsyncClient(trust_env=False) as client:
        with contextlib.suppress(httpx.TransportError):
            return " ".join((await client.get(f"http://127.0.0.1:{port}/readyz")).json()["reasons"])
    return ""


async def test_a_gap_ends_the_process_with_what_to_do(tmp_path: Path) -> None:
    """Somebody else purges our store while we are down: exit code 4, one line, and what is stored stays as it is."""
    url = sqlite_url(tmp_path)
    async with floor_in(tmp_path) as floor:
        floor.start("oms", OMS_DATABASE_URL=url)
        await until(lambda: url_begun(url), START_S_MAX)
        floor.start("bots", BOTS_RATE=200)
        await until(lambda: last_index(url) > 100, START_S_MAX)
        assert await floor.end("oms") == 0
        before, rows = last_index(url), stored(url)

        async def ahead() -> int:
            (store,) = await floor.call("GET", "/MessageStore")
            return int(store["lastItemIndex"]) if store["itemCount"] > 50 else 0

        index = await until(ahead, START_S_MAX)
        await floor.call("DELETE", f"/MessageStore/Purge?storeId=oms&messageIndex={index}")
        oms = floor.start("oms", OMS_DATABASE_URL=url)
        assert await asyncio.to_thread(oms.wait, START_S_MAX) == 4
        line = floor.log("oms").splitlines()[-1]
        assert line.startswith("tapeline engine oms: error: Store 'oms'")
        assert "new one" in line
        assert (last_index(url), stored(url)) == (before, rows)
