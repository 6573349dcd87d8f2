"""Tests that virtual time and simulated processes are what they claim to be: quick, gated, repeatable."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

import pytest

from tests.sim.links import NETWORK
from tests.sim.loop import Process, Stuck, VirtualLoop


def play(loop: VirtualLoop, work: Coroutine[Any, Any, Any]) -> Any:
    try:
        return loop.run_until_complete(loop.create_task(work, context=NETWORK.copy()))
    finally:
        loop.close()


async def count(ticks: list[float]) -> None:
    loop = asyncio.get_running_loop()
    while True:
        await asyncio.sleep(1.0)
        ticks.append(loop.time())


def test_an_hour_passes_at_once() -> None:
    """A sleep of an hour ends after an hour of the loop's time."""
    loop = VirtualLoop()
    began_s = loop.time()
    play(loop, asyncio.sleep(3600.0))
    assert loop.time() == began_s + 3600.0


def test_a_paused_process_does_nothing_until_it_goes_on() -> None:
    """While a process is paused its timers do not fire, others go on; then what was due runs, late."""
    loop = VirtualLoop()
    ticks: dict[str, list[float]] = {"frozen": [], "free": []}
    frozen, free = (Process(name, loop) for name in ticks)

    async def scene() -> None:
        tasks = [frozen.start(count(ticks["frozen"])), free.start(count(ticks["free"]))]
        await asyncio.sleep(2.5)
        frozen.paused = True
        await asyncio.sleep(5.0)
        assert (len(ticks["frozen"]), len(ticks["free"])) == (2, 7)
        frozen.resume()
        await asyncio.sleep(0.1)
        assert len(ticks["frozen"]) == 3
        for task in tasks:
            task.cancel()
        await asyncio.sleep(0)

    play(loop, scene())


def test_a_dead_process_never_runs_again() -> None:
    """What a process had under way when it died does not happen, not even its cleanup."""
    loop = VirtualLoop()
    happened: list[str] = []
    process = Process("mortal", loop)

    async def live() -> None:
        try:
            await asyncio.sleep(1.0)
            happened.append("work")
        finally:
            happened.append("cleanup")

    async def scene() -> None:
        process.start(live())
        await asyncio.sleep(0.5)
        process.dead = True
        await asyncio.sleep(5.0)
        assert happened == []
        process.dead = False
        process.resume()
        await asyncio.sleep(0)

    play(loop, scene())


def test_what_a_process_starts_belongs_to_it() -> None:
    """Tasks, timers and callbacks that a process makes are paused with it."""
    loop = VirtualLoop()
    process, heard = Process("parent", loop), []

    async def parent() -> None:
        asyncio.get_running_loop().call_later(1.0, heard.append, "timer")
        await asyncio.create_task(asyncio.sleep(1.0))
        heard.append("task")

    async def scene() -> None:
        process.start(parent())
        await asyncio.sleep(0.5)
        process.paused = True
        await asyncio.sleep(2.0)
        assert heard == []
        process.resume()
        await asyncio.sleep(0.1)
        assert heard == ["timer", "task"]

    play(loop, scene())


def test_a_loop_with_nothing_left_to_do_says_so() -> None:
    """Waiting for what can never happen is an error, not a hang."""
    loop = VirtualLoop()

    async def wait() -> None:
        await loop.create_future()

    with pytest.raises(Stuck):
        play(loop, wait())
