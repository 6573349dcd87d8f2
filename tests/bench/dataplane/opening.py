"""How old are boards, alerts and quotes at a client in the minute in which a market opens, and is anything lost?

Workload: a tape (`opening_tape`) at its recorded speed → listener → RabbitMQ → processors with all analyzers → Redis → one WDS
worker → one client as a page has it: boards and quotes of 40 symbols at 4 Hz, alerts at 10 Hz, prints of 20 symbols raw. All symbols
trade and are quoted within the first second, thousands of range, gap and volume alerts with them; then a steady rate.

Age = client's clock on receipt minus the time of the newest event in what is received: of a board row that of the trade which gave
its volume (`board_calm` are the boards that are ranked once a second), of alerts that of their trade. A range alert that the pause of its symbol has held back is counted and not measured: it
waits by intent, told from the alerts before it. The tape's clock is set by the quickest print of the pre-market: figures
are less by what that one took (in `latency` under 10 ms). Excluded: the pre-market; rows and quotes as they were before the open.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import time
from collections import Counter, defaultdict
from typing import Any

import orjson
from websockets.asyncio.client import ClientConnection, connect
from websockets.typing import Subprotocol

from mdp.analyzers.ranks import QUICK
from tests.bench.dataplane import opening_tape
from tests.bench.dataplane.opening_tape import OPENS_MS, Plan, Tape
from tests.bench.window import Window
from tests.servers import free_port
from tests.stack import Stack, stack
from wds.access.keys import mint_local
from wds.protocol import PATH, SUBPROTOCOL

PRINTS = 20  # symbols whose prints the client has
CHANNELS = ("alerts:range", "alerts:gap", "alerts:volume")
PAUSE_MS = 1_000  # MDP_ALERT_PAUSE_MS as it comes
TAIL_S = 3.0  # what was under way at the end has arrived by then
SHARES = (("p50", 0.5), ("p99", 0.99), ("max", 1.0))


def main() -> None:
    """Run the benchmark and print its figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--symbols", type=int, default=5_000)
    parser.add_argument("--rate", type=int, default=8_000, help="events/s after the first second")
    parser.add_argument("--seconds", type=int, default=60, help="of the regular session")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument(
        "--tiny", action="store_true", help="three seconds of 100 symbols, to see that the benchmark itself works"
    )
    options = parser.parse_args()
    if options.tiny:
        options.symbols, options.rate, options.seconds = 100, 500, 3
    plan = Plan(options.symbols, options.rate, options.seconds)
    with stack() as running:
        measure(running, plan, options.workers)


def measure(running: Stack, plan: Plan, workers: int) -> None:
    """Play the opening, look on as a client does and print what was seen."""
    tape_path, reference = running.folder / "opening.ndjson", running.folder / "reference.csv"
    tape = opening_tape.write(tape_path, plan)
    opening_tape.write_reference(reference, plan)
    for n in range(workers):
        running.start(f"mdp{n}", "mdp", MDP_WORKER=f"bench-{n}", MDP_REFERENCE=reference)
    running.start("wds", "wds serve", WDS_PORT=(port := free_port()))
    running.wait("partitions owned", lambda: len(running.owners()) == 8)
    running.start("mdl", "mdl", MDL_FEED="replay", MDL_TAPE=tape_path, MDL_SPEED="1", MDL_LEASE="off")
    running.wait("every symbol", lambda: running.counts()["events"] >= 2 * plan.symbols, 60)
    viewer = Viewer(tape, plan)
    with Window(running.pids(), running.folder) as window:
        asyncio.run(viewer.watch(port, mint_local(running.folder)))
    counts, load = running.counts(), os.getloadavg()[0]
    missing = tape.events - counts["events"]
    workload = f"{plan.symbols} symbols at once, then {plan.rate} events/s, {plan.seconds} s, {workers} workers"
    facts: dict[str, Any] = {"workload": workload, "load": round(load, 1), "others_pct": window.others_pct, "lost": missing}
    for kind, ages in sorted(viewer.ages_ms.items()):
        ages.sort()
        for name, share in SHARES:
            value = ages[min(len(ages) - 1, int(share * len(ages)))]
            emit(f"{kind}_{name}_ms", round(value, 1), "ms", samples=len(ages), **facts)
    for channel in CHANNELS:
        kind = channel.partition(":")[2]
        told = len(viewer.alerts[channel])
        emit(
            f"alerts_{kind}",
            told,
            "alerts at the client",
            lost_at_client=viewer.lost[channel],
            held=viewer.held[channel],
            **facts,
        )
    for name in ("expired", "dropped", "redelivered", "bad"):
        emit(name, counts[name], "events", tape_events=tape.events, **facts)
    for figure, value in window.figures(tape.events):
        emit(figure, value, "µs", seconds=round(window.seconds, 1), **facts)


class Viewer:
    """One page: the ages of what it receives after the open, by kind of channel."""

    def __init__(self, tape: Tape, plan: Plan) -> None:
        self.ages_ms: dict[str, list[float]] = defaultdict(list)
        self.alerts: dict[str, list[int]] = defaultdict(list)
        self.lost: Counter[str] = Counter()
        self.held: Counter[str] = Counter()
        self._tape, self._plan = tape, plan
        self._volumes: dict[str, dict[str, int]] = defaultdict(dict)  # board → symbol → the day's volume in its row
        self._told_ms: dict[tuple[str, ...], int] = {}  # symbol, kind and session of range alerts → when one was told last
        self._offset_ms = float("inf")  # the client's clock less the tape's
        self._ends_ms = OPENS_MS + plan.seconds * 1_000

    async def watch(self, port: int, token: str) -> None:
        """Read until the tape is over."""
        url = f"ws://127.0.0.1:{port}{PATH}"
        async with connect(url, subprotocols=[Subprotocol(SUBPROTOCOL)], compression=None, max_size=None) as socket:
            await self._ask(socket, token)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(opening_tape.PRE_S + self._plan.seconds + TAIL_S):
                    async for text in socket:
                        now_ms = time.time() * 1000
                        if self._take(orjson.loads(text), now_ms):
                            await socket.send('{"op":"pong"}')
                        if now_ms - self._offset_ms > self._ends_ms + 1_000 * TAIL_S:
                            break

    async def _ask(self, socket: ClientConnection, token: str) -> None:
        seen = self._plan.seen
        commands: list[dict[str, Any]] = [
            {"op": "auth", "token": token},
            {"op": "sub", "ch": [f"trades:{name}" for name in seen[:PRINTS]], "hz": "raw"},
            {"op": "sub", "ch": ["status:pipeline"], "hz": "raw"},
            {"op": "sub", "ch": list(CHANNELS), "hz": 10},
            {"op": "sub", "ch": ["board:*"], "hz": 4},
            {"op": "sub", "ch": [f"quote:{name}" for name in seen], "hz": 4},
        ]
        for number, command in enumerate(commands):
            await socket.send(orjson.dumps({"id": number, **command}).decode())

    def _take(self, frame: Any, now_ms: float) -> bool:
        """Note what came; return whether the server asks for a sign of life."""
        pinged = False
        for one in frame if isinstance(frame, list) else [frame]:
            assert one.get("ok", True), one
            pinged = pinged or one.get("t") == "ping"
            channel = one.get("ch", "")
            if one.get("t") == "lost":
                self.lost[channel] += one["n"]
            elif one.get("t") == "event":
                self._take_event(channel, one["data"], now_ms)
            elif one.get("t") == "upd" and channel.startswith("quote:") and "ts" in one["data"]:
                self._note("quote", one["data"]["ts"], now_ms)
            elif one.get("t") == "snap" and channel.startswith("board:"):
                self._volumes[channel] = {name: row["volume"] for name, row in one["data"]["rows"].items()}
            elif one.get("t") == "rows":
                self._take_rows(channel, one, now_ms)
        return pinged

    def _take_event(self, channel: str, data: dict[str, Any], now_ms: float) -> None:
        kind, _, name = channel.partition(":")
        ts = data["ts"]
        if kind == "trades":
            if ts < OPENS_MS:
                self._offset_ms = min(self._offset_ms, now_ms - ts)
            self._note(kind, ts, now_ms)
        elif kind == "alerts":
            self.alerts[channel].append(ts)
            if name == "range" and self._is_held(data):
                self.held[channel] += 1
            else:
                self._note(f"alerts_{name}", ts, now_ms)

    def _take_rows(self, channel: str, frame: dict[str, Any], now_ms: float) -> None:
        """Measure the rows that changed; one that enters a board because others leave it may be of any age."""
        volumes = self._volumes[channel]
        kind = "board" if channel.partition(":")[2] in QUICK else "board_calm"
        for name in frame.get("del", ()):
            volumes.pop(name, None)
        for name, row in frame.get("set", {}).items():
            if "volume" in row and row["volume"] != volumes.get(name):
                if name in volumes and (ts := self._tape.reached_ms.get((name, row["volume"]))) is not None:
                    self._note(kind, ts, now_ms)
                volumes[name] = row["volume"]

    def _is_held(self, data: dict[str, Any]) -> bool:
        """Whether a pause has held an alert back: by the same rule as the analyzer, from what came before it."""
        side, ts = (data["sym"], data["kind"], data["session"]), data["ts"]
        told_ms = self._told_ms.get(side, 0)
        held = told_ms > 0 and abs(ts - told_ms) < PAUSE_MS
        self._told_ms[side] = told_ms + PAUSE_MS if held else ts
        return held

    def _note(self, kind: str, ts: int, now_ms: float) -> None:
        assert self._offset_ms < float("inf") or ts < OPENS_MS, "the client came after the open"
        if ts >= OPENS_MS:
            self.ages_ms[kind].append(now_ms - self._offset_ms - ts)


def emit(figure: str, value: float, unit: str, **facts: Any) -> None:
    """Print one result line."""
    print(json.dumps({"bench": "opening", "figure": figure, "value": value, "unit": unit, **facts}), flush=True)


if __name__ == "__main__":
    main()
