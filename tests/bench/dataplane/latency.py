"""Measures how old an event is when a WebSocket client has it, at 20,000 events/s over real RabbitMQ and Redis.

Workload: the simulator (5,000 stocks, 70 % quotes) at a fixed rate → listener → RabbitMQ → one processor with all default
analyzers → Redis → one WDS worker → one client on this machine, subscribed raw to the prints of the 200 most active symbols:
prints are never conflated, so every event counts. Age = client's clock on receipt minus the event's own time (same
clock, 1 ms steps). Warm-up is excluded; percentiles come from all samples.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import time
from bisect import bisect_left
from typing import Any

import orjson

from tests.bench.window import Window
from tests.servers import free_port
from tests.stack import Stack, stack
from wds.access.keys import mint_local
from wds.client import Client

LATE = {5, 13, 32, 33}  # sold out of sequence: the simulator makes some, as the market does
BUCKETS_MS = (5, 10, 20, 30, 40, 50, 60, 80, 100, 150, 200, 300, 500, 1000, 5000)


def main() -> None:
    """Run the benchmark and print its figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rate", type=int, default=20_000)
    parser.add_argument("--symbols", type=int, default=5_000)
    parser.add_argument("--seconds", type=float, default=40)
    parser.add_argument("--tiny", action="store_true", help="a few seconds, to see that the benchmark itself works")
    options = parser.parse_args()
    if options.tiny:
        options.rate, options.symbols, options.seconds = 2_000, 200, 2.0
    with stack() as running:
        measure(running, options.rate, options.symbols, options.seconds)


def measure(running: Stack, rate: int, symbols: int, seconds: float) -> None:
    """Run the market, watch it as a client does and print what was measured."""
    running.start("mdp", "mdp")
    running.start("wds", "wds serve", WDS_PORT=(port := free_port()))
    running.wait("partitions owned", lambda: len(running.owners()) == 8)
    running.start("mdl", "mdl", MDL_FEED="simulator", MDL_SYMBOLS=symbols, MDL_RATE=rate, MDL_SEED=7)
    running.wait("flow", lambda: running.counts()["events"] > 2 * rate, 60)
    before = running.counts()
    with Window(running.pids(), running.folder) as window:
        ages = asyncio.run(watch(running, port, busiest(running, symbols), seconds))
    after = running.counts()
    lost = after["expired"] + after["dropped"] - before["expired"] - before["dropped"]
    events = after["events"] - before["events"]
    workload = f"{round(events / window.seconds)} events/s, {symbols} symbols, 70 % quotes, all analyzers, raw prints of 200 symbols to one client"
    ages.sort()
    for figure, share in (("p50_ms", 0.5), ("p99_ms", 0.99), ("p999_ms", 0.999)):
        emit(figure, ages[min(len(ages) - 1, int(share * len(ages)))], "ms", workload, samples=len(ages), lost=lost)
    for figure, used_us in window.figures(events):
        emit(figure, used_us, "µs", workload, others_pct=window.others_pct)
    emit("histogram", len(ages), "samples", workload, buckets_ms=histogram(ages))


def busiest(running: Stack, symbols: int) -> list[str]:
    """Return the 200 symbols with the largest volume by now."""
    found = json.loads(running.redis.get("ch:board:volume"))
    return list(found["data"]["order"][: min(200, symbols)])


async def watch(running: Stack, port: int, names: list[str], seconds: float) -> list[float]:
    """Return the ages in ms of every print received for `seconds`, after two seconds of warm-up."""
    token = mint_local(running.folder)
    ages: list[float] = []
    async with Client(f"ws://127.0.0.1:{port}", token) as client:
        await client.subscribe(*[f"trades:{name}" for name in names], hz="raw")
        warm = time.monotonic() + 2
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds + 2):
                async for push in client:
                    if push.kind == "event" and time.monotonic() >= warm and on_time(push.frame["data"]):
                        ages.append(time.time() * 1000 - push.frame["data"]["ts"])
    assert ages, "no print arrived"
    return ages


def on_time(data: dict[str, Any]) -> bool:
    """Return whether a print is not one that the market itself reports late: its time is old before it reaches us."""
    return LATE.isdisjoint(data["conditions"] or ())


def histogram(ages: list[float]) -> dict[str, int]:
    """Return how many ages lie at or below each bound and above the one before."""
    counts = [0] * (len(BUCKETS_MS) + 1)
    for age in ages:
        counts[bisect_left(BUCKETS_MS, age)] += 1
    return dict(zip([*(f"<={bound}" for bound in BUCKETS_MS), "more"], counts, strict=True))


def emit(figure: str, value: float, unit: str, workload: str, **more: Any) -> None:
    """Print one result line."""
    line = {"bench": "latency", "figure": figure, "value": round(value, 1), "unit": unit, "workload": workload, **more}
    print(orjson.dumps(line).decode(), flush=True)


if __name__ == "__main__":
    main()
