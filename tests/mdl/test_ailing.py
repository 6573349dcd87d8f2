"""A vendor that is connected and does not give what was asked of it: the listener is unready and says why."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator

import pytest

from mdl.feeds.simulator import SimulatorFeed
from mdl.settings import VendorSettings
from mdl.simulation.market import Simulator
from mdl.vendor.stand_in import VendorServer
from tests.mdl.rig import Start, call, only
from tests.waiting import until


@pytest.fixture
async def vendor() -> AsyncIterator[VendorServer]:
    """A vendor whose market is silent until a test says something; one of its keys has a small plan."""
    made = VendorServer(VendorSettings(port=0, keys="good,small:T+AM"), SimulatorFeed(Simulator(5, seed=7), 0))
    await made.start()
    yield made
    await made.stop()


async def test_a_subscription_the_plan_lacks_is_named_and_the_others_flow(start: Start, vendor: VendorServer, name: str) -> None:
    """In readiness, in the status event and in GET /feed, until another plan's key is given."""
    listener = await start(
        f"memory://{name}", feed="massive", api_key="small", subscriptions="T.*,Q.*,AM.*",
        massive_url=f"ws://127.0.0.1:{vendor.port}", silence_s=0,
    )  # fmt: skip
    await until(lambda: listener.unready() == ["feed massive: the vendor refuses the subscription Q.*: not authorized"])
    assert only(listener).facts()["state"] == "live"
    assert "Q.*" in only(listener).facts()["reason"]
    assert "Q.*" in (await call(listener, "GET", "/feed")).json()["sources"]["stocks"]["reason"]
    await until(lambda: any(client.session.wants.count == 2 for client in vendor.clients))
    vendor.broadcast('[{"ev":"T","sym":"A","t":1}]')
    await until(lambda: only(listener).intake.router.events == 1)
    assert (await call(listener, "POST", "/feed", {"api_key": "good"})).status_code == 200
    await until(lambda: not listener.unready())
    assert only(listener).facts()["reason"] == ""


async def test_silence_while_the_market_trades_makes_us_unready_until_data_comes(
    start: Start, vendor: VendorServer, name: str
) -> None:
    """Crypto never closes; the vendor's words about the connection are no data."""
    listener = await start(
        f"memory://{name}", feed="massive", market="crypto", api_key="good", silence_s=0.3,
        massive_url=f"ws://127.0.0.1:{vendor.port}",
    )  # fmt: skip
    await until(lambda: any("no data for" in reason for reason in listener.unready()))
    assert "while the market is open" in only(listener).facts()["reason"]
    await until(lambda: any(client.session.wants.count == 4 for client in vendor.clients))
    heard = asyncio.Event()

    async def speak() -> None:
        while not heard.is_set():
            vendor.broadcast('[{"ev":"XT","pair":"BTC-USD","t":1}]')
            await asyncio.sleep(0.05)

    speaking = asyncio.create_task(speak())
    await until(lambda: not listener.unready())
    heard.set()
    await speaking
    await until(lambda: any("no data for" in reason for reason in listener.unready()))


@pytest.mark.parametrize("settings", [{"rate": 0}, {"session": "clock", "rate": 10}])
async def test_a_simulator_that_was_asked_to_be_silent_is_ready(start: Start, name: str, settings: dict[str, object]) -> None:
    """Rate 0, and New York's night: silence is what was asked for."""
    listener = await start(f"memory://{name}", feed="simulator", silence_s=0.05, **settings)
    await until(lambda: only(listener).session.state == "live")
    began_s = time.monotonic()
    await until(lambda: listener.unready() or time.monotonic() - began_s > 0.2)  # four times the limit
    assert listener.unready() == []
