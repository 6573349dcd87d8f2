"""How fast is the control plane: tokens a second, the inventory under load, the end of a session, the cost of signing in?

One control plane on SQLite with a real Redis and a WDS worker, all on the same cores as the clients. `tokens_per_s`: GET /api/session over 8
kept connections for some seconds. `list_p99_ms`: GET /api/v1/components?limit=200 at 100 requests a second, with the run's own
components, and with 500 more in the cache. `revocation_p99_ms`: from the answer to a sign-out until the WebSocket is closed with
4001. `sign_in_ms`: one after the other, argon2id included. `memory_growth_mb`: resident memory after the load against before.
"""

from __future__ import annotations

import argparse
import asyncio
import http.client
import json
import statistics
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import msgspec
import redis
import websockets

from mdc import keys
from service.heartbeat import Beat, Kept, seal
from tests.local_run import LocalRun
from tests.servers import Redis
from tests.signing import PASSWORD
from wds.protocol import SUBPROTOCOL

THREADS = 8
FAKES = 500


class Plane:
    """A run, and requests to its control plane as its administrator."""

    def __init__(self, run: LocalRun) -> None:
        (cookie,) = run.cookies()
        self.run = run
        self.headers = {"Cookie": f"{cookie['name']}={cookie['value']}"}
        self.name = str(cookie["name"])

    def connect(self) -> http.client.HTTPConnection:
        """Return a connection that is kept."""
        return http.client.HTTPConnection("127.0.0.1", self.run.port("SCP_PORT"), timeout=30)

    def ask(self, on: http.client.HTTPConnection, path: str, method: str = "GET", body: Any = None, **headers: str) -> Any:
        """Return an answer's document; anything but a good one fails."""
        more = {"Content-Type": "application/json"} if method != "GET" else {}
        given = {**self.headers, **more, **{name.replace("_", "-"): value for name, value in headers.items()}}
        on.request(method, path, None if body is None else json.dumps(body), given)
        answer = on.getresponse()
        raw = answer.read()
        assert answer.status < 300, (path, answer.status, raw[:300])
        cookie = (answer.getheader("Set-Cookie") or "").partition(";")[0]
        return (json.loads(raw) if raw else None), cookie


def main() -> None:
    """Run the benchmark and print its figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=10.0, help="of each load")
    parser.add_argument("--tiny", action="store_true", help="a second's work, to see that the benchmark itself works")
    options = parser.parse_args()
    seconds = 1.0 if options.tiny else options.seconds
    with Redis() as cache, tempfile.TemporaryDirectory() as folder, small_run(Path(folder), cache.url) as run:
        run.says("ready after")
        measure(Plane(run), cache.url, seconds)
        run.interrupt()
        run.ends()


def small_run(folder: Path, cache_url: str) -> LocalRun:
    """Return a run that does little beside."""
    return LocalRun(folder, FEED="simulator", SYMBOLS="20", RATE="100", MDC_URL=cache_url)


def measure(plane: Plane, cache_url: str, seconds: float) -> None:
    """Print every figure."""
    pid = plane.run.pids()["scp"]
    tokens(plane, min(1.0, seconds))
    before = resident(pid)
    say("tokens_per_s", tokens(plane, seconds), "tokens/s", f"{THREADS} kept connections, {seconds:g} s")
    few = listed(plane, seconds)
    say("list_p99_ms", few, "ms", f"GET /api/v1/components?limit=200 at 100/s for {seconds:g} s, the run's own components")
    pretend(cache_url, Path(plane.run.dir))
    say("list_500_p99_ms", listed(plane, seconds), "ms", f"the same with {FAKES} components more")
    times = sign_ins(plane, 3 if seconds < 2 else 6)  # thirty a quarter of an hour are let in
    say("sign_in_ms", statistics.median(times), "ms", f"median of {len(times)}, one after the other")
    ends = [asyncio.run(revoked(plane)) for _ in range(3 if seconds < 2 else 20)]
    say(
        "revocation_p99_ms",
        percentile(ends, 0.99),
        "ms",
        f"{len(ends)} sign-outs, sockets closed with 4001; p50 {percentile(ends, 0.5):.0f}",
    )
    say("memory_growth_mb", resident(pid) - before, "MB", "resident memory of the control plane, after all of it against before")


def tokens(plane: Plane, seconds: float) -> float:
    """Return stream tokens a second."""
    counts, until = [0] * THREADS, time.monotonic() + seconds

    def work(number: int) -> None:
        on = plane.connect()
        while time.monotonic() < until:
            plane.ask(on, "/api/session")
            counts[number] += 1

    threads = [threading.Thread(target=work, args=(number,)) for number in range(THREADS)]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    return sum(counts) / seconds


def listed(plane: Plane, seconds: float) -> float:
    """Return the p99 of the inventory at 100 requests a second over four connections, late ones counted from when they were due."""
    began, times = time.monotonic(), list[float]()
    due = iter(range(int(seconds * 100)))
    lock = threading.Lock()

    def work() -> None:
        on = plane.connect()
        while True:
            with lock:
                number = next(due, None)
            if number is None:
                return
            at = began + number / 100
            time.sleep(max(0.0, at - time.monotonic()))
            plane.ask(on, "/api/v1/components?limit=200")
            times.append((time.monotonic() - at) * 1000)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    return percentile(times, 0.99)


def pretend(cache_url: str, run_dir: Path) -> None:
    """Write heartbeats of components that are not there, sealed as theirs would be."""
    token = (run_dir / "admin.token").read_text().strip().encode()
    now_ms = time.time_ns() // 1_000_000
    client = redis.Redis.from_url(cache_url)
    for number in range(FAKES):
        name = f"wds-host-{number:04}"
        beat = msgspec.json.encode(
            Beat(
                id=name, kind="wds", name="wds", version="1", host="host", pid=1, instance="i", started_ms=now_ms,
                admin=f"http://127.0.0.1:{20_000 + number}", log_level="info", ready=True, reasons=[], rates={"frames_s": 1.0},
            )
        )  # fmt: skip
        kept = msgspec.json.encode(Kept(at_ms=now_ms + 600_000, seal=seal(token, beat), beat=msgspec.Raw(beat)))
        client.hset(keys.COMPONENTS, name, kept)


def sign_ins(plane: Plane, count: int) -> list[float]:
    """Return how long signing in takes, in ms."""
    on, times = plane.connect(), []
    for _ in range(count):
        began = time.monotonic()
        plane.ask(on, "/api/v1/sign-in", "POST", {"username": "ann", "password": PASSWORD}, Cookie="")
        times.append((time.monotonic() - began) * 1000)
    return times


async def revoked(plane: Plane) -> float:
    """Return the ms from a sign-out's answer until the socket that the session opened is closed."""
    on = plane.connect()
    _, cookie = plane.ask(on, "/api/v1/sign-in", "POST", {"username": "ann", "password": PASSWORD}, Cookie="")
    session, _ = plane.ask(on, "/api/session", Cookie=cookie)
    async with websockets.connect(session["wds_url"], subprotocols=[websockets.Subprotocol(SUBPROTOCOL)]) as socket:
        await socket.send(json.dumps({"op": "auth", "id": 1, "token": session["token"]}))
        while '"id":1' not in str(await socket.recv()).replace(" ", ""):
            pass
        me, _ = plane.ask(on, "/api/v1/me", Cookie=cookie)
        await asyncio.to_thread(plane.ask, on, "/api/v1/sign-out", "POST", {}, Cookie=cookie, X_CSRF_Token=me["csrf"])
        began = time.monotonic()
        try:
            async with asyncio.timeout(30):
                while True:
                    await socket.recv()
        except websockets.ConnectionClosed as closed:
            code = closed.rcvd.code if closed.rcvd else 0
        taken_ms = (time.monotonic() - began) * 1000
    assert code == 4001, code
    return taken_ms


def resident(pid: int) -> float:
    """Return the MB of the control plane, its worker included."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    pages = sum(int(Path(f"/proc/{one}/statm").read_text().split()[1]) for one in (pid, *children))
    return pages * 4096 / 1e6


def percentile(values: list[float], share: float) -> float:
    """Return the value below which `share` of them lie."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))]


def say(figure: str, value: float, unit: str, workload: str) -> None:
    """Print one line."""
    line = {"bench": "scp", "figure": figure, "value": round(value, 1), "unit": unit, "workload": workload}
    print(json.dumps({**line, "excludes": "start-up"}), flush=True)


if __name__ == "__main__":
    main()
