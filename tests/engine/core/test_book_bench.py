"""The book's benchmark, small."""

from __future__ import annotations

import json

import pytest

from tests.bench.exchange import book


def test_the_benchmark_prints_its_figure(capsys: pytest.CaptureFixture[str]) -> None:
    """One JSON line a workload, with a hash of the result."""
    assert book.main(tiny=True) == 0
    (line,) = [json.loads(text) for text in capsys.readouterr().out.splitlines()]
    assert (line["bench"], line["figure"], line["unit"]) == ("book", "messages_per_s", "messages/s")
    assert line["value"] > 0
    assert len(line["sha256"]) == 64
