"""Runs a whole market on this machine: vendor server, listener, processors, data service on servers that a test may break."""

from __future__ import annotations

import json
import urllib.request
from typing import Any

from tests.servers import free_port
from tests.stack import Stack

TOKEN = "test-admin-token"
RATE = 4_000


class Market:
    """A vendor server with a simulated market, a listener on it with the official client, processors, and their servers."""

    def __init__(self, running: Stack, rate: int = RATE) -> None:
        self.running = running
        self.rate = rate  # events a second
        self._accounted = -1  # as of the last look
        self.vendor_port, self.vendor_admin = free_port(), free_port()

    def start_vendor(self) -> None:
        """Start the Massive-compatible server."""
        self.running.start(
            "vendor", "mdl vendor-server", MDL_FEED="simulator", MDL_SYMBOLS=200, MDL_RATE=self.rate, MDL_VENDOR_PORT=self.vendor_port,
            MDL_VENDOR_ADMIN_PORT=self.vendor_admin, MDL_VENDOR_KEYS="k", ADMIN_TOKEN=TOKEN,
        )  # fmt: skip

    def start(self, workers: int = 1) -> None:
        """Start everything and wait until events arrive in the cache."""
        self.start_vendor()
        for n in range(workers):
            self.running.start(f"mdp{n}", "mdp", MDP_WORKER=f"w{n}")
        # What was published before there was a processor is nobody's loss, so the count begins with them.
        self.running.wait("partitions owned", lambda: len(self.running.owners()) == 8)
        url = f"ws://127.0.0.1:{self.vendor_port}"
        self.running.start("mdl", "mdl", MDL_FEED="massive", MDL_MASSIVE_URL=url, MDL_API_KEY="k", ADMIN_TOKEN=TOKEN)
        self.running.wait("events in the cache", lambda: self.running.counts()["events"] > self.rate)

    def start_wds(self, workers: int = 1) -> str:
        """Start the data service; return its URL."""
        port = free_port()
        self.running.start("wds", "wds serve", WDS_PORT=port, WDS_WORKERS=workers)
        self.running.wait("the data service", lambda: answers(f"http://127.0.0.1:{port}/healthz"))
        return f"ws://127.0.0.1:{port}"

    def fault(self, kind: str, text: str = "x") -> None:
        """Have the vendor server misbehave."""
        post(f"http://127.0.0.1:{self.vendor_admin}/fault", {"kind": kind, "text": text})

    def listener(self) -> dict[str, Any]:
        """Return what the listener says of itself."""
        (found,) = ask(f"http://127.0.0.1:{self.running.ports['mdl']}/feed")["sources"].values()
        return found

    def clients(self) -> list[Any]:
        """Return the vendor's connections."""
        return ask(f"http://127.0.0.1:{self.vendor_admin}/clients")

    def balance(self) -> tuple[int, int]:
        """Return (events the listener routed to the queues, events in the cache or counted as lost).

        What the listener itself had to drop behind its router left a gap in the sequence: the processors count it.
        """
        facts, counts = self.listener(), self.running.counts()
        return facts["received_events"] - facts["buffer_dropped_events"], sum(
            counts[n] for n in ("events", "expired", "dropped", "bad")
        )

    def given_up(self) -> int:
        """Return how many events tenures that ended had still in hand; those that were on their way may have come through."""
        lines = (self.running.folder / "mdl.log").read_text().splitlines()
        return sum(json.loads(line).get("lost_events", 0) for line in lines if '"publisher_closed_with_events"' in line)

    def settle(self) -> dict[str, int]:
        """Silence the vendor and wait until every event is accounted for; return the counts."""
        self.fault("pause")
        try:
            self.running.wait("every event accounted for", self._settled, 20, pause_s=0.5)
        except TimeoutError as late:
            raise AssertionError(f"received, accounted: {self.balance()}; {self.running.counts()}") from late
        return self.running.counts()

    def _settled(self) -> bool:
        received, accounted = self.balance()
        before, self._accounted = self._accounted, accounted
        return received == accounted or (accounted == before and received - self.given_up() <= accounted < received)


def answers(url: str) -> bool:
    """Return whether anything answers at `url`."""
    try:
        urllib.request.urlopen(url, timeout=2).close()
    except OSError:
        return False
    return True


def ask(url: str) -> Any:
    """Return the JSON that `url` answers who shows the token."""
    request = urllib.request.Request(url, headers={"authorization": f"Bearer {TOKEN}"})
    with urllib.request.urlopen(request, timeout=5) as answer:
        return json.load(answer)


def post(url: str, body: dict[str, Any]) -> Any:
    """Post JSON with the token; return the answer."""
    headers = {"content-type": "application/json", "authorization": f"Bearer {TOKEN}"}
    request = urllib.request.Request(url, json.dumps(body).encode(), headers)
    with urllib.request.urlopen(request, timeout=5) as answer:
        return json.load(answer)
