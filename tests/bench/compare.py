"""Compares this working tree with another revision: runs the same benchmarks on both in turn and prints the ratios.

`python -m tests.bench.compare REV [--bench steady,pipeline] [--rounds 3] [-- arguments of the benchmarks]`

Invariant: both sides are measured by the same code where a benchmark drives the components from outside (`OUTSIDE`); the others
measure functions that may have moved, and run each side's own copy. Sides alternate, so that a machine that warms up or gets
busy meets both.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import venv
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.bench.__main__ import ROOT, machine, module, names, result

OUTSIDE = ("latency", "local", "pipeline", "soak", "steady")  # environment, ports and /proc are all they need of the components
USUAL = "pipeline,listener,steady,fanout"
LOCK = "requirements.lock"


@dataclass
class Side:
    """One of the two trees, and what its runs gave: (bench, figure) → values."""

    name: str
    tree: Path
    python: str
    values: dict[tuple[str, str], list[float]] = field(default_factory=lambda: defaultdict(list))
    others_pct: dict[str, float] = field(default_factory=lambda: defaultdict(float))  # bench → the most that others took in a run
    facts: dict[tuple[str, str], dict[str, Any]] = field(default_factory=dict)


def main() -> int:
    """Compare; return 1 when a run failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("revision", help="what git calls the revision to compare with")
    parser.add_argument("--bench", default=USUAL, help=f"which benchmarks, with commas; {USUAL} when not given")
    parser.add_argument("--rounds", type=int, default=3, help="runs of each side")
    own, arguments = split(sys.argv[1:])
    given = parser.parse_args(own)
    benches = given.bench.split(",")
    if unknown := set(benches) - set(names()):
        parser.error(f"no benchmark {', '.join(sorted(unknown))}; there are: {', '.join(names())}")
    with other_tree(given.revision) as before:
        after = Side("after", ROOT, sys.executable)
        failed = [bench for bench in benches if not measure(bench, (before, after), given.rounds, arguments)]
    return 1 if failed else 0


def split(words: list[str]) -> tuple[list[str], list[str]]:
    """Return our own arguments, and what stands behind the first `--`: it is passed on to every benchmark."""
    at = words.index("--") if "--" in words else len(words)
    return words[:at], words[at + 1 :]


@contextlib.contextmanager
def other_tree(revision: str) -> Iterator[Side]:
    """Give the other revision's tree, in a temporary folder, with an environment of its own when its packages differ."""
    with tempfile.TemporaryDirectory(prefix="tapeline-compare-") as folder:
        tree = Path(folder) / "tree"
        git = ["git", "-C", str(ROOT), "worktree"]
        subprocess.run([*git, "add", "--quiet", "--detach", str(tree), revision], check=True, stdout=sys.stderr)
        try:
            same = (tree / LOCK).read_bytes() == (ROOT / LOCK).read_bytes()
            yield Side("before", tree, sys.executable if same else install(Path(folder) / "venv", tree / LOCK))
        finally:
            subprocess.run([*git, "remove", "--force", str(tree)], check=False, stdout=sys.stderr)


def install(folder: Path, lock: Path) -> str:
    """Make an environment with the pinned packages of `lock`; return its Python."""
    print(f"installing {lock} …", file=sys.stderr, flush=True)
    venv.create(folder, with_pip=True)
    python = str(folder / "bin" / "python")
    pip = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--only-binary", ":all:", "--require-hashes"]
    subprocess.run([*pip, "-r", str(lock)], check=True, stdout=sys.stderr)
    return python


def measure(bench: str, sides: tuple[Side, Side], rounds: int, arguments: list[str]) -> bool:
    """Run a benchmark `rounds` times on either side in turn and print its ratios; return whether every run ended well."""
    well = True
    for number in range(1, rounds + 1):
        for side in sides:
            print(f"{bench} {number}/{rounds} {side.name} …", file=sys.stderr, flush=True)
            well = run(bench, side, arguments) and well
    about = machine()
    before, after = sides
    for key in (key for key in after.values if key[0] == bench and key in before.values):
        line = ratio(before.values[key], after.values[key]) | {"others_pct": [before.others_pct[bench], after.others_pct[bench]]}
        print(json.dumps({"bench": bench, "figure": key[1], **line, **after.facts[key], **about}), flush=True)
    return well


def run(bench: str, side: Side, arguments: list[str]) -> bool:
    """Run a benchmark once against a side and keep its figures; return whether it ended well."""
    outside = bench in OUTSIDE
    cwd = ROOT if outside else side.tree
    argv = [sys.executable if outside else side.python, "-m", module(bench, cwd), *arguments]
    env = {**os.environ, "BENCH_TREE": str(side.tree), "BENCH_PYTHON": side.python}
    done = subprocess.run(argv, cwd=cwd, env=env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True, check=False)
    lines = [line for line in map(result, done.stdout.splitlines()) if line is not None]
    for line in lines:
        if "void" in line:
            print(f"{bench} {side.name} is left out: {line['void']}", file=sys.stderr, flush=True)
            return False  # whatever was measured is not what was asked
        for name, value in figures(line).items():
            side.values[bench, name].append(value)
            side.others_pct[bench] = max(side.others_pct[bench], line.get("others_pct", 0.0))
            side.facts[bench, name] = {key: line[key] for key in ("unit", "workload", "lost") if key in line}
    if done.returncode:
        print(f"{bench} {side.name} failed with {done.returncode}", file=sys.stderr, flush=True)
    return done.returncode == 0


def figures(line: dict[str, Any]) -> dict[str, float]:
    """Return the numbers of a result line: its `value`, or each number of a line that names them itself."""
    if "figure" in line:
        value = line.get("value")
        return {str(line["figure"]): value} if isinstance(value, int | float) else {}
    return {name: value for name, value in line.items() if isinstance(value, int | float) and not isinstance(value, bool)}


def ratio(before: list[float], after: list[float]) -> dict[str, Any]:
    """Return both medians, how far their runs lie apart (largest minus smallest, in % of the median) and after ÷ before."""
    old, new = statistics.median(before), statistics.median(after)
    return {
        "before": old, "after": new, "ratio": round(new / old, 3) if old else None,
        "before_spread_pct": spread_pct(before, old), "after_spread_pct": spread_pct(after, new),
        "runs": [len(before), len(after)],
    }  # fmt: skip


def spread_pct(values: list[float], middle: float) -> float | None:
    """Return how far the values lie apart, None around 0."""
    return round(100 * (max(values) - min(values)) / abs(middle), 1) if middle else None


if __name__ == "__main__":
    sys.exit(main())
