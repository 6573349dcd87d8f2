"""Measures what more processors cost and bring at fixed work, and what a worker that joins, leaves or dies does to the flow.

Workload: the tape of `pipeline` (5,000 simulated stocks, 70 % quotes) at full speed through 1, 2 and 4 `python -m mdp`, each on new
servers; then a simulated market at a steady rate with three of them, of which one more joins, is stopped, and is killed. A
hand-over lasts from the signal (a joining worker: its first lease) until every partition has an owner and shares differ by at
most one. Affected are events that came twice to a processor (passed over), expired or were dropped. Excluded: start-up.
"""

from __future__ import annotations

import argparse
import json
import signal
import time
from collections import Counter
from collections.abc import Callable, Set
from typing import Any

from tests.bench.dataplane.pipeline import count_events, make_tape, settled
from tests.bench.window import Window
from tests.stack import Stack, stack

WORKERS = (1, 2, 4)
PARTITIONS = 16
TOLD_S = 3.0  # counts reach the cache with a flush; what a hand-over did shows within this


def main() -> None:
    """Run the benchmark and print its figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, default=1_500_000)
    parser.add_argument("--symbols", type=int, default=5_000)
    parser.add_argument("--rate", type=int, default=5_000, help="events/s while workers come and go")
    parser.add_argument("--tiny", action="store_true", help="a second's work, to see that the benchmark itself works")
    options = parser.parse_args()
    if options.tiny:
        options.events, options.symbols, options.rate = 60_000, 200, 500
    costs = {}
    for workers in (1, 2) if options.tiny else WORKERS:
        with stack() as running:
            costs[workers] = cost(running, options.symbols, options.events, workers)
    workload = f"the same events with {max(costs)} workers and with one"
    emit("cost_ratio", round(costs[max(costs)] / costs[1], 3), "", workload)
    with stack() as running:
        hand_overs(running, options.rate)


def cost(running: Stack, symbols: int, events: int, workers: int) -> float:
    """Play a tape through so many workers; print and return µs of processor time an event, of all processes."""
    tape = running.folder / "tape.ndjson"
    make_tape(tape, symbols, events)
    total = count_events(tape)
    for n in range(workers):
        start(running, f"mdp{n}")
    running.wait("partitions owned", lambda: is_even(running, {f"mdp{n}" for n in range(workers)}))
    running.start("mdl", "mdl", MDL_FEED="replay", MDL_TAPE=tape, MDL_SPEED="max", MDL_LEASE="off", MDQ_PARTITIONS=PARTITIONS)
    running.wait("first events", lambda: running.counts()["events"] > 0, pause_s=0.002)
    with Window(running.pids(), running.folder) as window:
        first = running.counts()["events"]
        running.wait("all events", lambda: settled(running) >= total, seconds=60 + events / 10_000)
    counts = running.counts()
    lost = counts["expired"] + counts["dropped"]
    assert (counts["events"], lost, counts["bad"]) == (total, 0, 0), f"lost or doubled: {counts}, tape {total}"
    workload = f"{total} events, {symbols} symbols, 70 % quotes, all analyzers, {workers} workers, {PARTITIONS} partitions"
    emit("events_per_s", round((total - first) / window.seconds), "events/s", workload, lost=lost, others_pct=window.others_pct)
    figures = dict(window.figures(total - first))
    for figure in ("cpu_us_per_event_mdp", "cpu_us_per_event"):
        emit(figure, figures[figure], "µs", workload)
    return figures["cpu_us_per_event"]


def hand_overs(running: Stack, rate: int) -> None:
    """Let one worker more join a flow, leave it, join again and die; print how long each takes and how many events it touches."""
    crew = {"mdp0", "mdp1", "mdp2"}
    for name in sorted(crew):
        start(running, name)
    running.wait("partitions owned", lambda: is_even(running, crew))
    running.start("mdl", "mdl", MDL_FEED="simulator", MDL_RATE=rate, MDQ_PARTITIONS=PARTITIONS)
    running.wait("events", lambda: running.counts()["events"] > rate)

    def joins(name: str) -> None:
        start(running, name)
        running.wait(f"{name} to be one of them", lambda: name in running.owners().values(), pause_s=0.005)

    measure(running, "join", crew | {"mdp3"}, lambda: joins("mdp3"), rate)
    measure(running, "leave", crew, lambda: stop(running, "mdp3", signal.SIGTERM), rate)
    joins("mdp4")
    running.wait("even shares", lambda: is_even(running, crew | {"mdp4"}))
    measure(running, "die", crew, lambda: stop(running, "mdp4", signal.SIGKILL), rate)


def measure(running: Stack, what: str, crew: Set[str], change: Callable[[], None], rate: int) -> None:
    """Make a change; print how long until `crew` shares everything evenly, and the events that it touched."""
    before = running.counts()
    change()
    began_s = time.monotonic()
    running.wait("even shares", lambda: is_even(running, crew), pause_s=0.005)
    took_s = time.monotonic() - began_s
    wanted = running.counts()["events"] + rate * TOLD_S
    running.wait("the flow to go on", lambda: running.counts()["events"] > wanted)
    after = running.counts()
    touched = {name: after[name] - before[name] for name in ("redelivered", "expired", "dropped")}
    workload = f"{rate} events/s, three workers and one more, {PARTITIONS} partitions"
    lost = touched.pop("expired") + touched.pop("dropped")
    emit(f"{what}_s", round(took_s, 2), "s", workload, lost=lost, **touched)


def start(running: Stack, name: str) -> None:
    running.start(name, "mdp", MDP_WORKER=name, MDQ_PARTITIONS=PARTITIONS)


def stop(running: Stack, name: str, sig: int) -> None:
    """Send the signal and do not wait: the others do not either."""
    running.processes[name].send_signal(sig)
    del running.processes[name]


def is_even(running: Stack, crew: Set[str]) -> bool:
    """Return whether just these workers own all partitions, in shares that differ by at most one."""
    owners = running.owners()
    shares = Counter(owners.values())
    return len(owners) == PARTITIONS and shares.keys() == crew and max(shares.values()) - min(shares.values()) <= 1


def emit(figure: str, value: float, unit: str, workload: str, **more: Any) -> None:
    """Print one result line."""
    line = {"bench": "scale", "figure": figure, "value": value, "unit": unit, "workload": workload, **more}
    print(json.dumps(line), flush=True)


if __name__ == "__main__":
    main()
