"""Ends real processors at random moments while their queues are full, and expects each end to be clean and in time.

The worst moment is the subscribing: the first deliveries arrive while the other queues are still being asked for.
"""

from __future__ import annotations

import random
import signal
import subprocess
import time

import pytest

from tests.stack import Stack
from tests.waiting import until_sync

pytestmark = pytest.mark.live

PAIRS = 5
START_S_MAX = 60
STOP_S_MAX = 8.0  # a process that needs 10 s was given up by its own deadline


def start_market(running: Stack) -> None:
    """Start a listener that fills the queues faster than a processor that has just started empties them."""
    running.start("mdl", "mdl", MDL_FEED="simulator", MDL_SYMBOLS=500, MDL_RATE=10_000)


def stop_at_random(running: Stack, names: list[str], dice: random.Random) -> list[tuple[str, int, float]]:
    """Start processors and end each soon after its first partition; return name, exit code and seconds of each."""
    asked: dict[str, float] = {}
    for name in names:
        running.start(name, "mdp", MDP_WORKER=name)
    for name in names:
        until_sync(lambda name=name: "started" in running.log(name), START_S_MAX, every_s=0.002)  # type: ignore[misc]
        time.sleep(dice.random() * 0.5)  # the moment is what the test is about
        running.processes[name].send_signal(signal.SIGTERM)
        asked[name] = time.monotonic()
    took = {name: _wait(running.processes[name]) - asked[name] for name in names}
    return [(name, running.stop(name), took[name]) for name in names]


def _wait(process: subprocess.Popen[bytes]) -> float:
    try:
        process.wait(20)
    except subprocess.TimeoutExpired:
        process.kill()
    return time.monotonic()


def test_a_processor_ends_cleanly_at_any_moment(running: Stack) -> None:
    """SIGTERM at random moments of processors that start on full queues: exit code 0 each time, well within the deadline."""
    start_market(running)
    dice = random.Random(17)
    for n in range(PAIRS):
        for name, code, took_s in stop_at_random(running, [f"a{n}", f"b{n}"], dice):
            assert (code, took_s < STOP_S_MAX) == (0, True), (name, code, took_s, running.log(name))
