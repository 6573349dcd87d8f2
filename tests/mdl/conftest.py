"""Fixtures of the listener's tests: listeners that are ended in order, a vendor, names that no two tests share."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from mdl.feeds.simulator import SimulatorFeed
from mdl.listener import Listener
from mdl.settings import MdlSettings, VendorSettings
from mdl.simulation.market import Simulator
from mdl.vendor.stand_in import VendorServer
from mdq.broker import Broker
from mdq.connect import open_broker
from service.run import Shutdown
from tests.mdl.rig import PARTITIONS, TOKEN, Start
from tests.waiting import until


@pytest.fixture
def name() -> str:
    """A hub of the test's own."""
    return secrets.token_hex(4)


@pytest.fixture
async def start(tmp_path: Path) -> AsyncIterator[Start]:
    """Starts listeners; ends them all in order."""
    running: list[tuple[Shutdown, asyncio.Task[None], Broker]] = []

    async def begin(url: str, **settings: Any) -> Listener:
        base = {
            "mdq_partitions": PARTITIONS,
            "admin_port": 0,
            "admin_token": TOKEN,
            "run_dir": tmp_path,
            "record_dir": tmp_path / "rec",
        }
        broker = open_broker(url, "test-listener")
        listener = Listener(MdlSettings(**(base | settings)), broker)
        shutdown = Shutdown()
        task = asyncio.create_task(listener.run(shutdown))
        running.append((shutdown, task, broker))
        await until(lambda: task.done() or len(listener.sources) == len(listener.settings.feeds), seconds=15)
        if task.done():
            task.result()
        return listener

    yield begin
    for shutdown, task, broker in running:
        shutdown.ask()
        async with asyncio.timeout(10):
            await task
        await broker.close()


@pytest.fixture
async def vendor() -> AsyncIterator[VendorServer]:
    made = VendorServer(VendorSettings(port=0, keys="good"), SimulatorFeed(Simulator(20, seed=7), 2_000))
    await made.start()
    yield made
    await made.stop()
