"""Runs the data service's benchmarks in their tiny form, and checks that they print every figure they promise."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent


@pytest.mark.parametrize(
    ("name", "figures"),
    [
        ("fanout", {"frames_per_s", "cpu_per_frame", "p50_ms", "p99_ms", "p99_with_stalled_ms", "p99_stalled_ratio"}),
        (
            "pages",
            {
                f"{kind}_{figure}"
                for kind in ("shared", "unshared")
                for figure in (
                    "frames_per_s",
                    "updates_taken_per_s",
                    "cpu_per_client_s",
                    "cpu_per_update",
                    "cpu_per_frame",
                    "p99_age_ms",
                )
            },
        ),
        (
            "wire",
            {"upd_bytes_json", "upd_bytes_compact", "upd_bytes_ratio"}
            | {
                f"{figure}_{form}"
                for figure in ("page_bytes_ratio", "wrap_us_per_write")
                for form in ("json", "compact", "json_deflate", "compact_deflate")
            },
        ),
        ("memory", {"bytes_per_idle_connection", "bytes_per_subscribed_connection"}),
    ],
)
def test_a_tiny_run_prints_every_figure(name: str, figures: set[str]) -> None:
    """Each figure is a JSON line with its unit and workload, and not nothing."""
    argv = [sys.executable, "-m", f"tests.bench.{name}", "--tiny"]
    done = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, timeout=90, check=True)
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert {line["figure"] for line in lines} == figures
    assert all({"bench", "value", "unit", "workload"} <= line.keys() for line in lines)
    assert all(line["value"] > 0 for line in lines if line["figure"] != "bytes_per_idle_connection"), done.stderr
