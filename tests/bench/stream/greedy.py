"""Does a greedy client make others wait: 100 pipelined gets, 20,000 subscriptions, patterns that match nothing?

1,000 clients follow one channel at `raw`; windows without and with one greedy client alternate, for each kind of greed. A ratio is the
median of the windows with over the median of those without, of the clients' p99 age. The greedy one reads what it gets, and comes back a
second later, or when it was sent away, with a new allowance. Worker, clients and the greedy one are a process each. Redis is excluded.
"""

from __future__ import annotations

import argparse
import json
import statistics

from tests.bench.stream.rig import GREED, Child

RATE_S = 40.0


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--clients", type=int, default=1000)
    parser.add_argument("--universe", type=int, default=3000)
    parser.add_argument("--seconds", type=float, default=1.5)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--kinds", nargs="*", default=list(GREED))
    parser.add_argument("--tiny", action="store_true", help="a few clients for a moment: that it runs, not what it says")
    given = parser.parse_args()
    if given.tiny:
        given.clients, given.universe, given.seconds, given.rounds = 20, 300, 0.3, 1
    workload = {"clients": given.clients, "universe": given.universe, "seconds": given.seconds, "rounds": given.rounds}
    for kind, (without, with_it) in measure(given.clients, given.universe, given.seconds, given.rounds, given.kinds).items():
        for figure, value, unit in (
            ("p99_ms", without, "ms"),
            ("p99_greedy_ms", with_it, "ms"),
            ("p99_ratio", with_it / without, ""),
        ):
            line = {"bench": "greedy", "figure": f"{kind}_{figure}", "value": round(value, 4), "unit": unit, "workload": workload}
            print(json.dumps(line), flush=True)


def measure(clients: int, universe: int, seconds: float, rounds: int, kinds: list[str]) -> dict[str, tuple[float, float]]:
    """Return for each kind of greed the others' p99 age in ms: without it, and with it."""
    server = Child("server", ping_s=3600.0)
    begun = server.hear()
    reach = {"port": begun["port"], "token": begun["token"]}
    crowd = Child("crowd", **reach, clients=clients, subscribe=True)
    children = [crowd, server]
    found: dict[str, tuple[float, float]] = {}
    try:
        server.ask(fill=universe)
        crowd.hear()
        window(server, crowd, seconds)
        for kind in kinds:
            greedy = Child("greedy", **reach, kind=kind)
            children.insert(0, greedy)
            without, with_it = [], []
            for _ in range(rounds):
                without.append(window(server, crowd, seconds))
                greedy.tell(start=True)
                with_it.append(window(server, crowd, seconds))
                greedy.ask(stop=True)
            found[kind] = statistics.median(without), statistics.median(with_it)
    finally:
        for child in children:
            child.end()
    return found


def window(server: Child, crowd: Child, seconds: float) -> float:
    """Publish for a while; return the clients' p99 age in ms."""
    crowd.ask(start=True)
    server.ask(publish=RATE_S, seconds=seconds, burst=1)
    return float(crowd.ask(measure=True)["p99_ms"])


if __name__ == "__main__":
    main()
