"""Plug-ins in a running deployment: the worked example, installed from its folder, beside one that raises, dawdles and hangs."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from mdc.documents import decode_doc
from mdq.connect import open_broker
from mdq.publisher import Publisher
from service.partition import partition_of
from tests.live.test_tapes import events_on, finished
from tests.market import Market
from tests.mdp.plugins.boxes import EXAMPLE, install, package
from tests.servers import Process
from tests.stack import ROOT, Stack
from tests.tapes import tape

pytestmark = pytest.mark.live

START_MS = 1_700_060_400_000  # a Wednesday, 10:00 in New York
SYMBOLS = [f"S{n}" for n in range(16)]
FRAGILE = """
import time
import msgspec
from mdp.plugin import Plugin

class Count(msgspec.Struct):
    trades: int = 0

class Fragile(Plugin):
    State = Count

    def on_trade(self, state, trade, effect):
        if trade.price == 666:
            raise ValueError("I do not like 666")
        if trade.price == 777:
            time.sleep(1.1)
        while trade.price == 888:
            pass
        state.trades += 1

    def document(self, symbol, state):
        return {"trades": state.trades}
"""


class Feed:
    """Publishes trades as a live feed does."""

    def __init__(self, running: Stack) -> None:
        self._running = running
        self._seq = 0
        self.sent = 0
        self.by_symbol: dict[str, int] = dict.fromkeys(SYMBOLS, 0)

    def send(self, *prices: tuple[str, float]) -> None:
        """Publish trades (symbol, price), each a millisecond after the one before; return when RabbitMQ has them."""
        asyncio.run(self._send(prices))

    async def _send(self, prices: tuple[tuple[str, float], ...]) -> None:
        broker = open_broker(self._running.rabbitmq.url, "feed")
        await broker.connect()
        publisher = Publisher(broker, 8, "live", lossless=True)
        await publisher.start()
        for symbol, price in prices:
            self.sent += 1
            self.by_symbol[symbol] += 1
            at_ms = START_MS + self.sent
            event = {"ev": "T", "sym": symbol, "p": price, "s": 1, "t": at_ms, "c": [], "x": 4, "i": str(self.sent)}
            publisher.add("trades", partition_of(symbol, 8), [json.dumps(event).encode()], at_ms * 1_000_000, at_ms * 1_000_000)
        assert await publisher.drain(30)
        await publisher.close(1)
        await broker.close()

    def rounds(self, count: int) -> None:
        """Publish as many ordinary trades of every symbol."""
        self.send(*((symbol, 100.0 + n) for n in range(count) for symbol in SYMBOLS))


def command(running: Stack, target: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """Run `python -m …` with the plug-ins on the path, against these servers."""
    env = os.environ | {"MDC_URL": running.cache.url, "RUN_DIR": str(running.folder), "PYTHONPATH": str(target)}
    return subprocess.run(
        [sys.executable, "-m", *words], cwd=ROOT, env=env, capture_output=True, text=True, timeout=120, check=False
    )


def data(running: Stack, channel: str) -> Any:
    """Return what a channel's document says."""
    body = running.redis.get(f"ch:{channel}")
    return json.loads(bytes(decode_doc(body).data)) if body else None


def told(running: Stack, name: str) -> dict[str, Any]:
    """Return what `status:pipeline` says of a plug-in."""
    status = data(running, "status:pipeline") or {"processors": {}}
    found: dict[str, Any] = status["processors"].get("plugins", {}).get(name, {})
    return found


@pytest.fixture(scope="module")
def target(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the example, as pip installs it, and the fragile one."""
    folder = tmp_path_factory.mktemp("plugins") / "site"
    install(EXAMPLE, folder)
    package(folder, "fragile", {"fragile": "fragile:Fragile"}, FRAGILE)
    package(folder, "broken", {"broken": "broken:X"}, "raise RuntimeError('not today')")
    return folder


def watch(running: Stack, *channels: str) -> Process:
    """Start a data service, which has no plug-in, and a script that watches."""
    env = os.environ | {"RUN_DIR": str(running.folder), "WDS_URL": Market(running).start_wds()}
    argv = [sys.executable, "-m", "wds", "watch", *channels, "--hz", "raw"]
    return Process(argv, env, ROOT, running.folder / "watch.log")


def pushed(running: Stack, channel: str) -> list[dict[str, Any]]:
    """Return the frames of a channel that the script has printed."""
    lines = (running.folder / "watch.log").read_text().splitlines()
    frames = [json.loads(line) for line in lines if line.startswith("{") and line.endswith("}")]
    return [frame for frame in frames if frame.get("ch") == channel]


def reports(frames: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the events of an event channel's frames: the snap's, then each."""
    found: list[dict[str, Any]] = []
    for frame in frames:
        if frame["t"] == "snap":
            found = list(frame["data"])
        elif frame["t"] == "event":
            found.append(frame["data"])
    return found


def test_the_example_says_live_what_its_back_test_says(running: Stack, target: Path) -> None:
    """A recorded session through everything: reports, document and board at the end equal `deploy.replay`'s, one by one."""
    recorded = tape("es-2023-12-25.ndjson.gz")
    running.start("mdp0", "mdp", MDP_WORKER="w0", PYTHONPATH=target)
    running.wait("every partition owned", lambda: len(running.owners()) == 8)
    script = watch(running, "ownlog:big_prints:*", "own:big_prints:ESH4", "board:big_prints")
    try:
        running.start("mdl", "mdl", MDL_FEED="replay", MDL_TAPE=recorded, MDL_SPEED="max", MDL_LEASE="off")
        running.wait("the whole tape", lambda: finished(running, events_on(recorded)), 60)
        done = command(running, target, "deploy.replay", str(recorded), "--analyzer", "big_prints")
        assert done.returncode == 0, done.stderr
        documents = [json.loads(line) for line in done.stdout.splitlines()]
        wanted = {one["ch"]: one["data"] for one in documents}
        big = [one["data"] for one in documents if one["ch"] == "ownlog:big_prints:ESH4"]
        assert len(big) > 20
        assert wanted["own:big_prints:ESH4"]["big"] == len(big)
        running.wait("all reports at the script", lambda: reports(pushed(running, "ownlog:big_prints:ESH4")) == big)
        running.wait("its document", lambda: data(running, "own:big_prints:ESH4") == wanted["own:big_prints:ESH4"])
        running.wait("its board", lambda: data(running, "board:big_prints") == wanted["board:big_prints"])
        assert wanted["board:big_prints"]["rows"]["ESH4"]["big"] == len(big)
        assert pushed(running, "board:big_prints")
        assert told(running, "big_prints") | {"state": "running", "off": [], "failures": 0, "missed_events": 0} == told(
            running, "big_prints"
        )
    finally:
        script.stop(signal.SIGKILL)


def test_what_fails_dawdles_or_hangs_is_taken_out_and_nobody_else_notices(running: Stack, target: Path) -> None:
    """Three faults of one plug-in; the other and the built-in analyzers have every trade, and the operator has the last word."""
    running.start("mdp0", "mdp", MDP_WORKER="w0", PYTHONPATH=target, MDP_FLUSH_MS=10, MDP_PLUGIN_STALL_MS=1_500)
    running.wait("every partition owned", lambda: len(running.owners()) == 8)
    assert "not today" in (running.folder / "mdp0.log").read_text()
    script, feed = watch(running, "own:fragile:S1", "status:pipeline"), Feed(running)

    def settled(lost: int = 0) -> bool:
        sent = [n - lost * (s == "S1") for s, n in feed.by_symbol.items()]
        counted = [(data(running, f"quote:{s}") or {}).get("trades") for s in SYMBOLS]
        return counted == [(data(running, f"own:big_prints:{s}") or {}).get("trades") for s in SYMBOLS] == sent

    try:
        feed.rounds(20)
        running.wait("every trade", settled)
        running.wait("its checkpoint", lambda: data(running, "own:fragile:S1") == {"trades": 20})
        assert told(running, "broken")["state"] == "refused"
        for n, (price, fault) in enumerate(((666.0, "ValueError: I do not like 666"), (777.0, "it took ")), 1):
            feed.send(("S1", price))
            running.wait(
                f"the fault of {price}", lambda n=n: told(running, "fragile").get("failures") == n and told(running, "fragile")
            )
            assert told(running, "fragile")["error"].startswith(fault)
            running.wait("its restart", lambda: told(running, "fragile")["state"] == "running")
            feed.rounds(5)
            running.wait("every trade", settled)
        # the trade that it failed at is missed; the slow one had been counted, and was not in a flush
        running.wait("its state goes on", lambda: data(running, "own:fragile:S1") == {"trades": 30})
        feed.send(("S1", 888.0))
        worker = running.processes.pop("mdp0")
        assert worker.wait(30) == 70
        said = (running.folder / "mdp0.log").read_text()
        assert "error: the plug-in fragile is off: it did not return for" in said
        assert "fragile.py" in said
        running.start("mdp0", "mdp", MDP_WORKER="w0", PYTHONPATH=target, MDP_FLUSH_MS=10, MDP_PLUGIN_STALL_MS=1_500)
        running.wait("off in every partition", lambda: told(running, "fragile").get("off") == list(range(8)))
        assert told(running, "fragile")["state"] == "off"
        feed.rounds(5)
        # The one that hung it, too, unless the restart took longer than the five seconds for which a batch waits.
        running.wait("every trade", lambda: settled() or settled(1))
        assert data(running, "own:fragile:S1") == {"trades": 30}
        running.wait(
            "a word to clients", lambda: "the plug-in fragile is off: watchdog of w0" in str(pushed(running, "own:fragile:S1"))
        )
        listed = command(running, target, "mdp", "plugins")
        assert "fragile: off" in listed.stdout, listed
        assert "big_prints: running; version 1.0; 1 worker(s)" in listed.stdout
        assert command(running, target, "mdp", "plugins", "--on", "fragile").returncode == 0
        running.wait("it is on again", lambda: told(running, "fragile").get("state") == "running")
        feed.rounds(5)
        running.wait("it goes on from its checkpoint", lambda: data(running, "own:fragile:S1") == {"trades": 35})
        running.wait("every trade", lambda: settled() or settled(1))
        counts = running.counts()
        assert (feed.sent - counts["events"] <= 1, counts["bad"], counts["dropped"]) == (True, 0, 0)
    finally:
        script.stop(signal.SIGKILL)
