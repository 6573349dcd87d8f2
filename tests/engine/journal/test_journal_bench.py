"""The journal's benchmark, small."""

from __future__ import annotations

import json
import subprocess
import sys

from tests.stack import ROOT


def test_the_benchmark_prints_its_figures() -> None:
    """All three workloads, each with the hash of the state it ended with; with and without snapshots it is the same."""
    argv = [sys.executable, "-m", "tests.bench.exchange.journal", "--tiny"]
    out = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, check=True, timeout=120).stdout
    lines = [json.loads(line) for line in out.splitlines() if line.startswith("{") and "figure" in line]
    found = {(line["workload"].split(":")[0], line["figure"]): line for line in lines}
    for name, prefix in (("quiet", ""), ("store", "store_"), ("snapshots", "snapshots_")):
        assert found[name, f"{prefix}commands_per_s"]["value"] > 0
        assert found[name, f"{prefix}p99_ms"]["value"] > 0
    assert found["snapshots", "snapshots_p99_ratio"]["value"] > 0
    assert found["quiet", "p50_ms"]["sha256"] == found["snapshots", "snapshots_p50_ms"]["sha256"]
