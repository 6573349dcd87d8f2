"""Checks the comparison of two revisions: what counts as a figure, how runs become a ratio, and one whole comparison."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from tests.bench import compare
from tests.stack import ROOT


def test_the_ratio_is_of_the_medians() -> None:
    """One run out of line does not decide."""
    found = compare.ratio([100, 400, 110], [50, 55, 54])
    assert (found["before"], found["after"], found["ratio"]) == (110, 54, 0.491)
    assert found["before_spread_pct"] == 272.7
    assert found["runs"] == [3, 3]


def test_nothing_before_has_no_ratio() -> None:
    """A division by zero is not a figure."""
    assert compare.ratio([0, 0], [5, 5])["ratio"] is None


def test_figures_are_the_numbers_of_a_line() -> None:
    """Lines with a `figure` have one number, others name theirs; a histogram and a flag are none."""
    assert compare.figures({"figure": "p50_ms", "value": 12.5, "samples": 9}) == {"p50_ms": 12.5}
    assert compare.figures({"figure": "histogram", "value": None}) == {}
    assert compare.figures({"orders_per_s": 700, "loop": "uvloop", "tiny": True}) == {"orders_per_s": 700}


@pytest.mark.live
def test_this_revision_compared_with_the_last_commit() -> None:
    """Both sides run in turn, each figure has both medians and the ratio, and the other tree is gone afterwards."""
    command = [sys.executable, "-m", "tests.bench.compare", "HEAD", "--bench", "book", "--rounds", "1", "--", "--tiny"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    lines = {line["figure"]: line for line in map(json.loads, done.stdout.splitlines())}
    assert {"before", "after", "ratio", "runs", "machine"} <= lines["messages_per_s"].keys()
    trees = subprocess.run(["git", "worktree", "list"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert "tapeline-compare" not in trees


def test_a_benchmark_that_is_not_there_is_one_line() -> None:
    """The line lists what there is."""
    command = [sys.executable, "-m", "tests.bench.compare", "HEAD", "--bench", "tea"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=180)
    assert done.returncode == 2
    assert "no benchmark tea; there are: book, " in done.stderr
