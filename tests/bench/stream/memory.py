"""What does an idle WebSocket connection cost the data service, in bytes of its resident memory?

Connections that have authenticated and wait; and the same with one subscription each. The kernel's socket buffers are
excluded: they are not in a process's resident memory.
"""

from __future__ import annotations

import argparse
import json
from typing import Any

from tests.bench.stream.rig import Child


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--connections", type=int, default=2000)
    parser.add_argument("--tiny", action="store_true", help="a few connections: that it runs, not what it says")
    given = parser.parse_args()
    connections = 50 if given.tiny else given.connections
    server = Child("server", ping_s=3600.0)
    crowds: list[Child] = []
    try:
        begun = server.hear()
        for subscribe in (False, True):
            _warm_up(server, begun, subscribe, crowds)
            before = server.ask(memory=True)
            crowds.append(_crowd(begun, connections, subscribe))
            after = server.ask(memory=True)
            grown = after["rss_bytes"] - before["rss_bytes"]
            added = after["connections"] - before["connections"]
            figure = "bytes_per_subscribed_connection" if subscribe else "bytes_per_idle_connection"
            print(json.dumps({
                "bench": "memory", "figure": figure, "value": round(grown / added), "unit": "bytes",
                "workload": {"connections": added, "subscriptions_each": int(subscribe)},
            }), flush=True)  # fmt: skip
    finally:
        for child in (*crowds, server):
            child.end()


def _warm_up(server: Child, begun: dict[str, Any], subscribe: bool, crowds: list[Child]) -> None:
    # The first connections pay for code and tables that later ones share.
    crowds.append(_crowd(begun, 20, subscribe))
    server.ask(memory=True)


def _crowd(begun: dict[str, Any], clients: int, subscribe: bool) -> Child:
    crowd = Child("crowd", port=begun["port"], token=begun["token"], clients=clients, subscribe=subscribe)
    crowd.hear()
    return crowd


if __name__ == "__main__":
    main()
