"""Enrichment in a running deployment, its REST service behind a line that fails: fields are null and never wrong, prices flow."""

from __future__ import annotations

import json
import threading
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from mdl.simulation.universe import universe
from tests.cable import Cable
from tests.market import Market
from tests.stack import Stack

pytestmark = pytest.mark.live

FIELDS = ("prev_close", "prev_open", "prev_high", "prev_low", "prev_volume", "prev_vwap", "avg_volume", "float", "rel_volume")
LISTED = universe(200, 7)
BUSY = LISTED.symbols[:20]
STRANGE = json.dumps({"status": "OK", "results": {"AAPL": "a map where a list was"}, "tickers": 7}).encode()


class Spoiler:
    """Forwards REST questions to the vendor, or spoils the answers: `mode` = pass, unavailable, half, shape or slow."""

    def __init__(self, target: str) -> None:
        self.asked: Counter[str] = Counter()
        self._target, self._mode = target, "pass"
        self._changed = threading.Event()
        spoiler = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                spoiler.answer(self)

            def log_message(self, *_: object) -> None:
                """The questions are counted; nobody reads lines of them."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    @property
    def mode(self) -> str:
        return self._mode

    @mode.setter
    def mode(self, value: str) -> None:
        before, self._changed = self._changed, threading.Event()
        self._mode = value
        before.set()  # who is being kept waiting is let go

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        """Answer one question as the mode says."""
        mode, changed = self._mode, self._changed
        self.asked[mode] += 1
        request.close_connection = True
        if mode == "slow":
            changed.wait(60)  # and not a byte then
            return
        status, body = (503, b"{}") if mode == "unavailable" else (200, STRANGE) if mode == "shape" else self._forward(request)
        request.send_response(status)
        request.send_header("Content-Type", "application/json")
        request.send_header("Content-Length", str(len(body)))
        request.end_headers()
        request.wfile.write(body[: len(body) // 2] if mode == "half" else body)

    def _forward(self, request: BaseHTTPRequestHandler) -> tuple[int, bytes]:
        headers = {name: value for name, value in request.headers.items() if name.lower() == "authorization"}
        try:
            with urllib.request.urlopen(
                urllib.request.Request(self._target + request.path, headers=headers), timeout=20
            ) as answer:
                return answer.status, answer.read()
        except urllib.error.HTTPError as error:
            return error.code, error.read()

    def close(self) -> None:
        """Let everybody go and stop."""
        self.mode = "unavailable"
        self._server.shutdown()
        self._server.server_close()


class Watch:
    """Looks at the quotes of the busiest symbols while the service fails and after it."""

    def __init__(self, running: Stack) -> None:
        self._running = running

    def quotes(self) -> dict[str, dict[str, Any]]:
        """Return symbol → quote, of those that have traded."""
        bodies = self._running.redis.mget([f"ch:quote:{name}" for name in BUSY])
        found = {name: json.loads(body)["data"] for name, body in zip(BUSY, bodies, strict=True) if body is not None}
        return {name: quote for name, quote in found.items() if quote["last"] is not None}

    def flows(self, what: str) -> None:
        """Wait until prices go on; nothing is known, and the worker is ready, all the time."""
        before = max((quote["ts"] for quote in self.quotes().values()), default=0)
        self._running.wait(f"{what}: prices go on", lambda: self._went_on(before))
        assert ready(self._running), what

    def _went_on(self, before: int) -> bool:
        quotes = self.quotes()
        known = {(name, field): quote[field] for name, quote in quotes.items() for field in FIELDS if quote[field] is not None}
        assert not known, f"nobody can know {known}"
        return max((quote["ts"] for quote in quotes.values()), default=0) > before + 2_000

    def recovers(self) -> None:
        """Wait until everything is known; what was known on the way is what it is in the end."""
        seen: dict[tuple[str, str], set[Any]] = {}

        def whole() -> bool:
            quotes = self.quotes()
            for name, quote in quotes.items():
                for field in FIELDS[:-1]:  # the last one grows with the day
                    if quote[field] is not None:
                        seen.setdefault((name, field), set()).add(quote[field])
            return len(quotes) == len(BUSY) and all(quote[field] is not None for quote in quotes.values() for field in FIELDS)

        self._running.wait("every field", whole, 120)
        assert not {place: values for place, values in seen.items() if len(values) > 1}, "a field has changed its mind"
        for number, name in enumerate(BUSY):
            quote = self.quotes()[name]
            assert quote["prev_close"] == LISTED.closes_cents[number] / 100
            assert quote["prev_low"] <= quote["prev_close"] <= quote["prev_high"]
            assert abs(quote["avg_volume"] / LISTED.volumes[number] - 1) < 0.2
        assert ready(self._running)


def ready(running: Stack) -> bool:
    with urllib.request.urlopen(f"http://127.0.0.1:{running.ports['mdp0']}/readyz", timeout=5) as answer:
        return bool(answer.status == 200)


@contextmanager
def deployment(running: Stack, market: Market, rest_url: str) -> Iterator[Watch]:
    """Run a listener and a worker that asks `rest_url`."""
    running.start("mdp0", "mdp", MDP_WORKER="w0", MDP_REST_URL=rest_url, MDP_REST_KEY="k", MDP_REST_RATE=6_000)
    running.wait("partitions owned", lambda: len(running.owners()) == 8)
    url = f"ws://127.0.0.1:{market.vendor_port}"
    running.start("mdl", "mdl", MDL_FEED="massive", MDL_MASSIVE_URL=url, MDL_API_KEY="k")
    watch = Watch(running)
    running.wait("all quotes", lambda: len(watch.quotes()) == len(BUSY), 60)
    yield watch


def fails_told(running: Stack) -> int:
    return (running.folder / "mdp0.log").read_text(errors="replace").count("enrichment_fails")


def test_a_service_that_is_away_leaves_fields_null_and_comes_back(running: Stack) -> None:
    """Away from the start: prices flow and nothing is invented. When it is back everything is known, without a restart."""
    market = Market(running, rate=400)
    market.start_vendor()
    with Cable(f"http://127.0.0.1:{market.vendor_port}") as cable:
        cable.cut()
        with deployment(running, market, cable.url) as watch:
            running.wait("it is told", lambda: fails_told(running))
            watch.flows("away")
            cable.mend()
            watch.recovers()
    assert fails_told(running) <= 3, "a fault is told once, not each time"


@pytest.mark.faults
def test_answers_that_are_spoiled_in_every_way_say_nothing_wrong(running: Stack) -> None:
    """Unavailable, half an answer, another shape, no answer at all: one after the other, and then it is well."""
    market = Market(running, rate=400)
    market.start_vendor()
    spoiler = Spoiler(f"http://127.0.0.1:{market.vendor_port}")
    try:
        spoiler.mode = "unavailable"
        with deployment(running, market, spoiler.url) as watch:
            for mode in ("unavailable", "half", "shape", "slow"):
                spoiler.mode = mode
                running.wait(f"{mode}: it is asked", lambda mode=mode: spoiler.asked[mode], 90)
                watch.flows(mode)
            spoiler.mode = "pass"
            watch.recovers()
        assert sum(spoiler.asked.values()) - spoiler.asked["pass"] <= 20, "it was asked in vain too often"
    finally:
        spoiler.close()


@pytest.mark.faults
def test_a_worker_that_takes_over_while_the_service_fails_keeps_what_is_known(running: Stack) -> None:
    """What was found is in the cache: a service that is away then takes nothing back, from nobody."""
    market = Market(running, rate=400)
    market.start_vendor()
    with Cable(f"http://127.0.0.1:{market.vendor_port}") as cable, deployment(running, market, cable.url) as watch:
        watch.recovers()
        known = {(name, field): quote[field] for name, quote in watch.quotes().items() for field in FIELDS[:-1]}
        cable.cut()
        running.stop("mdp0")
        running.start("mdp0", "mdp", MDP_WORKER="w1", MDP_REST_URL=cable.url, MDP_REST_KEY="k", MDP_REST_RATE=6_000)
        running.wait("partitions owned", lambda: set(running.owners().values()) == {"w1"})
        before = max(quote["ts"] for quote in watch.quotes().values())
        running.wait("prices go on", lambda: max(quote["ts"] for quote in watch.quotes().values()) > before + 3_000)
        assert {(name, field): quote[field] for name, quote in watch.quotes().items() for field in FIELDS[:-1]} == known
        assert ready(running)
