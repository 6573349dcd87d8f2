"""Looks at vendor accounts that work and at those that do not, with the real client on a server that behaves like the vendor."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest

from mdl import check as module
from mdl.check import Findings, check
from mdl.feeds.feed import Frame
from mdl.feeds.massive import MassiveFeed
from mdl.settings import MdlSettings
from mdl.vendor.routes import Fault, inflict
from mdl.vendor.stand_in import VendorServer
from service.errors import OperatorError
from tests.servers import free_port
from tests.stack import ROOT
from tests.waiting import until

NOW_MS = 1_700_000_000_000
Look = Callable[..., Any]


@pytest.fixture
async def look(vendor: VendorServer) -> Look:
    """Looks for a second at the stand-in's simulated market."""

    async def run(seconds: float = 1, **more: Any) -> tuple[list[str], list[str]]:
        url = f"ws://127.0.0.1:{vendor.port}"
        given = {
            "feed": "massive",
            "massive_url": url,
            "api_key": "good",
            "subscriptions": "T.*,Q.*",
            "massive_open_timeout_s": 5,
        }
        return await check(MdlSettings(**(given | more)), seconds)

    return run


async def test_it_says_what_came_and_how_late(look: Look) -> None:
    """A line for each kind of event, and nothing wrong."""
    came, wrong = await look(2)
    assert [line.split(":")[0] for line in came] == ["Q", "T"]
    assert all("symbols, least" in line for line in came)
    assert wrong == []


async def test_a_wrong_key_is_said_in_one_line(look: Look) -> None:
    """With what to do."""
    with pytest.raises(OperatorError, match=r"refused the API key.*MDL_API_KEY"):
        await look(api_key="bad")


async def test_another_feed_than_the_vendors_is_refused(look: Look) -> None:
    """There is nothing to look at."""
    with pytest.raises(OperatorError, match="MDL_FEED=massive"):
        await look(feed="simulator")


async def test_what_the_plan_does_not_include_is_named(vendor: VendorServer, look: Look) -> None:
    """The rest comes all the same."""
    came, wrong = await look(2, subscriptions="T.*,NOI.*")
    assert came
    assert "NOI.*" in wrong[0]


async def test_no_data_is_said(vendor: VendorServer, look: Look) -> None:
    """The connection stands, nothing comes: whether the market is open stands beside it."""
    inflict(vendor, Fault("pause"))
    came, wrong = await look()
    assert came == []
    assert "no data in 1 s for T.*, Q.*; the market's session is" in wrong[0]


async def test_nobody_answers(look: Look) -> None:
    """The address stands in the line."""
    port = free_port()
    came, wrong = await look(massive_url=f"ws://127.0.0.1:{port}")
    assert came == []
    assert len(wrong) == 1
    assert f"127.0.0.1:{port}" in wrong[0]


async def test_somebody_else_with_the_same_key_is_suspected(vendor: VendorServer, look: Look) -> None:
    """The vendor ends the older of two connections with one key."""
    task = asyncio.create_task(look(4))
    await until(lambda: vendor.clients)
    other = MassiveFeed("good", "stocks", ("T.*",), url=f"ws://127.0.0.1:{vendor.port}")
    taking = asyncio.create_task(anext(aiter(other)))
    _, wrong = await task
    assert any("connected with the same key" in one or "not connected" in one for one in wrong), wrong
    await other.close()
    taking.cancel()
    await asyncio.gather(taking, return_exceptions=True)


@pytest.mark.parametrize(
    ("age_ms", "delayed", "why"),
    [
        (20, False, ""), (-500, False, ""), (-90_000, False, "clock is behind"), (7_000, False, "clock is ahead"),
        (900_040, True, ""), (900_040, False, "a delayed one"), (600_000, True, "clock is behind"),
    ],
)  # fmt: skip
def test_a_wrong_clock_shows_in_the_ages(age_ms: int, delayed: bool, why: str) -> None:
    """Of what is sent as it happens; a minute's aggregate is a minute old."""
    found = Findings()
    found.take(Frame(b'[{"ev":"T","sym":"A","t":%d},{"ev":"AM","sym":"A","s":1,"e":5}]' % (NOW_MS - age_ms), NOW_MS * 1_000_000))
    assert why in found.clock_fault(delayed)
    assert bool(why) == bool(found.clock_fault(delayed))


def test_the_command_ends_with_one_when_something_is_wrong() -> None:
    """And its lines are all that it prints."""
    env = os.environ | {"MDL_FEED": "massive", "MDL_API_KEY": "k", "MDL_MASSIVE_URL": f"ws://127.0.0.1:{free_port()}"}
    command = [sys.executable, "-m", "mdl", "check", "--seconds", "1"]
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=180)
    assert done.returncode == 1
    assert [line.split(":")[0] for line in done.stdout.splitlines()] == ["wrong"]
    assert done.stderr == ""
    assert module.__doc__
