"""Checks the benchmark runner with benchmarks made up here: it completes their JSON lines and reports failures."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.bench import __main__ as runner

REEL = '"""A reel."""\nif __name__ == "__main__":\n    print("warming up")\n    print(\'{"turns_s": 5, "seed": 7}\')\n'


@pytest.fixture
def reel() -> Iterator[Path]:
    """A benchmark `made_up_reel` in the folder."""
    path = runner.FOLDER / "dataplane" / "made_up_reel.py"
    path.write_text(REEL)
    yield path
    path.unlink()


def test_a_result_is_completed_with_what_it_depends_on(reel: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """stdout holds JSON lines only, each with machine, versions, commit and time."""
    assert "made_up_reel" in runner.names()
    assert runner.main(["made_up_reel"]) == 0
    out, err = capfd.readouterr()
    (line,) = [json.loads(text) for text in out.splitlines()]
    assert (line["bench"], line["turns_s"], line["seed"]) == ("made_up_reel", 5, 7)
    assert line["machine"]["cores"] >= 1
    assert {"python", "redis"} <= line["versions"].keys()
    assert line["commit"]
    assert "warming up" in err


@pytest.mark.parametrize("body", ["raise SystemExit(3)", "print('no result')"])
def test_a_benchmark_without_a_result_fails_the_run(reel: Path, capfd: pytest.CaptureFixture[str], body: str) -> None:
    """A crash and a silent end are both failures."""
    reel.write_text(f'if __name__ == "__main__":\n    {body}\n')
    assert runner.main(["made_up_reel"]) == 1
    out, err = capfd.readouterr()
    assert out == ""
    assert "made_up_reel failed" in err


def test_an_unknown_benchmark_is_one_line(capfd: pytest.CaptureFixture[str]) -> None:
    """The line lists what there is."""
    assert runner.main(["tea"]) == 2
    assert "no benchmark tea. There are:" in capfd.readouterr().err


def test_a_module_that_benchmarks_share_is_no_benchmark(reel: Path) -> None:
    """Only what can be run is listed."""
    reel.write_text('"""Workload."""\n')
    assert "made_up_reel" not in runner.names()
    assert "test_runner" not in runner.names()
