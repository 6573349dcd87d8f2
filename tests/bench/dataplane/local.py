"""Measures how much of a core `make run` takes as it comes, while nobody looks.

Workload: `python -m deploy.local` with embedded queue and cache: the simulator's 2,000 events/s of 500 symbols and the built-in
exchange with its bots. Excluded: the start, and the seconds after it in which histories fill fastest.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

from tests.bench.window import CLIENT, Window
from tests.local_run import LocalRun

WARM_S = 10


def main() -> None:
    """Run the benchmark and print its figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--tiny", action="store_true", help="a few seconds, to see that the benchmark itself works")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="tapeline-") as folder, LocalRun(Path(folder)) as run:
        run.says("ready after")
        measure(run, 1 if options.tiny else WARM_S, 3 if options.tiny else options.seconds)
        run.interrupt()
        run.ends(15)


def measure(run: LocalRun, warm_s: float, seconds: float) -> None:
    """Look at the processes for so long and print what they took."""
    time.sleep(warm_s)
    children = run.pids()
    with Window(children, run.dir) as window:
        time.sleep(seconds)
    assert run.pids() == children, f"a process was replaced: {run.output}"
    taken = {name: used for name, used in window.cpu_s.items() if name != CLIENT}
    for name, used in taken.items():
        emit(f"cpu_pct_{name}", 100 * used / window.seconds)
    emit("cpu_pct", 100 * sum(taken.values()) / window.seconds, seconds=round(window.seconds, 1), others_pct=window.others_pct)


def emit(figure: str, value: float, **more: Any) -> None:
    """Print one result line."""
    workload = "make run without options: 2,000 events/s, 500 symbols, exchange with bots, embedded"
    line = {"bench": "local", "figure": figure, "value": round(value, 1), "unit": "% of a core", "workload": workload}
    print(json.dumps({**line, **more}), flush=True)


if __name__ == "__main__":
    main()
