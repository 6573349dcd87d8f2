"""The gateway's benchmarks, tiny: they run, their workload is checked, their figures are there."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from tests.bench.__main__ import module
from tests.scale import everything
from tests.stack import ROOT

FIGURES = {
    "gateway": {"orders_per_s", "p50_ms", "p99_ms", "store_orders_per_s", "store_p50_ms", "store_p99_ms"},
    "trade": {"orders_per_s", "p50_ms", "p99_ms", "stream_orders_per_s", "stream_p50_ms", "stream_p99_ms"},
    "doors": {"attacked_p99_ratio"},
    "steps": {
        f"{name}_p99_ms"
        for name in (
            "idle",
            "expiry",
            "cancel_all",
            "kill_switch",
            "iceberg",
            "sweep",
            "funding",
            "mark",
            "deleverage",
            "delisting",
        )
    },
    "joined": {"frames_per_s", "journal_frames_per_s", "client_frames_per_s"},
}
USUAL = ("gateway", "joined")  # `make faults` tries all of them


@pytest.mark.parametrize("name", sorted(FIGURES if everything() else USUAL))
def test_a_benchmark_runs_and_gives_its_figures(name: str) -> None:
    """Each prints one JSON line a figure with value, unit and workload; refused orders and lost messages end it."""
    command = [sys.executable, "-m", module(name), "--tiny"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr[-3000:]
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert {line["figure"] for line in lines} == FIGURES[name]
    for line in lines:
        assert line["bench"] == name
        assert line["value"] > 0
        assert {"unit", "workload", "excludes"} <= line.keys()
