"""The benchmark of the order queue, tiny: it runs, its workload is checked, its figures are there."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from tests.stack import ROOT


@pytest.mark.live
def test_the_benchmark_runs_and_gives_its_figures(rabbitmq_url: str) -> None:
    """Both ways end in the same state, and nothing is lost."""
    command = [sys.executable, "-m", "tests.bench.exchange.orders", "--tiny"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr[-3000:]
    lines = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    assert [line["figure"] for line in lines] == ["stream_orders_per_s", "backlog_orders_per_s"]
    assert len({line["sha256"] for line in lines}) == 1
    assert all(line["value"] > 0 and line["lost"] == 0 for line in lines)
