"""Does the memory of every component stay bounded, over minutes of market, clients that come and go, and new symbols' bars?

Workload: the simulator (2,000 stocks) at 20,000 events/s → listener → RabbitMQ → two processors → Redis → one WDS worker with a
few clients that reconnect every ten seconds. Resident memory of every process is sampled each second. The figure is the growth
from the end of the first minute (caches and histories fill until then: bars of 120 s, prints of 50) to the end of the run.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import time
from statistics import median

from tests.servers import free_port
from tests.stack import Stack, stack
from wds.access.keys import mint_local
from wds.client import Client

RATE, SYMBOLS, CLIENTS = 20_000, 2_000, 5
SAMPLES = 10  # the median of so many seconds stands for a moment: one sample catches a garbage collection half done


def main() -> None:
    """Run the soak and print each component's figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=int, default=300)
    parser.add_argument("--tiny", action="store_true", help="a few seconds, to see that the soak itself works")
    options = parser.parse_args()
    with stack() as running:
        measure(running, 12 if options.tiny else options.seconds, 2_000 if options.tiny else RATE)


def measure(running: Stack, seconds: int, rate: int) -> None:
    """Run the market for `seconds` and print memory at the start, at the end and at its highest."""
    for name in ("mdp0", "mdp1"):
        running.start(name, "mdp", MDP_WORKER=name)
    running.start("wds", "wds serve", WDS_PORT=(port := free_port()))
    running.wait("partitions owned", lambda: len(running.owners()) == 8)
    running.start("mdl", "mdl", MDL_FEED="simulator", MDL_SYMBOLS=SYMBOLS, MDL_RATE=rate)
    running.wait("flow", lambda: running.counts()["events"] > rate, 60)
    samples = asyncio.run(observe(running, port, seconds))
    counts = running.counts()
    settled = min(len(samples) // 5, 60)
    workload = f"{rate} events/s, {SYMBOLS} symbols, {seconds} s, {CLIENTS} clients reconnecting every 10 s"
    for name in samples[0]:
        series = [sample[name] for sample in samples]
        first, last = median(series[settled : settled + SAMPLES]), median(series[-SAMPLES:])
        facts = {"first_mb": first, "last_mb": last, "highest_mb": max(series), "lost": counts["expired"] + counts["dropped"]}
        emit(f"growth_mb_{name}", round(last - first, 1), workload, facts)


async def observe(running: Stack, port: int, seconds: int) -> list[dict[str, float]]:
    """Return one sample of all processes' memory a second, while clients come and go."""
    url, token = f"ws://127.0.0.1:{port}", mint_local(running.folder)
    clients = [asyncio.create_task(come_and_go(url, token)) for _ in range(CLIENTS)]
    samples = []
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        samples.append(running.rss_mb())
        await asyncio.sleep(1)
    for task in clients:
        task.cancel()
    return samples


async def come_and_go(url: str, token: str) -> None:
    """Follow boards, alerts and a hundred quotes for ten seconds, again and again."""
    while True:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(10), Client(url, token) as client:
                await client.subscribe("board:*", "alerts:range", "status:pipeline")
                async for push in client:
                    if push.kind == "snap" and push.ch == "board:volume":
                        await client.subscribe(*[f"quote:{name}" for name in push.frame["data"]["order"][:100]])


def emit(figure: str, value: float, workload: str, facts: dict[str, float]) -> None:
    """Print one result line."""
    print(
        json.dumps({"bench": "soak", "figure": figure, "value": value, "unit": "MB", "workload": workload, **facts}), flush=True
    )


if __name__ == "__main__":
    main()
