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

pytestmark = pytest.mark.live

STOPS = 12
STOP_S_MAX = 8.0  # a process that needs 10 s was given up by its own deadline


def start_market(running: Stack) -> None:
    """Start a listener that fills the queues faster than a processor that has just started empties them."""
    running.start("mdl", "mdl", MDL_FEED="simulator", MDL_SYMBOLS=500, MDL_RATE=10_000)


def stop_at_random(running: Stack, name: str, dice: random.Random) -> tuple[int, float]:
    """Start a processor and end it within half a second of its first partition; return exit code and seconds."""
    process = running.start(name, "mdp", MDP_WORKER=name)
    running.wait("the processor", lambda: "started" in running.log(name), pause_s=0.002)
    time.sleep(dice.random() * 0.5)  # the moment is what the test is about
    began = time.monotonic()
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(20)
    except subprocess.TimeoutExpired:
        process.kill()
    return running.stop(name), time.monotonic() - began


def test_a_processor_ends_cleanly_at_any_moment(running: Stack) -> None:
    """SIGTERM at random moments of a processor that starts on full queues: exit code 0 each time, well within the deadline."""
    start_market(running)
    dice = random.Random(17)
    for n in range(STOPS):
        name = f"mdp{n}"
        code, took_s = stop_at_random(running, name, dice)
        assert (code, took_s < STOP_S_MAX) == (0, True), (n, code, took_s, running.log(name))
