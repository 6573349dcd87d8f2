"""Runs the benchmark of heartbeats for a moment, so that it does not rot."""

from __future__ import annotations

import json
import subprocess
import sys

from tests.stack import ROOT


def test_it_measures_every_figure_for_every_count() -> None:
    """Five figures for five and for fifty components, none of them below zero."""
    argv = [sys.executable, "-m", "tests.bench.control.heartbeats", "--tiny"]
    done = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    found = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(found) == 2 * len({line["figure"] for line in found}) == 10
    assert {line["workload"].split()[0] for line in found} == {"5", "50"}
    assert all(line["value"] > 0 for line in found if line["figure"] in ("writer_us", "look_ms"))
