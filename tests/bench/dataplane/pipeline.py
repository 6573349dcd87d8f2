"""Measures how many events a second pass from feed frames to the cache, over real RabbitMQ and Redis, none lost, in order.

Workload: a tape of 5,000 simulated stocks, 70 % quotes, replayed without pauses by `python -m mdl`; two `python -m mdp` with
all default analyzers. Time runs from the first event in the cache to the last. Checked: every event counted once, no gap,
last prices and the newest prints of every symbol equal the tape's, in its order. Excluded: making the tape, start-up.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections import defaultdict, deque
from pathlib import Path
from typing import Any

from tests.bench.window import Window
from tests.stack import ROOT, Stack, stack

PRINTS = 200


def main() -> None:
    """Run the benchmark and print its figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, default=4_000_000)
    parser.add_argument("--symbols", type=int, default=5_000)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--tiny", action="store_true", help="a second's work, to see that the benchmark itself works")
    options = parser.parse_args()
    if options.tiny:
        options.events, options.symbols = 60_000, 200
    with stack() as running:
        measure(running, options.symbols, options.events, options.workers)


def measure(running: Stack, symbols: int, events: int, workers: int) -> None:
    """Replay the tape through the pipeline and print what was measured."""
    tape = running.folder / "tape.ndjson"
    make_tape(tape, symbols, events)
    total = count_events(tape)
    for n in range(workers):
        running.start(f"mdp{n}", "mdp", MDP_WORKER=f"bench-{n}")
    running.wait("partitions owned", lambda: len(running.owners()) == 8)
    running.start("mdl", "mdl", MDL_FEED="replay", MDL_TAPE=tape, MDL_SPEED="max", MDL_LEASE="off")
    running.wait("first events", lambda: running.counts()["events"] > 0, pause_s=0.002)
    with Window(running.pids(), running.folder) as window:
        first = running.counts()["events"]
        running.wait("all events", lambda: settled(running) >= total, seconds=60 + events / 20_000)
    counts = running.counts()
    lost = counts["expired"] + counts["dropped"]
    assert (counts["events"], lost, counts["bad"]) == (total, 0, 0), f"lost or doubled: {counts}, tape {total}"
    checked = check_order(running, tape)
    workload = f"{total} events, {symbols} symbols, 70 % quotes, all analyzers, {workers} workers, RabbitMQ + Redis"
    more = {"seconds": round(window.seconds, 2), "lost": lost, "redelivered": counts["redelivered"], "symbols_checked": checked}
    more["others_pct"] = window.others_pct
    emit("events_per_s", round((total - first) / window.seconds), "events/s", workload, **more)
    for figure, value in window.figures(total - first):
        emit(figure, value, "µs", workload)


def settled(running: Stack) -> int:
    """Return how many events are in the cache or known to be lost."""
    counts = running.counts()
    return counts["events"] + counts["expired"] + counts["dropped"] + counts["bad"]


def make_tape(path: Path, symbols: int, events: int) -> None:
    """Write the tape with the project's own command."""
    command = ["mdl", "tape", "--symbols", str(symbols), "--seed", "7", "--events", str(events), "--quotes", "0.7", str(path)]
    subprocess.run([sys.executable, "-m", *command], cwd=ROOT, check=True, stdout=sys.stderr)


def count_events(tape: Path) -> int:
    """Return how many events are on the tape."""
    with tape.open("rb") as lines:
        return sum(line.count(b'"ev":') for line in lines)


def check_order(running: Stack, tape: Path) -> int:
    """Compare the newest prints of every symbol with the tape's; return how many symbols were compared."""
    prints: dict[str, deque[str]] = defaultdict(lambda: deque(maxlen=PRINTS))
    with tape.open("rb") as lines:
        for line in lines:
            for event in json.loads(line):
                if event["ev"] == "T":
                    prints[event["sym"]].append(event["i"])
    for symbol, expected in prints.items():
        bodies = running.redis.lrange(f"ch:trades:{symbol}", -PRINTS, -1)
        found = [json.loads(body)["data"]["id"] for body in bodies]
        assert found == list(expected), f"{symbol}: prints differ from the tape"
    return len(prints)


def emit(figure: str, value: float, unit: str, workload: str, **more: Any) -> None:
    """Print one result line."""
    print(
        json.dumps({"bench": "pipeline", "figure": figure, "value": value, "unit": unit, "workload": workload, **more}),
        flush=True,
    )


if __name__ == "__main__":
    main()
