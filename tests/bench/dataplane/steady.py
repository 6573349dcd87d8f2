"""Measures what an event costs, and how old it is at a client, at a steady 20,000 events/s over real RabbitMQ and Redis.

Workload: the simulator (5,000 stocks, 70 % quotes) at a fixed rate → listener → RabbitMQ → processors with all default analyzers →
Redis → one WDS worker → one client with the page's subscriptions (four boards, alerts, status, 40 quotes at 4 Hz, chart and prints of
one symbol) and, raw, the prints of 20 symbols from busy to quiet: their ages are the latency. Age = client's clock on receipt
minus the event's own time (same clock, 1 ms steps). Excluded: warm-up, and prints that the market itself reports late. A run
whose pipeline did not keep up is marked `void`: batches and flushes grow then, and an event costs a fraction of what it does.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import re
import time
import urllib.request
from collections import defaultdict
from typing import Any

import orjson
from websockets.asyncio.client import ClientConnection, connect
from websockets.typing import Subprotocol

from tests.bench.window import Window
from tests.servers import free_port
from tests.stack import Stack, stack
from wds.access.keys import mint_local
from wds.protocol import PATH, SUBPROTOCOL

LATE = {5, 13, 32, 33}  # sold out of sequence: the simulator makes some, as the market does
ROWS_IN_VIEW = 40
BOARDS_IN_VIEW = ("volume", "gainers", "losers", "gappers")
MEASURED_PRINTS = 20
WARM_S = 5.0
KEPT_MIN, P50_MS_MAX = 0.95, 1_000  # of the rate; beyond these the pipeline carries a backlog, not a market
SHARES = (("p50_ms", 0.5), ("p99_ms", 0.99), ("p999_ms", 0.999))


def main() -> None:
    """Run the benchmark and print its figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rate", type=int, default=20_000)
    parser.add_argument("--symbols", type=int, default=5_000)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=30)
    parser.add_argument("--tiny", action="store_true", help="a few seconds, to see that the benchmark itself works")
    options = parser.parse_args()
    if options.tiny:
        options.rate, options.symbols, options.seconds = 2_000, 200, 2.0
    with stack() as running:
        port = begin(running, options.rate, options.symbols, options.workers)
        workload = f"{options.symbols} symbols, 70 % quotes, {options.workers} workers, page's client"
        measure(running, port, options.seconds, options.rate, workload)


def begin(running: Stack, rate: int, symbols: int, workers: int) -> int:
    """Start the pipeline, wait until it flows, return the stream's port."""
    for n in range(workers):
        running.start(f"mdp{n}", "mdp", MDP_WORKER=f"bench-{n}")
    running.start("wds", "wds serve", WDS_PORT=(port := free_port()))
    running.wait("partitions owned", lambda: len(running.owners()) == 8)
    running.start("mdl", "mdl", MDL_FEED="simulator", MDL_SYMBOLS=symbols, MDL_RATE=rate, MDL_SEED=7)
    running.wait("flow", lambda: running.counts()["events"] > WARM_S * rate, 60)
    return port


def measure(running: Stack, port: int, seconds: float, rate: int, workload: str) -> None:
    """Look on as a client does for `seconds` and print what was seen and what it cost."""
    viewer = Viewer()
    counts, told = running.counts(), scrape(running)
    with Window(running.pids(), running.folder) as window:
        asyncio.run(viewer.watch(port, mint_local(running.folder), ranked(running), seconds))
    after, told_after = running.counts(), scrape(running)
    events = after["events"] - counts["events"]
    lost = sum(after[name] - counts[name] for name in ("expired", "dropped", "bad"))
    ages = sorted(viewer.ages_ms)
    assert ages, "no print arrived"
    kept, p50_ms = events / window.seconds / rate, ages[len(ages) // 2]
    facts: dict[str, Any] = {"workload": f"{rate} events/s, {workload}", "kept_pct": round(100 * kept, 1), "lost": lost}
    if lost or kept < KEPT_MIN or p50_ms > P50_MS_MAX:
        facts["void"] = f"{kept:.0%} of {rate} events/s kept, {lost} lost, p50 {p50_ms:.0f} ms"
    report(window, events, {name: value - told[name] for name, value in told_after.items()}, ages, facts)
    emit("frames_per_s", viewer.frames / window.seconds, "frames/s at the client", **facts)


def report(window: Window, events: int, told: dict[str, float], ages: list[float], facts: dict[str, Any]) -> None:
    """Print the figures; `told` is what the components' own counters grew by."""
    for figure, share in SHARES:
        emit(figure, ages[min(len(ages) - 1, int(share * len(ages)))], "ms", samples=len(ages), **facts)
    for figure, value in window.figures(events):
        emit(figure, value, "µs", seconds=round(window.seconds, 1), others_pct=window.others_pct, **facts)
    batches = told["tapeline_mdl_publish_latency_ms_count"]
    emit("batches_per_s", batches / window.seconds, "batches/s", **facts)
    emit("events_per_batch", events / max(1, batches), "events", **facts)
    publish_ms = told["tapeline_mdl_publish_latency_ms_sum"] / max(1, batches)
    emit("publish_ms", publish_ms, "ms from the oldest event's receipt to the broker's confirmation, mean", **facts)
    flushes = told["tapeline_mdp_flush_ms_count"]
    emit("flush_ms", told["tapeline_mdp_flush_ms_sum"] / max(1, flushes), "ms a flush round, mean", **facts)
    emit("flushes_per_s", flushes / window.seconds, "flush rounds/s", **facts)


def ranked(running: Stack) -> list[str]:
    """Return the symbols of the volume board, the busiest first."""
    return list(json.loads(running.redis.get("ch:board:volume"))["data"]["order"])


def scrape(running: Stack) -> dict[str, float]:
    """Return the components' counters, summed over labels and processes of a name."""
    found: dict[str, float] = defaultdict(float)
    for name in running.processes:
        with urllib.request.urlopen(f"http://127.0.0.1:{running.ports[name]}/metrics", timeout=10) as answer:
            text = answer.read().decode()
        for metric, value in re.findall(r"^(\w+)(?:\{[^}]*\})? (\S+)$", text, re.MULTILINE):
            found[metric] += float(value)
    return found


class Viewer:
    """One browser page: takes its frames as they come, and the ages of the prints it measures."""

    def __init__(self) -> None:
        self.ages_ms: list[float] = []
        self.frames = 0
        self._measured: set[str] = set()

    async def watch(self, port: int, token: str, symbols: list[str], seconds: float) -> None:
        """Subscribe and read for `seconds`."""
        url = f"ws://127.0.0.1:{port}{PATH}"
        async with connect(url, subprotocols=[Subprotocol(SUBPROTOCOL)], compression=None, max_size=None) as socket:
            await self._ask(socket, token, symbols)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    async for text in socket:
                        if self._take(orjson.loads(text), time.time() * 1000):
                            await socket.send('{"op":"pong"}')

    async def _ask(self, socket: ClientConnection, token: str, symbols: list[str]) -> None:
        top = symbols[0]
        measured = symbols[:: max(1, len(symbols) // MEASURED_PRINTS)][:MEASURED_PRINTS]
        self._measured = {f"trades:{symbol}" for symbol in measured}
        commands: list[dict[str, Any]] = [
            {"op": "auth", "token": token},
            {"op": "sub", "ch": ["status:pipeline"], "hz": "raw"},
            {"op": "sub", "ch": [f"board:{board}" for board in BOARDS_IN_VIEW], "hz": 4},
            {"op": "sub", "ch": ["alerts:range"], "hz": 10},
            {"op": "sub", "ch": [f"quote:{symbol}" for symbol in symbols[:ROWS_IN_VIEW]], "hz": 4},
            {"op": "sub", "ch": [f"bars:1m:{top}"], "hz": 4},
            {"op": "sub", "ch": [f"halts:{top}"], "hz": 1},
            {"op": "sub", "ch": sorted(self._measured), "hz": "raw"},
        ]
        for number, command in enumerate(commands):
            await socket.send(orjson.dumps({"id": number, **command}).decode())

    def _take(self, frame: Any, now_ms: float) -> bool:
        """Count what came; return whether the server asks for a sign of life."""
        pinged = False
        for one in frame if isinstance(frame, list) else [frame]:
            assert one.get("ok", True), one
            self.frames += 1
            pinged = pinged or one.get("t") == "ping"
            if one.get("t") == "event" and one["ch"] in self._measured and LATE.isdisjoint(one["data"]["conditions"] or ()):
                self.ages_ms.append(now_ms - one["data"]["ts"])
        return pinged


def emit(figure: str, value: float, unit: str, **facts: Any) -> None:
    """Print one result line."""
    print(json.dumps({"bench": "steady", "figure": figure, "value": round(value, 2), "unit": unit, **facts}), flush=True)


if __name__ == "__main__":
    main()
