"""What does one worker spend on many pages, each with many channels, and does it matter whether they look at the same ones?

Each client has the page's own subscriptions: 200 quotes at 4 Hz out of a universe of 2,500, four boards, and one symbol at `raw`.
`shared`: all look at the same 200 (everybody's page sorts alike); `unshared`: everybody has 200 of his own; `compact`:
as `shared`, in the form that the page asks for (its frames are counted by the worker). 5,000 updates a second come in as Redis
messages would, in bursts of a listener's batch. Worker and clients are a process each. Redis is excluded.
"""

from __future__ import annotations

import argparse
import json
from typing import Any

from tests.bench.stream.rig import Child


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--clients", type=int, default=1000)
    parser.add_argument("--quotes", type=int, default=200)
    parser.add_argument("--universe", type=int, default=2500)
    parser.add_argument("--updates", type=float, default=5000.0, help="a second")
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--sets", nargs="*", default=["shared", "unshared", "compact"])
    parser.add_argument("--tiny", action="store_true", help="a few clients for a moment: that it runs, not what it says")
    given = parser.parse_args()
    if given.tiny:
        given.clients, given.quotes, given.universe, given.updates, given.seconds = 10, 20, 50, 500.0, 0.5
    for kind in given.sets:
        measure(kind, given.clients, given.quotes, given.universe, given.updates, given.seconds)


def measure(kind: str, clients: int, quotes: int, universe: int, updates: float, seconds: float) -> None:
    """Run one kind of set and print a line a figure."""
    server = Child("server", ping_s=3600.0, subs_max=quotes + 10, commands_burst=10_000)
    begun = server.hear()
    form = "compact" if kind == "compact" else "json"
    crowd = Child(
        "pages",
        port=begun["port"],
        token=begun["token"],
        clients=clients,
        quotes=quotes,
        universe=universe,
        kind="shared" if kind == "compact" else kind,
        form=form,
    )
    try:
        server.tell(fill=universe)
        server.hear()
        crowd.tell(connect=True)
        crowd.hear()
        server.ask(pages=updates, seconds=1.0, universe=universe)
        crowd.ask(start=True)
        spent = server.ask(pages=updates, seconds=seconds, universe=universe)
        found = crowd.ask(measure=True)
    finally:
        crowd.end()
        server.end()
    workload = {
        "set": kind,
        "clients": clients,
        "quotes": quotes,
        "universe": universe,
        "updates_per_s": updates,
        "seconds": seconds,
    }
    frames = max(1, spent["frames"] if form == "compact" else found["frames"])
    _figure(f"{kind}_frames_per_s", frames / (spent if form == "compact" else found)["seconds"], "frames/s", workload)
    _figure(f"{kind}_updates_taken_per_s", spent["docs"] / spent["seconds"], "updates/s", workload)
    _figure(f"{kind}_cpu_per_client_s", spent["cpu_s"] / spent["seconds"] / clients * 1e6, "us/s", workload)
    _figure(f"{kind}_cpu_per_update", spent["cpu_s"] / max(1, spent["docs"]) * 1e6, "us", workload)
    _figure(f"{kind}_cpu_per_frame", spent["cpu_s"] / frames * 1e6, "us", workload)
    _figure(f"{kind}_p99_age_ms", found["p99_ms"], "ms", workload)


def _figure(figure: str, value: float, unit: str, workload: dict[str, Any]) -> None:
    print(
        json.dumps({"bench": "pages", "figure": figure, "value": round(value, 4), "unit": unit, "workload": workload}), flush=True
    )


if __name__ == "__main__":
    main()
