"""Runs many seeds on all cores and prints the failures: `SEEDS=200 FIRST=1 python -m tests.sim`.

Invariant: a seed behaves alike here, in the tests and in every replay; Python's hash seed is fixed because sets of strings are
iterated in its order. UNMENDED=name takes a mend out first (tests/sim/unmended.py).
"""

from __future__ import annotations

import multiprocessing
import os
import sys
import time
from collections.abc import Iterable

from tests.sim.plan import draw
from tests.sim.unmended import take_out
from tests.sim.world import Run, simulate

TOLD_MAX = 3  # failures whose whole story is printed
TELL_EVERY_S = 30.0


def run_seed(seed: int) -> Run:
    """Run one seed."""
    return simulate(draw(seed))


def main() -> int:
    """Run SEEDS seeds from FIRST on in JOBS processes; return 1 when one fails."""
    first, seeds = int(os.environ.get("FIRST", "1")), int(os.environ.get("SEEDS", "200"))
    jobs = int(os.environ.get("JOBS", "0")) or min(seeds, os.cpu_count() or 1)
    take_out(os.environ.get("UNMENDED", ""))
    began_s = time.monotonic()
    if jobs == 1:
        failed = _tell(map(run_seed, range(first, first + seeds)), seeds)
    else:
        with multiprocessing.get_context("fork").Pool(jobs, maxtasksperchild=200) as pool:
            failed = _tell(pool.imap_unordered(run_seed, range(first, first + seeds)), seeds)
    took_s = time.monotonic() - began_s
    print(f"{seeds} seeds from {first}: {len(failed)} failed, {took_s:.0f} s, {seeds / took_s:.1f} seeds/s")
    if failed:
        print(f"failed: {' '.join(map(str, sorted(failed)))}")
    return 1 if failed else 0


def _tell(runs: Iterable[Run], seeds: int) -> list[int]:
    failed: list[int] = []
    told_s = time.monotonic()
    for done, run in enumerate(runs, 1):
        if run.report:
            failed.append(run.plan.seed)
            short = f"seed {run.plan.seed}: {run.failure[:300]}"
            print(run.report if len(failed) <= TOLD_MAX or seeds == 1 else short, flush=True)
        elif seeds == 1:
            print(f"seed {run.plan.seed}: passed, {run.steps} steps, digest {run.digest}")
        if time.monotonic() - told_s > TELL_EVERY_S:
            told_s = time.monotonic()
            print(f"{done} of {seeds}, {len(failed)} failed", flush=True)
    return failed


if __name__ == "__main__":
    if os.environ.get("PYTHONHASHSEED") != "0":
        os.execve(sys.executable, [sys.executable, "-m", "tests.sim"], {**os.environ, "PYTHONHASHSEED": "0"})
    sys.exit(main())
