"""Runs some hundreds of seeds, and shows that a seed always does the same."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.scale import many
from tests.sim.plan import draw
from tests.sim.world import World, seeded, simulate

ROOT = Path(__file__).resolve().parents[2]
SEEDS = many(200, 30)


def runner(**env: object) -> subprocess.CompletedProcess[str]:
    settings = {name: str(value) for name, value in env.items()}
    return subprocess.run(
        [sys.executable, "-m", "tests.sim"], cwd=ROOT, env={**os.environ, **settings}, capture_output=True, text=True
    )


def test_the_data_plane_survives_whatever_the_seeds_bring() -> None:
    """Some hundreds of deployments with their faults keep every property."""
    run = runner(SEEDS=SEEDS, FIRST=1)
    assert run.returncode == 0, run.stdout + run.stderr


@pytest.mark.parametrize("seed", [896, 1729, 1781, 2308, 2528, 2976, 3169, 3591, 3595])
def test_seeds_that_found_something_stay_found(seed: int) -> None:
    """A standby that came back late after an outage, old marks of the news taken for life, checks that were wrong themselves."""
    run = simulate(draw(seed))
    assert not run.failure, run.report


@pytest.mark.parametrize("seed", [3, 9, 22])
def test_a_seed_replays_exactly(seed: int) -> None:
    """The same seed sends the same messages at the same times, in this process and in one with another hash seed."""
    code = f"from tests.sim.plan import draw; from tests.sim.world import simulate; print(simulate(draw({seed})).digest)"
    other = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env={**os.environ, "PYTHONHASHSEED": "7"}, capture_output=True, text=True
    )
    assert simulate(draw(seed)).digest == other.stdout.strip(), other.stderr


def test_worlds_share_nothing() -> None:
    """A world that the collector has not found yet leaves the next one of its seed alone."""
    with seeded(9):
        kept = World(draw(9))
        first = kept.run()
    assert simulate(draw(9)).digest == first.digest


def test_seeds_differ() -> None:
    """Two seeds are two deployments."""
    assert simulate(draw(1)).digest != simulate(draw(2)).digest
