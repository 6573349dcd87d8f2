"""Runs the benchmarks of the pipeline, tiny: their workload is checked, their figures are there."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from tests.bench.__main__ import module
from tests.scale import everything
from tests.stack import ROOT

FIGURES = {
    "catalogue": {"cost_ratio", "all_us_per_event", "first_seven_us_per_event", "quote_us_per_event", "boards_us_per_event"},
    "local": {"cpu_pct", "cpu_pct_mdc", "cpu_pct_pipeline", "cpu_pct_bots", "cpu_pct_engine", "cpu_pct_wds", "cpu_pct_scp"},
    "pipeline": {"events_per_s", "cpu_us_per_event"},
    "latency": {"p50_ms", "p99_ms", "p999_ms", "histogram"},
    "opening": {"board_p99_ms", "quote_p99_ms", "trades_p99_ms", "alerts_range_p99_ms", "alerts_gap", "expired"},
    "symbols": {
        "worker_bytes_a_symbol",
        "redis_bytes_a_symbol",
        "redis_trades_bytes_a_symbol",
        "redis_checkpoint_cells_bytes_a_symbol",
    },
    "steady": {"p50_ms", "p999_ms", "cpu_us_per_event", "cpu_us_per_event_rabbitmq", "events_per_batch", "flush_ms"},
    "scp": {"tokens_per_s", "list_p99_ms", "list_500_p99_ms", "sign_in_ms", "revocation_p99_ms", "memory_growth_mb"},
    "listener": {"events_per_s"},
    "scale": {"events_per_s", "cpu_us_per_event", "cost_ratio", "join_s", "leave_s", "die_s"},
    "replicas": {"quorum_cpu_us_per_event", "quorum_cpu_us_per_event_rabbitmq"},
    "soak": {"growth_mb_mdl", "growth_mb_mdp0", "growth_mb_wds", "growth_mb_redis", "growth_mb_rabbitmq"},
}
USUAL = {"catalogue", "pipeline"}  # `make faults` tries all of them


@pytest.mark.live
@pytest.mark.parametrize("name", sorted(FIGURES.keys() if everything() else USUAL))
def test_a_benchmark_runs_and_gives_its_figures(name: str, rabbitmq_url: str, redis_url: str) -> None:
    """Each prints one JSON line a figure with value, unit and workload, and nothing that is lost passes unnoticed."""
    command = [sys.executable, "-m", module(name), "--tiny"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=180)
    assert done.returncode == 0, done.stderr[-3000:]
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert {line["figure"] for line in lines} >= FIGURES[name]
    for line in lines:
        assert line["bench"] == name
        assert {"value", "unit", "workload"} <= line.keys()
        assert not line.get("lost")
