"""How many frames a second does one worker hand to 1,000 clients of one 200-byte channel, and do stalled clients disturb?

Three questions in one run: the most frames a second that arrive; age at arrival at a moderate rate; the same with 10 clients
that do not read (`p99_stalled_ratio`: their p99 over the p99 without, medians of alternating rounds). Worker and clients have
a process each on one machine, so both halves of the loopback are paid here. Redis is excluded.
"""

from __future__ import annotations

import argparse
import json
import statistics
from typing import Any

from tests.bench.stream.rig import Child


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--clients", type=int, default=1000)
    parser.add_argument("--stalled", type=int, default=10)
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--tiny", action="store_true", help="a few clients for a moment: that it runs, not what it says")
    given = parser.parse_args()
    if given.tiny:
        given.clients, given.stalled, given.seconds, given.rounds = 20, 2, 0.3, 1
    measure(given.clients, given.stalled, given.seconds, given.rounds)


def measure(clients: int, stalled: int, seconds: float, rounds: int) -> None:
    """Run all three and print a line a figure."""
    workload = {"clients": clients, "stalled": stalled, "frame_bytes": 200, "seconds": seconds, "cache": "in process"}
    # The stalled ones must stay for the whole round: not even the ladder's last step may remove them meanwhile.
    server = Child("server", slow_close_s=3600.0, slow_pause_s=1800.0, ping_s=3600.0)
    begun = server.hear()
    crowd = Child("crowd", port=begun["port"], token=begun["token"], clients=clients, subscribe=True)
    others: Child | None = None
    quiet: list[dict[str, Any]] = []
    loud: list[dict[str, Any]] = []
    try:
        crowd.hear()
        server.ask(publish=20, seconds=0.2, burst=1)
        for burst in (1, 5):
            best = _saturate(server, crowd, clients, seconds, burst)
            _figure("frames_per_s", best["frames"] / best["seconds"], "frames/s", {**workload, "docs_per_message": burst})
            _figure("cpu_per_frame", best["cpu_s"] / max(1, best["frames"]) * 1e6, "us", {**workload, "docs_per_message": burst})
        rate = 40.0
        for _ in range(rounds):
            quiet.append(_round(server, crowd, rate, seconds))
            others = Child("crowd", port=begun["port"], token=begun["token"], clients=stalled, subscribe=True)
            others.hear()
            others.ask(stall=stalled)
            server.ask(publish=2000.0, seconds=1.0, burst=50)  # fills their buffers
            loud.append(_round(server, crowd, rate, seconds))
            others.end()
    finally:
        for child in (others, crowd, server):
            if child is not None:
                child.end()
    at_rate = {**workload, "docs_per_s": rate}
    p99 = statistics.median(one["p99_ms"] for one in quiet)
    _figure("p50_ms", statistics.median(one["p50_ms"] for one in quiet), "ms", at_rate)
    _figure("p99_ms", p99, "ms", at_rate)
    _figure("p99_with_stalled_ms", statistics.median(one["p99_ms"] for one in loud), "ms", at_rate)
    _figure("p99_stalled_ratio", statistics.median(one["p99_ms"] for one in loud) / max(p99, 1e-9), "ratio", at_rate)


def _saturate(server: Child, crowd: Child, clients: int, seconds: float, burst: int) -> dict[str, Any]:
    return _round(server, crowd, 300_000 / clients, seconds, burst)


def _round(server: Child, crowd: Child, docs_s: float, seconds: float, burst: int = 1) -> dict[str, Any]:
    crowd.ask(start=True)
    spent = server.ask(publish=docs_s, seconds=seconds, burst=burst)
    return {**crowd.ask(measure=True), "cpu_s": spent["cpu_s"], "docs": spent["docs"]}


def _figure(figure: str, value: float, unit: str, workload: dict[str, Any]) -> None:
    print(
        json.dumps({"bench": "fanout", "figure": figure, "value": round(value, 4), "unit": unit, "workload": workload}),
        flush=True,
    )


if __name__ == "__main__":
    main()
