"""The benchmark of recovery, small."""

from __future__ import annotations

import json

import pytest

from tests.bench.exchange import recovery


def test_the_benchmark_prints_its_figure(capsys: pytest.CaptureFixture[str]) -> None:
    """One JSON line a workload, with how many records it was and a hash of the result."""
    assert recovery.main(tiny=True) == 0
    lines = [json.loads(text) for text in capsys.readouterr().out.splitlines()]
    assert [line["workload"].partition(":")[0] for line in lines] == ["quiet", "store"]
    assert [line["figure"] for line in lines] == ["seconds", "store_seconds"]
    for line in lines:
        assert (line["bench"], line["unit"]) == ("recovery", "s")
        assert line["value"] > 0
        assert line["records"] >= recovery.TINY
        assert len(line["sha256"]) == 64
