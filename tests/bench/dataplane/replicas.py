"""Measures what an event costs with quorum queues beside classic ones, on one node and, replicated, on three.

Workload: a simulated market (500 symbols) at a steady rate from `python -m mdl` through RabbitMQ to two `python -m mdp` and Redis,
each variant on new servers, in turn: classic, quorum, three nodes, and again. Figures are medians over the rounds. Excluded: start-up
and the first seconds. On one machine the three nodes share its cores and its disk: what a network adds is not in it.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from collections import defaultdict
from pathlib import Path
from statistics import median
from typing import Any

from tests.bench.window import Window
from tests.clusters.rabbit import RabbitCluster
from tests.servers import RabbitMQ, Redis
from tests.stack import Stack

VARIANTS = ("classic", "quorum", "three_nodes")


def main() -> None:
    """Run the benchmark and print its figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rate", type=int, default=4_000)
    parser.add_argument("--seconds", type=float, default=15.0)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--tiny", action="store_true", help="a second's work, to see that the benchmark itself works")
    options = parser.parse_args()
    variants = VARIANTS
    if options.tiny:
        options.rate, options.seconds, options.rounds, variants = 500, 1.0, 1, VARIANTS[1:2]
    found: dict[str, dict[str, list[float]]] = {variant: defaultdict(list) for variant in variants}
    for _ in range(options.rounds):
        for variant in variants:
            for figure, value in measure(variant, options.rate, options.seconds):
                found[variant][figure].append(value)
    workload = f"{options.rate} events/s, 500 symbols, 2 processors, {options.rounds} rounds of {options.seconds:g} s in turn"
    for variant, figures in found.items():
        for figure, values in figures.items():
            emit(f"{variant}_{figure}", round(median(values), 2), workload, all=values)


def measure(variant: str, rate: int, seconds: float) -> list[tuple[str, float]]:
    """Run one variant; return its figures."""
    queue_type = "classic" if variant == "classic" else "quorum"
    servers = RabbitCluster() if variant == "three_nodes" else RabbitMQ()
    with tempfile.TemporaryDirectory(prefix="tapeline-") as folder, servers as rabbitmq, Redis() as cache:
        assert isinstance(rabbitmq, RabbitMQ)
        running = Stack(Path(folder), rabbitmq, cache)
        try:
            for n in range(2):
                running.start(f"mdp{n}", "mdp", MDP_WORKER=f"w{n}", MDQ_QUEUE_TYPE=queue_type)
            running.wait("partitions owned", lambda: len(running.owners()) == 8)
            running.start("mdl", "mdl", MDL_FEED="simulator", MDL_RATE=rate, MDQ_QUEUE_TYPE=queue_type)
            running.wait("a flow", lambda: running.counts()["events"] > 3 * rate)
            nodes = rabbitmq.nodes if isinstance(rabbitmq, RabbitCluster) else [rabbitmq]
            pids = running.pids() | {f"rabbitmq{n}": node.pid for n, node in enumerate(nodes)}
            del pids["rabbitmq"]
            first = running.counts()
            with Window(pids, running.folder) as window:
                time.sleep(seconds)
            last = running.counts()
        finally:
            running.close()
    lost = last["expired"] + last["dropped"]
    figures = list(window.figures(last["events"] - first["events"]))
    return [*figures, ("lost", float(lost)), ("others_pct", window.others_pct)]


def emit(figure: str, value: float, workload: str, **more: Any) -> None:
    """Print one result line."""
    unit = "µs" if "_us_" in figure else "%" if figure.endswith("pct") else "events"
    print(
        json.dumps({"bench": "replicas", "figure": figure, "value": value, "unit": unit, "workload": workload, **more}),
        flush=True,
    )


if __name__ == "__main__":
    os.environ.pop("MDQ_QUEUE_TYPE", None)
    main()
